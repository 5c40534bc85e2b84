"""Numbers as text."""

from math import floor, log10
from typing import Literal

Unit = Literal["fraction", "loss", "count", "residual", "bytes", "ms", "s", "mib", "times"]


def percent(fraction: float, digits: int = 2) -> str:
    """A fraction as text; what is not quite none or all never reads as 0 or 100."""
    text, least = f"{100 * fraction:.{digits}f}", 10.0**-digits
    if 0 < fraction < 1 and float(text) in (0, 100):
        text = f"<{least:g}" if float(text) == 0 else f">{100 - least:g}"
    return f"{text}\u202f%"


def scientific(value: float, digits: int = 0) -> str:
    """A number as text, such as 3.1e-9."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def significant(value: float, digits: int = 3) -> str:
    """A number of ordinary size with so many digits, never as a power of ten, such as 1.50 or 1,234."""
    rounded = float(f"{value:.{digits - 1}e}")  # 9.996 has one digit before the point and 10.0 has two
    if rounded == 0:
        return "0"
    return f"{rounded:,.{max(digits - 1 - floor(log10(abs(rounded))), 0)}f}"


def size(value: float) -> str:
    """Bytes as text, in the decimal units that disks are sold by."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 999.5 or unit == "GB":
            break
        value /= 1000
    return f"{value:,.0f}\u202fbytes" if unit == "bytes" else f"{significant(value)}\u202f{unit}"


def duration(seconds: float) -> str:
    """Seconds as text, in the unit that fits."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def deviation(std: float, mean: float, unit: Unit) -> str:
    """A standard deviation as it stands behind its mean: in the same unit, with as many digits."""
    text, _, name = shown(mean, unit).partition("\u202f")
    scale = {"%": 0.01, "kB": 1e3, "MB": 1e6, "GB": 1e9}.get(name, 1.0)
    return f"{std / scale:,.{len(text.removesuffix('×').partition('.')[2])}f}"


def shown(value: float | None, unit: Unit) -> str:
    """A number as a reader sees it, a dash where there is none."""
    match value, unit:
        case None, _:
            return "–"
        case value, "fraction":
            return percent(value)
        case value, "count":
            return f"{value:,.0f}"
        case value, "residual":
            return scientific(value, digits=1)
        case value, "loss":
            return f"{value:.4g}"
        case value, "bytes":
            return size(value)
        case value, "ms":
            return f"{significant(value)}\u202fms"
        case value, "s":
            return f"{significant(value)}\u202fs"
        case value, "mib":
            return f"{significant(value)}\u202fMiB"
        case value, "times":
            return f"{significant(value)}×"
