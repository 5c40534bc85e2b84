"""Numbers as text."""

from typing import Literal

Unit = Literal["fraction", "loss", "count", "residual"]


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
