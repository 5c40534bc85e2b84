"""What a comparison comes to: means over seeds, the frontier, and how far each method goes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from openwork.report.compared import Compared, Trained
from openwork.report.text import Unit

# By name, label, unit, in the order of the table.
MEASURES: Sequence[tuple[str, str, Unit]] = (
    ("test_accuracy", "Test accuracy", "fraction"),
    ("test_loss", "Test loss", "loss"),
    ("compression_ratio", "Compression ratio", "times"),
    ("unstructured_sparsity", "Zero parameters", "fraction"),
    ("group_sparsity", "Zero groups", "fraction"),
    ("weighted_group_sparsity", "Zero groups, by size", "fraction"),
    ("nonzero_params", "Nonzero parameters", "count"),
    ("params", "Parameters, shrunk", "count"),
    ("size_bytes", "File", "bytes"),
    ("macs", "MACs", "count"),
    ("latency_ms", "Latency", "ms"),
    ("speedup", "Speed-up", "times"),
    ("seconds", "Training", "s"),
    ("memory_bytes", "Memory", "bytes"),
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
        "compression_ratio",
        "Compression",
        "compression",
        "Compression ratio: parameters for each that is not zero",
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
class Spread:
    """One measure over seeds.

    Args:
        mean: Over those that have it.
        std: Sample standard deviation; None for fewer than two.
        count: How many have it.
    """

    mean: float
    std: float | None
    count: int


@dataclass(frozen=True)
class Point:
    """One method at one strength, over its seeds.

    Args:
        method: Name.
        strength: How sparse.
        seeds: Of the networks.
        wanted: Networks that were to be trained, as far as each has come to an end.
        judged: Of those, how many gave a network with the measure of quality.
        values: Measures by name; those that no network has are left out.
        frontier: Names of the costs for which no other point is both better and cheaper.
    """

    method: str
    strength: float
    seeds: Sequence[int]
    wanted: int
    judged: int
    values: Mapping[str, Spread]
    frontier: Sequence[str] = ()

    @property
    def complete(self) -> bool:
        """Whether no seed failed: the mean over the others would flatter."""
        return self.judged == self.wanted

    def mean(self, key: str) -> float | None:
        """Of a measure; None where no network has it."""
        return self.values[key].mean if key in self.values else None


@dataclass(frozen=True)
class Reach:
    """How far a method goes.

    Args:
        method: Name.
        best: Its best accuracy, at whatever strength.
        points: For each allowed loss of accuracy, the strength and the compression ratio of the smallest network within
            it; None where all of them lose more.
    """

    method: str
    best: float
    points: Sequence[tuple[float, float] | None]


def quality_of(trained: Sequence[Trained]) -> Quality:
    """Accuracy where there are classes, or else the loss."""
    if any(one.numbers["test_accuracy"] is not None for one in trained):
        return Quality("test_accuracy", "Test accuracy", "fraction", rising=True)
    return Quality("test_loss", "Test loss", "loss", rising=False)


def points(compared: Compared, quality: Quality) -> list[Point]:
    """Methods at their strengths, with the frontiers they are on.

    Args:
        compared: What the files say.
        quality: What a network is good at.

    Returns:
        One for each method and strength with a network, by method in the order of the file, then by strength.
    """
    order = list(dict.fromkeys(one.cell.method for one in compared.trained))
    cells: dict[tuple[int, float], list[Trained]] = {}
    for one in compared.trained:
        cells.setdefault((order.index(one.cell.method), _rounded(one.cell.strength)), []).append(one)
    failed = [(one.cell.method, _rounded(one.cell.strength)) for one in compared.failed]
    found = [
        _point(order[n], networks, quality, failed.count((order[n], strength)))
        for (n, strength), networks in sorted(cells.items(), key=lambda item: item[0])
    ]
    frontiers = {cost.key: pareto(found, quality, cost) for cost in COSTS}
    return [replace(point, frontier=[key for key, best in frontiers.items() if point in best]) for point in found]


def _rounded(strength: float) -> float:
    return float(f"{strength:.6g}")


def _point(method: str, networks: Sequence[Trained], quality: Quality, failed: int) -> Point:
    values: dict[str, Spread] = {}
    for key in networks[0].numbers:
        found = [value for one in networks if (value := one.numbers[key]) is not None]
        if found:
            values[key] = Spread(fmean(found), stdev(found) if len(found) > 1 else None, len(found))
    return Point(
        method,
        networks[0].cell.strength,
        [one.cell.seed for one in networks],
        failed + len(networks),
        values[quality.key].count if quality.key in values else 0,
        values,
    )


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
        if point.complete
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


def reaches(found: Sequence[Point], quality: Quality) -> list[Reach]:
    """How far each method goes without losing more accuracy than allowed; nothing without a reference.

    Args:
        found: All points.
        quality: What a network is good at.

    Returns:
        One for each method but the reference, those that go furthest at the smallest loss first.
    """
    dense = reference(found)
    if dense is None or quality.unit != "fraction" or dense.mean(quality.key) is None:
        return []
    made: list[Reach] = []
    for method in dict.fromkeys(point.method for point in found if point.method != dense.method):
        own = [
            (point.values[quality.key].mean, point.values["compression_ratio"].mean, point.strength)
            for point in found
            if point.method == method and point.complete and "compression_ratio" in point.values
        ]
        if not own:
            continue
        within = [
            max(
                ((strength, ratio) for good, ratio, strength in own if good >= dense.values[quality.key].mean - loss),
                key=lambda pair: pair[1],
                default=None,
            )
            for loss in ALLOWED
        ]
        made.append(Reach(method, max(good for good, _, _ in own), within))
    return sorted(made, key=lambda reach: [-pair[1] if pair else 0.0 for pair in reach.points])


__all__ = [
    "ALLOWED",
    "COSTS",
    "LOST",
    "MEASURES",
    "WORSE",
    "Cost",
    "Point",
    "Quality",
    "Reach",
    "Spread",
    "limit",
    "pareto",
    "points",
    "quality_of",
    "reaches",
    "reference",
]
