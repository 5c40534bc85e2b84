"""Meeting a target by steering the strength, and by nothing else."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, cast, get_args

from openwork.comparison.result import Result

Measure = Literal["density", "macs", "latency_ms"]

# How near a target is near enough.
TOLERANCE = 0.05
# Networks to train for one, at most.
MOST_PROBES = 14
# While all networks are on one side of the target: largest factor from one strength to the next.
LEAP = 30.0
# Strengths closer than this, in their logarithm, give the same network; where networks this close, in the logarithm of
# what they are above the least strength, are on both sides of a target, it lies within a jump.
SAME, JUMP = 1e-4, 0.02


@dataclass(frozen=True)
class Target:
    """How small a network should become.

    Args:
        measure: ``"density"`` is the fraction of the parameters that are left and not zero, ``"macs"`` that of the
            multiply-accumulate operations of the shrunk network, ``"latency_ms"`` its time for a batch of one.
        value: To be met within 5 %; above 0, and below 1 for a fraction.

    Raises:
        ValueError: If there is no such measure, or the value is out of range.
    """

    measure: Measure
    value: float

    def __post_init__(self) -> None:
        if self.measure not in get_args(Measure):
            raise ValueError(
                f"target: there is no measure {self.measure!r}; there are {', '.join(get_args(Measure))}, such as "
                "density=0.1"
            )
        most = math.inf if self.measure == "latency_ms" else 1.0
        if not 0 < self.value < most:
            said = "above 0" if most == math.inf else "between 0 and 1, a fraction of the dense network's"
            raise ValueError(f"target: {self.measure} must be {said}, got {self.value:g}")

    @classmethod
    def parse(cls, text: str) -> "Target":
        """From words such as ``density=0.1``.

        Args:
            text: Measure and value.

        Raises:
            ValueError: If it is none.
        """
        measure, _, value = text.partition("=")
        try:
            return cls(cast("Measure", measure.strip()), float(value))
        except ValueError as error:
            if str(error).startswith("target:"):
                raise
            raise ValueError(f"target: {text!r} must be a measure and a number, such as density=0.1") from error

    def __str__(self) -> str:
        return f"{self.measure}={self.value:g}"

    def of(self, result: Result) -> float | None:
        """What a network has of the measure; None while its time is not known."""
        match self.measure:
            case "density":
                return result.density
            case "macs":
                return result.macs[1] / result.macs[0]
            case "latency_ms":
                return result.latency_ms[1] if result.latency_ms else None

    def met(self, reached: float) -> bool:
        """Whether that is near enough."""
        return abs(reached / self.value - 1) <= TOLERANCE


@dataclass(frozen=True)
class Probe:
    """A network on the way to a target.

    Args:
        strength: Above 0.
        reached: Its measure over the target; None if its training failed.
    """

    strength: float
    reached: float | None


def next_strength(probes: Sequence[Probe], first: float, least: float = 0.0) -> float | None:
    """The strength to try next, None if the target is met or cannot be.

    With networks on both sides of the target, the secant of the logarithms between the nearest two, kept off their
    ends so that they come closer in any case; with all on one side, further away, by the secant too. Nothing is taken
    for granted but that strong enough is sparse enough: where the measure is not monotone in between, any change of
    side is followed.

    Args:
        probes: Those tried, in any order.
        first: The strength to begin with, above 0.
        least: The smallest that there is.
    """
    if not probes:
        return rounded(first)
    if len(probes) >= MOST_PROBES or any(p.reached is not None and abs(p.reached - 1) <= TOLERANCE for p in probes):
        return None
    points = sorted((math.log(probe.strength), _side(probe)) for probe in probes)
    step = _between(points, least) if _crossings(points) else _beyond(points)
    if step is not None and least > 0:
        step = max(step, math.log(least))
    if step is None or any(abs(step - x) < SAME for x, _ in points):
        return None
    return rounded(math.exp(step))


def nearest(probes: Sequence[Probe]) -> int | None:
    """Which probe came nearest to the target, by its logarithm; None if none is of use."""
    found = [(abs(math.log(p.reached)), i) for i, p in enumerate(probes) if p.reached]
    return min(found)[1] if found else None


def rounded(strength: float) -> float:
    """As many digits as the name of a cell has: what differs less is the same cell."""
    return float(f"{strength:.6g}")


def _side(probe: Probe) -> float:
    """Logarithm of what was reached over the target, above 0 where that is too dense.

    Where nothing is left, or training failed, as it does when the strength is far too large: minus infinity.
    """
    return math.log(probe.reached) if probe.reached else -math.inf


def _crossings(points: Sequence[tuple[float, float]]) -> list[int]:
    """Where the side changes: indices of the points before."""
    return [i for i, (a, b) in enumerate(pairwise(points)) if (a[1] > 0) != (b[1] > 0)]


def _between(points: Sequence[tuple[float, float]], least: float) -> float | None:
    """Between the two neighbors on both sides of the target that are nearest to it."""

    def distance(i: int) -> float:
        return min(abs(points[i][1]), abs(points[i + 1][1]))

    i = min(_crossings(points), key=distance)
    (a, up), (b, down) = points[i], points[i + 1]
    # What is removed grows from the least strength on: near it, strengths that are close are still far apart.
    above = math.exp(a) - least
    if above > 0 and math.log((math.exp(b) - least) / above) < JUMP:
        return None
    # Where a neighbor is as high, there are steps, of which a slope says nothing.
    flat = up in (y for _, y in points[i - 1 : i]) or down in (y for _, y in points[i + 2 : i + 3])
    if flat or math.isinf(up) or math.isinf(down):
        return (a + b) / 2
    # The secant alone may creep up from one side for ever.
    part = min(max(up / (up - down), 0.15), 0.85)
    return a + part * (b - a)


def _beyond(points: Sequence[tuple[float, float]]) -> float | None:
    """Towards the target, where all are on one side of it."""
    (x, y), away = (points[-1], 1) if points[-1][1] > 0 else (points[0], -1)
    most = math.log(LEAP)
    if len(points) == 1 or math.isinf(y):
        return x + away * most / 3
    beside = points[-2] if away > 0 else points[1]
    slope = (y - beside[1]) / (x - beside[0])
    # A little further than the secant says, to have both sides soon.
    step = 1.2 * abs(y / slope) if slope < 0 and math.isfinite(slope) else most
    return x + away * min(max(step, 0.05), most)


__all__ = ["Probe", "Target", "nearest", "next_strength", "rounded"]
