"""Finite distributions that users pass."""

from collections.abc import Sequence
from math import fsum

from torch import Tensor

from openwork.sketches.key import Key
from openwork.sketches.numbers import uniform


def check_probabilities(place: str, name: str, values: Sequence[float], count: int) -> None:
    """Refuse what is no distribution.

    Args:
        place: Class or function that was called.
        name: Of its argument.
        values: Probabilities.
        count: How many there have to be.

    Raises:
        ValueError: If there are more or fewer, one is not above 0, or they do not sum to 1.
    """
    if len(values) != count or count == 0:
        raise ValueError(f"{place}: {name} must be {max(count, 1)} probabilities, got {len(values)}")
    # Not a number is no probability either.
    wrong = [value for value in values if not value > 0]
    if wrong:
        raise ValueError(f"{place}: {name} must be above 0, got {wrong[0]}; leave out what is never drawn")
    if not abs(fsum(values) - 1) <= 1e-9:
        raise ValueError(f"{place}: {name} must sum to 1, got {fsum(values)}; divide each by the sum")


def pick(key: Key, probabilities: Tensor) -> int:
    """Draw one of several.

    Args:
        key: What names the draw.
        probabilities: Float64 ``(count,)``, which sum to 1.
    """
    # On the CPU whatever the device of the draw, so that nothing waits for a device.
    below = int((probabilities.cumsum(0) <= uniform(key, 1)).sum())
    return min(below, probabilities.numel() - 1)


__all__ = ["check_probabilities", "pick"]
