"""From ramps to signs: hidden sign layers that begin as ramps and get steeper."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

from openwork.altmin.elementwise import Activation
from openwork.altmin.piecewise import SignSteps

__all__ = ["SignHomotopy"]


@dataclass(frozen=True)
class SignHomotopy:
    """Sign layers train as ramps ``min(max(slope z, -1), 1)`` whose slope grows geometrically, then as signs.

    Args:
        sweeps: How long there is a ramp, >= 1.
        start: First slope, > 0.
        end: Last slope before infinity, >= ``start``.

    Raises:
        ValueError: If a number is out of range.
    """

    sweeps: int
    start: float = 1.0
    end: float = 20.0

    def __post_init__(self) -> None:
        if self.sweeps < 1:
            raise ValueError(f"SignHomotopy: sweeps must be >= 1, got {self.sweeps}")
        if not 0 < self.start <= self.end < inf:
            raise ValueError(
                f"SignHomotopy: slopes must be finite with 0 < start <= end, got start {self.start} and end {self.end}"
            )

    def slope(self, done: int) -> float:
        """The slope of the next sweep; infinite for sign itself.

        Args:
            done: Sweeps before it.
        """
        if done >= self.sweeps:
            return inf
        return self.start * (self.end / self.start) ** (done / max(1, self.sweeps - 1))

    def apply(self, activations: Sequence[Activation], done: int) -> bool:
        """Give the sign layers the slope of the next sweep.

        Args:
            activations: Of the model.
            done: Sweeps before it.

        Returns:
            Whether that changed any.
        """
        slope = self.slope(done)
        changed = [steps for steps in signs(activations) if steps.slope != slope]
        for steps in changed:
            steps.slope = slope
        return bool(changed)


def signs(activations: Sequence[Activation]) -> list[SignSteps]:
    """The sign layers among activations."""
    return [activation for activation in activations if isinstance(activation, SignSteps)]


def harden(activations: Sequence[Activation]) -> None:
    """Make ramps signs.

    Args:
        activations: Of the model.
    """
    for steps in signs(activations):
        steps.slope = inf


@contextmanager
def hardened(activations: Sequence[Activation]) -> Iterator[None]:
    """Inside, ramps are signs, as in the network that is used in the end."""
    ramps = [(steps, steps.slope) for steps in signs(activations)]
    try:
        harden(activations)
        yield
    finally:
        for steps, slope in ramps:
            steps.slope = slope
