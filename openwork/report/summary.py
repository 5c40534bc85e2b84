"""What a comparison comes to: the frontier, and how far each method goes."""

from collections.abc import Sequence
from dataclasses import dataclass

from openwork.report.compared import Point
from openwork.report.text import Unit

# By name, label, unit, in the order of the table.
MEASURES: Sequence[tuple[str, str, Unit]] = (
    ("accuracy", "Test accuracy", "fraction"),
    ("loss", "Test loss", "loss"),
    ("valid_accuracy", "Validation accuracy", "fraction"),
    ("valid_loss", "Validation loss", "loss"),
    ("compression", "Compression ratio", "times"),
    ("unstructured", "Zero parameters", "fraction"),
    ("group", "Zero groups", "fraction"),
    ("weighted_group", "Zero groups, by size", "fraction"),
    ("params", "Parameters, shrunk", "count"),
    ("bytes", "File", "bytes"),
    ("macs", "MACs", "count"),
    ("latency_ms", "Latency", "ms"),
    ("speedup", "Speed-up", "times"),
    ("seconds", "Training", "s"),
    ("memory_mib", "Memory", "mib"),
)
LOST = 0.15  # of accuracy below the best: what lost more is no choice that anybody would make
WORSE = 3.0  # times the best loss: the same
ALLOWED = (0.01, 0.02, 0.05)  # losses of accuracy that the table of methods is about


@dataclass(frozen=True)
class Cost:
    """What a network costs: one horizontal axis of the frontier.

    Args:
        key: Name of the measure.
        label: Its name for a reader.
        words: The same within a sentence.
        title: Of the axis.
        unit: What the numbers are.
        rising: Whether more is better.
    """

    key: str
    label: str
    words: str
    title: str
    unit: Unit
    rising: bool = False


COSTS = (
    Cost(
        "compression",
        "Compression",
        "compression",
        "Compression ratio: parameters for each that is left and not zero",
        "times",
        True,
    ),
    Cost("macs", "MACs", "MACs", "Multiply-accumulates per sample", "count"),
    Cost("latency_ms", "Latency", "latency", "Latency of a batch of one", "ms"),
)


@dataclass(frozen=True)
class Quality:
    """What a network is good at: the vertical axis of the frontier.

    Args:
        key: Name of the measure.
        label: Its name for a reader.
        unit: What the numbers are.
        rising: Whether more is better.
    """

    key: str
    label: str
    unit: Unit
    rising: bool


@dataclass(frozen=True)
class Step:
    """A strength that was chosen, and what it comes to.

    Args:
        strength: How sparse.
        compression: Compression ratio, mean over the seeds.
        accuracy: On the test samples, mean over the seeds.
    """

    strength: float
    compression: float
    accuracy: float


@dataclass(frozen=True)
class Reach:
    """How far a method goes.

    Args:
        method: Name.
        best: Its most accurate strength.
        steps: For each allowed loss of accuracy, the strength with the smallest network within it; None where all of
            them lose more.
    """

    method: str
    best: Step
    steps: Sequence[Step | None]


def quality_of(found: Sequence[Point]) -> Quality:
    """Accuracy where there are classes, or else the loss."""
    if any("accuracy" in point.values for point in found):
        return Quality("accuracy", "Test accuracy", "fraction", rising=True)
    return Quality("loss", "Test loss", "loss", rising=False)


def limit(found: Sequence[Point], quality: Quality) -> float:
    """The worst value of the quality that still is a choice; of no points, there is none that is not.

    Args:
        found: All points.
        quality: What a network is good at.
    """
    values = [point.values[quality.key].mean for point in found if quality.key in point.values]
    if quality.rising:
        return max(values, default=0.0) - LOST
    return WORSE * min(values, default=float("inf"))


def pareto(found: Sequence[Point], quality: Quality, cost: Cost) -> list[Point]:
    """Points such that no other is at least as good in both measures and better in one.

    Left out are points with a failure, and those beyond the limit: the smallest network of all is always on the
    frontier, even one that has learned nothing.

    Args:
        found: All points.
        quality: The vertical measure.
        cost: The horizontal one.

    Returns:
        Those points, from the dearest to the cheapest.
    """
    worst = limit(found, quality)

    def rank(point: Point) -> tuple[float, float]:
        good, price = point.values[quality.key].mean, point.values[cost.key].mean
        return (good if quality.rising else -good, price if cost.rising else -price)

    judged = [
        (*rank(point), n)
        for n, point in enumerate(found)
        if not point.failures
        and {quality.key, cost.key} <= point.values.keys()
        and (point.values[quality.key].mean >= worst if quality.rising else point.values[quality.key].mean <= worst)
    ]
    best = [
        (price, n)
        for good, price, n in judged
        if not any(g >= good and p >= price and (g, p) != (good, price) for g, p, _ in judged)
    ]
    return [found[n] for _, n in sorted(best)]


def reference(found: Sequence[Point]) -> Point | None:
    """The first method that was trained at strength 0 alone, which removes nothing; None if there is none."""
    strengths: dict[str, list[float]] = {}
    for point in found:
        strengths.setdefault(point.method, []).append(point.strength)
    return next((point for point in found if strengths[point.method] == [0.0]), None)


def judge(found: Sequence[Point], quality: Quality) -> str:
    """The measure that strengths are chosen by: the quality on validation samples, so that test samples choose nothing.

    Args:
        found: All points.
        quality: What a network is good at.

    Returns:
        Its name; that of the quality itself where a point has no such number on validation samples.
    """
    valid = f"valid_{quality.key}"
    return valid if all(valid in point.values for point in found if quality.key in point.values) else quality.key


def reaches(found: Sequence[Point], quality: Quality) -> list[Reach]:
    """How far each method goes without losing more accuracy than allowed, judged by ``judge``.

    Args:
        found: All points.
        quality: What a network is good at.

    Returns:
        One for each method but the reference, those that go furthest at the smallest loss first. None at all without a
        reference, or for a loss: how much of it is little differs from task to task.
    """
    dense, by = reference(found), judge(found, quality)
    needed = {quality.key, by, "compression"}
    if dense is None or quality.unit != "fraction" or not needed <= dense.values.keys():
        return []
    goal = dense.values[by].mean

    def good(point: Point) -> float:
        return point.values[by].mean

    def ratio(point: Point) -> float:
        return point.values["compression"].mean

    def step(point: Point) -> Step:
        return Step(point.strength, ratio(point), point.values[quality.key].mean)

    made: list[Reach] = []
    for method in dict.fromkeys(point.method for point in found if point.method != dense.method):
        own = [p for p in found if p.method == method and not p.failures and needed <= p.values.keys()]
        if own:
            within = [[point for point in own if good(point) >= goal - loss] for loss in ALLOWED]
            steps = [step(max(some, key=lambda p: (ratio(p), good(p)))) if some else None for some in within]
            made.append(Reach(method, step(max(own, key=lambda p: (good(p), ratio(p)))), steps))
    return sorted(made, key=lambda reach: [-step.compression if step else 0.0 for step in reach.steps])


__all__ = [
    "ALLOWED",
    "COSTS",
    "LOST",
    "MEASURES",
    "WORSE",
    "Cost",
    "Quality",
    "Reach",
    "Step",
    "judge",
    "limit",
    "pareto",
    "quality_of",
    "reaches",
    "reference",
]
