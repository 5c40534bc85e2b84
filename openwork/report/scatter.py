"""The frontier as a picture: quality against cost, one mark per method and strength."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from openwork.report.axes import Axis, wide
from openwork.report.compared import Point, Spread
from openwork.report.marks import ink, mark
from openwork.report.summary import MEASURES, Cost, Quality, limit, pareto
from openwork.report.text import Unit, deviation, shown

WIDTH, HEIGHT = 860, 430  # pixels that labels are placed for; where there are fewer, they are left out
LETTER, LINE = 8.2, 15  # pixels of a label, in the widest of the fonts that a page may get


@dataclass(frozen=True)
class Scatter:
    """One frontier, drawn by places in percent so that it fills any width with text of one size.

    Args:
        points: All points.
        quality: The vertical measure.
        cost: The horizontal one.
        dense: The point that removes nothing; None if there is none.
        labels: Name of each method for a reader.
        baselines: Methods with hollow marks.
    """

    points: Sequence[Point]
    quality: Quality
    cost: Cost
    dense: Point | None
    labels: Mapping[str, str]
    baselines: Sequence[str]

    @property
    def drawn(self) -> list[Point]:
        """Points that have both measures, a cost above 0."""
        keys = {self.quality.key, self.cost.key}
        return [point for point in self.points if keys <= point.values.keys() and point.values[self.cost.key].mean > 0]

    @property
    def outside(self) -> list[Point]:
        """Those drawn that are too far below the best for the picture."""
        return [point for point in self.drawn if not self._vertical().holds(point.values[self.quality.key].mean)]

    def svg(self) -> str:
        """An ``<svg>`` element whose size and colors the page decides."""
        across, up = self._horizontal(), self._vertical()
        best = pareto(self.drawn, self.quality, self.cost)
        parts = [
            *self._grid(across, up),
            *self._reference(up),
            *_stairs([self._place(point, across, up) for point in best]),
            *self._series(across, up, best),
            *self._names(across, up, best),
        ]
        told = f"{self.quality.label} against {self.cost.words}, one mark per method and strength"
        return f'<svg role="img" aria-label="{escape(told)}">\n{chr(10).join(parts)}\n</svg>'

    def _place(self, point: Point, across: Axis, up: Axis) -> tuple[float, float]:
        return across.at(point.values[self.cost.key].mean), 100 - up.at(point.values[self.quality.key].mean)

    def _vertical(self) -> Axis:
        values = [point.values[self.quality.key].mean for point in self.drawn]
        worst = limit(self.drawn, self.quality)
        near = [value for value in values if (value >= worst if self.quality.rising else value <= worst)]
        low, high = min(near), max(near)
        room = 0.06 * (high - low) or 0.01 * abs(high) or 0.01
        top = min(high + room, 1.0) if self.quality.unit == "fraction" and high < 1 else high + room
        return Axis(low - room, top, falling=not self.quality.rising)

    def _horizontal(self) -> Axis:
        up = self._vertical()
        near = [p for p in self.drawn if up.holds(p.values[self.quality.key].mean)]
        axis = wide([point.values[self.cost.key].mean for point in near], 0.04)
        return Axis(axis.low, axis.high, log=True, falling=not self.cost.rising)

    def _grid(self, across: Axis, up: Axis) -> Iterator[str]:
        for value in up.ticks(6):
            y = f"{100 - up.at(value):.2f}%"
            yield f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
            yield f'<text class="tick end" x="0" dx="-10" y="{y}" dy=".35em">{_tick(value, self.quality.unit)}</text>'
        yield '<line class="axis" x1="0" x2="100%" y1="100%" y2="100%"/>'
        for value in across.ticks(7):
            x = f"{across.at(value):.2f}%"
            yield f'<line class="axis" x1="{x}" x2="{x}" y1="100%" y2="100%" transform="translate(0 4)"/>'
            yield f'<text class="tick middle" x="{x}" y="100%" dy="26">{_tick(value, self.cost.unit)}</text>'

    def _reference(self, up: Axis) -> Iterator[str]:
        if self.dense is None or self.quality.key not in self.dense.values:
            return
        found = self.dense.values[self.quality.key]
        y = 100 - up.at(found.mean)
        if found.std:
            ends = sorted(100 - up.at(found.mean + sign * found.std) for sign in (1, -1))
            yield f'<rect class="band" x="0" width="100%" y="{ends[0]:.2f}%" height="{ends[1] - ends[0]:.2f}%"/>'
        yield f'<line class="dense" x1="0" x2="100%" y1="{y:.2f}%" y2="{y:.2f}%"/>'
        yield (
            f'<text class="tick end" x="100%" y="{y:.2f}%" dy="-6">{escape(self.labels[self.dense.method])} '
            f"{shown(found.mean, self.quality.unit)}</text>"
        )

    def _series(self, across: Axis, up: Axis, best: Sequence[Point]) -> Iterator[str]:
        for n, method in enumerate(self.labels):
            own = [point for point in self.drawn if point.method == method]
            if not own:
                continue
            yield f'<g class="series" data-method="{n}" style="{ink(n)}">'
            places = [self._place(point, across, up) for point in own]
            for (x1, y1), (x2, y2) in pairwise(places):
                yield f'<line class="path" x1="{x1:.2f}%" y1="{y1:.2f}%" x2="{x2:.2f}%" y2="{y2:.2f}%"/>'
            for point, (x, y) in zip(own, places, strict=True):
                ring = '<circle class="ring" r="9.5"/>' if point in best else ""
                hollow = method in self.baselines
                yield (
                    f'<g class="spot">{"".join(self._errors(point, across, up))}'
                    f'<svg class="at" x="{x:.2f}%" y="{y:.2f}%">{ring}{self._mark(n, point, up, hollow=hollow)}</svg>'
                    f"<title>{escape(self._told(point))}</title></g>"
                )
            yield "</g>"

    def _mark(self, n: int, point: Point, up: Axis, *, hollow: bool) -> str:
        if up.holds(point.values[self.quality.key].mean):
            return mark(n, hollow=hollow)
        return f'{mark(n, hollow=hollow)}<path class="beyond" d="M-4,9L0,14L4,9"/>'

    def _errors(self, point: Point, across: Axis, up: Axis) -> Iterator[str]:
        x, y = self._place(point, across, up)
        price, good = point.values[self.cost.key], point.values[self.quality.key]
        if good.std and up.holds(good.mean):
            ends = [100 - up.at(good.mean + sign * good.std) for sign in (-1, 1)]
            yield f'<line class="error" x1="{x:.2f}%" x2="{x:.2f}%" y1="{ends[0]:.2f}%" y2="{ends[1]:.2f}%"/>'
        if price.std and up.holds(good.mean):
            # As a factor, since the axis has no place for what a deviation above the mean would leave below it.
            factor = 1 + price.std / price.mean
            ends = [across.at(price.mean / factor), across.at(price.mean * factor)]
            yield f'<line class="error" y1="{y:.2f}%" y2="{y:.2f}%" x1="{ends[0]:.2f}%" x2="{ends[1]:.2f}%"/>'

    def _told(self, point: Point) -> str:
        said = [self.labels[point.method]]
        if point.strength:
            said[0] += f", strength {point.strength:.3g}"
        keys = (
            self.quality.key,
            f"valid_{self.quality.key}",
            "compression",
            "unstructured",
            "params",
            "macs",
            "latency_ms",
        )
        said += [
            f"{label} {spread_text(point.values[key], unit)}"
            for key, label, unit in MEASURES
            if key in keys and key in point.values
        ]
        said.append(f"{point.seeds} seed{'' if point.seeds == 1 else 's'}")
        return "\n".join([*said, *point.failures, *point.notes])

    def _names(self, across: Axis, up: Axis, best: Sequence[Point]) -> Iterator[str]:
        """Names beside marks, each method once, where nothing is in the way; those on the frontier first."""
        pixels = {id(point): self._pixels(point, across, up) for point in self.drawn}
        taken = [(x - 8, y - 8, x + 8, y + 8) for x, y in pixels.values()]
        if self.dense is not None and self.quality.key in self.dense.values:
            y = HEIGHT * (1 - up.at(self.dense.values[self.quality.key].mean) / 100)
            taken.append((0, y - 18, WIDTH, y + 4))
        named: set[str] = set() if self.dense is None else {self.dense.method}
        inside = [point for point in self.drawn if up.holds(point.values[self.quality.key].mean)]
        for point in [*reversed(best), *reversed(inside)]:
            if point.method in named:
                continue
            x, y = pixels[id(point)]
            length = LETTER * len(self.labels[point.method])
            for left, top, anchor in (
                (x + 12, y - LINE / 2, ""),
                (x - 12 - length, y - LINE / 2, " end"),
                (x - length / 2, y - 12 - LINE, " middle"),
                (x - length / 2, y + 12, " middle"),
            ):
                box = (left, top, left + length, top + LINE)
                if _free(box, taken):
                    taken.append(box)
                    named.add(point.method)
                    yield self._name(point, across, up, (left + length / 2 - x, top + LINE / 2 - y), anchor)
                    break

    def _pixels(self, point: Point, across: Axis, up: Axis) -> tuple[float, float]:
        x, y = self._place(point, across, up)
        return WIDTH * x / 100, HEIGHT * y / 100

    def _name(self, point: Point, across: Axis, up: Axis, shift: tuple[float, float], anchor: str) -> str:
        x, y = self._place(point, across, up)
        n = list(self.labels).index(point.method)
        dx = 0 if anchor == " middle" else 12 if shift[0] > 0 else -12
        return (
            f'<text class="name{anchor}" data-method="{n}" style="{ink(n)}" x="{x:.2f}%" y="{y:.2f}%" dx="{dx}" '
            f'dy="{shift[1] + 4:.0f}">{escape(self.labels[point.method])}</text>'
        )


Box = tuple[float, float, float, float]


def _free(box: Box, taken: Sequence[Box]) -> bool:
    left, top, right, bottom = box
    if left < 0 or right > WIDTH or top < 0 or bottom > HEIGHT:
        return False
    return not any(left < r and right > a and top < d and bottom > b for a, b, r, d in taken)


def _stairs(places: Sequence[tuple[float, float]]) -> Iterator[str]:
    """What can be had: from each point on the frontier level to the next, then down."""
    ordered = sorted(places)
    for (x1, y1), (x2, y2) in pairwise(ordered):
        yield f'<line class="stairs" x1="{x1:.2f}%" y1="{y2:.2f}%" x2="{x2:.2f}%" y2="{y2:.2f}%"/>'
        yield f'<line class="stairs" x1="{x1:.2f}%" y1="{y1:.2f}%" x2="{x1:.2f}%" y2="{y2:.2f}%"/>'


def _tick(value: float, unit: Unit) -> str:
    match unit:
        case "fraction":
            return f"{100 * value:.4g}\u202f%"
        case "count":
            size, name = next((pair for pair in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= pair[0]), (1, ""))
            return f"{value / size:g}{name}"
        case "times":
            return f"{value:g}×"
        case "ms":
            return f"{value:g}\u202fms"
        case _:
            return f"{value:g}"


def spread_text(spread: Spread, unit: Unit) -> str:
    """Mean and standard deviation as text."""
    mean = shown(spread.mean, unit)
    return mean if spread.std is None else f"{mean} ± {deviation(spread.std, spread.mean, unit)}"


__all__ = ["Scatter", "spread_text"]
