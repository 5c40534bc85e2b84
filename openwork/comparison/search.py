"""Hyper-parameters of each method: the same number of trials for all, chosen on validation samples only."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from random import Random

from openwork.comparison.method import Method
from openwork.comparison.result import Searched
from openwork.files import Json

# How many more weights a network may have than that of the method as it is, for its settings to be chosen.
DENSER = 1.1


def candidates(method: Method, count: int, seed: int = 0) -> list[Method]:
    """Settings to try: the method as it is, and a Latin hypercube in the logarithms of its ranges.

    Args:
        method: With its ranges.
        count: How many, >= 1; there is one if the method has nothing to tune.
        seed: Of the draw.
    """
    ranges, draw, others = method.ranges(), Random(seed), count - 1
    columns: dict[str, list[float]] = {}
    for name, (low, high) in ranges.items():
        places = [(k + draw.random()) / others for k in range(others)]
        draw.shuffle(places)
        columns[name] = [float(f"{low * (high / low) ** place:.4g}") for place in places]
    points = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return [method, *(replace(method, **point) for point in points)]


def best(trials: Sequence[Searched]) -> Mapping[str, Json]:
    """Settings of the most accurate trial, or of the one with the lowest loss where there are no classes.

    At the same strength settings that remove less are more accurate, which is no merit. So only those are looked at
    that leave hardly more weights than the method as it is.

    Args:
        trials: At least one, in order; of equal ones the first is taken.
    """
    first = trials[0]
    most = DENSER * (1 - first.unstructured) if first.cell.trial == 0 else 1.0
    small = [trial for trial in trials if 1 - trial.unstructured <= most]
    return min(small or trials, key=lambda t: (-(t.valid_accuracy or 0.0), t.valid_loss)).cell.settings


def with_settings(method: Method, settings: Mapping[str, Json]) -> Method:
    """A method with other settings, as a database gives them back.

    Args:
        method: Of the same class.
        settings: Values of fields by name.
    """
    own = asdict(method)
    # JSON has no tuples.
    changed = {
        name: tuple(v) if isinstance(own[name], tuple) and isinstance(v, list) else v for name, v in settings.items()
    }
    return replace(method, **changed)


__all__ = ["best", "candidates", "with_settings"]
