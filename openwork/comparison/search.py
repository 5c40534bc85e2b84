"""Hyper-parameters of each method: the same number of trials for all, chosen on validation samples only."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from random import Random

from openwork.comparison.method import Method
from openwork.comparison.result import Searched
from openwork.files import Json


def candidates(method: Method, count: int, seed: int = 0) -> list[Method]:
    """Settings to try: the method as it is, then others from the grid of its choices, none twice.

    Args:
        method: With its choices.
        count: How many, >= 1; there are fewer if the grid is smaller.
        seed: Of the draw.
    """
    choices = method.choices()
    grid = [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]
    Random(seed).shuffle(grid)
    found = [method]
    for settings in grid:
        other = replace(method, **settings)
        found += [] if other in found else [other]
    return found[:count]


def best(trials: Sequence[Searched]) -> Mapping[str, Json]:
    """Settings of the trial with the highest accuracy, or the lowest loss where there are no classes.

    Args:
        trials: At least one, in order; of equal ones the first is taken.
    """
    return min(trials, key=lambda t: (-(t.valid_accuracy or 0.0), t.valid_loss)).cell.settings


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
