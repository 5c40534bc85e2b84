"""Curves over time, drawn by matplotlib as SVG whose colors the page decides."""

import io
import json
import re
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, floor, inf, log10, nan
from typing import TYPE_CHECKING, Literal

from openwork.report.text import Unit, scientific, shown

if TYPE_CHECKING:
    from collections.abc import Generator

    from matplotlib.axes import Axes

Log = bool | Literal["auto"]

# matplotlib writes these and the page gives them a meaning, one for light and one for dark.
INKS = {
    "a": "#0000a1",
    "b": "#0000b2",
    "c": "#0000c3",
    "d": "#0000d4",
    "e": "#0000e5",
    "f": "#0000f6",
    "quiet": "#000107",
    "rule": "#000108",
}
DASHES: dict[str, str | tuple[int, tuple[float, ...]]] = {
    "solid": "-",
    "dashed": (0, (4, 2)),
    "dotted": (0, (1, 1.6)),
}

WIDTH, HEIGHT = 4.7, 2.6  # inches; about as wide as a phone, so that the text is not scaled down there
LEFT, RIGHT, BOTTOM, TOP = 0.135, 0.985, 0.125, 0.96  # of the picture; the script finds the pointer's place by them
POINTS_TO_READ = 240  # what can be read off by pointing; the line itself has every point


@dataclass(frozen=True)
class Line:
    """One curve.

    Args:
        label: Its name in the legend.
        values: One per time, None where there is none.
        ink: Name of its color.
        dash: How it is drawn, so that color is never the only difference.
    """

    label: str
    values: Sequence[float | None]
    ink: str
    dash: Literal["solid", "dashed", "dotted"] = "solid"


@dataclass(frozen=True)
class Chart:
    """Curves that share their axes.

    Args:
        title: What is drawn.
        times: Where, one per value.
        lines: The curves; those without any value are left out.
        unit: What the values are.
        clock: What the times are.
        caption: One sentence on how to read it.
        log: Whether to draw logarithms; "auto" where the values are far apart.
        marks: Times to mark with an upright line.
    """

    title: str
    times: Sequence[float]
    lines: Sequence[Line]
    unit: Unit
    clock: str = "epoch"
    caption: str = ""
    log: Log = False
    marks: Sequence[float] = ()

    @property
    def drawn(self) -> Sequence[Line]:
        """Lines that have a value."""
        return [line for line in self.lines if any(value is not None for value in line.values)]

    def svg(self, place: str) -> str:
        """Draw the chart.

        Args:
            place: Where on the page it goes; keeps the ids inside apart from those of equal charts elsewhere.

        Returns:
            An ``<svg>`` element whose text is text and whose colors are ``var(--ink-...)``.
        """
        from matplotlib.figure import Figure

        with _settings(salt=f"{place}/{self.title}"):
            figure = Figure(figsize=(WIDTH, HEIGHT))
            axes = figure.subplots()
            figure.subplots_adjust(left=LEFT, right=RIGHT, bottom=BOTTOM, top=TOP)
            self._draw(axes)
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        svg = buffer.getvalue()
        svg = re.sub(r'<g id="[^"]*"', "<g", svg[svg.index("<svg") :])
        svg = re.sub(r' (width|height)="[\d.]+pt"|\sxmlns(:xlink)?="[^"]*"|<!--.*?-->', "", svg, flags=re.DOTALL)
        for name, color in INKS.items():
            svg = svg.replace(color, f"var(--ink-{name})")
        return re.sub(r"\s*\n\s*", "\n", svg)

    def _draw(self, axes: "Axes") -> None:
        from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

        axes.set_axisbelow(True)
        axes.spines[["top", "left", "right"]].set_visible(False)
        axes.spines["bottom"].set_color(INKS["rule"])
        axes.grid(axis="y", color=INKS["rule"], linewidth=0.6)
        axes.tick_params(length=0, labelcolor=INKS["quiet"], labelsize=9, pad=4)
        for mark in self.marks:
            axes.axvline(mark, color=INKS["quiet"], linewidth=0.7, linestyle=DASHES["dotted"])
        for line in self.drawn:
            values = [nan if value is None else value for value in line.values]
            alone = len([value for value in line.values if value is not None]) == 1
            axes.plot(
                self.times,
                values,
                color=INKS[line.ink],
                linewidth=1.5,
                linestyle=DASHES[line.dash],
                marker="o" if alone else "",
                markersize=4,
            )
        if self._is_log():
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            if high < 100 * low:  # room for a few round numbers
                low, high = 10 ** floor(log10(low)), 10 ** ceil(log10(high))
                axes.set_ylim(low, high)
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 1000 * low else (1.0, 2.0, 5.0), numticks=6))
            axes.minorticks_off()
        else:
            axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=self.unit == "count"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, self.unit)))
        whole = all(float(time).is_integer() for time in self.times)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=whole))
        axes.set_xlim(*self._span())

    def _span(self) -> tuple[float, float]:
        first, last = min(self.times), max(self.times)
        return (first, last) if first < last else (first - 0.5, last + 0.5)

    def _is_log(self) -> bool:
        values = [value for line in self.drawn for value in line.values if value is not None]
        positive = [value for value in values if value > 0]
        if self.log != "auto":
            return self.log and bool(positive)
        return len(positive) == len(values) and max(values, default=0) > 30 * min(values, default=inf)

    def readings(self) -> str:
        """JSON for the script: where the axes are, and the values as text, by time."""
        stride = -(-len(self.times) // POINTS_TO_READ)
        picked = [*range(0, len(self.times) - 1, stride), len(self.times) - 1]
        return json.dumps(
            {
                "axes": [LEFT, RIGHT],
                "span": self._span(),
                "clock": self.clock,
                "times": [self.times[n] for n in picked],
                "lines": [[shown(line.values[n], self.unit) for n in picked] for line in self.drawn],
            },
            separators=(",", ":"),
        )


def _tick(value: float, unit: Unit) -> str:
    match unit:
        case "fraction":
            return f"{100 * value:.4g} %"
        case "count":
            return f"{value:,.0f}"
        case "residual":
            return scientific(value)
        case _:
            return shown(value, unit)


@contextmanager
def _settings(salt: str) -> "Generator[None]":
    """Matplotlib as it comes, whatever the user's own settings, drawing the same bytes every time."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": salt, "savefig.transparent": True})
        yield
