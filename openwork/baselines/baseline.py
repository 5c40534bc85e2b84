"""What a baseline is."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from openwork.baselines.pruning import Pruning

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Training:
    """Steps in which the learning rate goes through its whole schedule once.

    Args:
        start: Steps before it.
        stop: Steps after it has ended, above ``start``.
        skipped: Steps at the beginning of the schedule that are left out.
        rate: Factor of the learning rate, > 0.
    """

    start: int
    stop: int
    skipped: int = 0
    rate: float = 1.0


class Baseline(ABC):
    """A published way to decide which entries of the weights are zero, in the course of a training.

    Subclasses are frozen dataclasses: configuration, not state, which ``Pruning`` has. A method says what it does at
    the beginning, when gradients are there, and after a step; what it does not say does nothing.
    """

    #: Fraction of the entries of the prunable weights that is nonzero in the end, in (0, 1].
    density: float

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise ValueError(
                f"{type(self).__name__}: density must be above 0 and at most 1, the fraction of the weights that is "
                f"kept, got {self.density:g}"
            )

    def check(self, steps: int) -> None:  # noqa: B027, every length is right unless a method says otherwise
        """Refuse a training that is too short.

        Args:
            steps: Of the whole training.

        Raises:
            ValueError: If the schedule of the method does not fit.
        """

    def trainings(self, steps: int) -> list[Training]:
        """The trainings that one run is made of, one after the other.

        Args:
            steps: Of all of them.
        """
        return [Training(0, steps)]

    def begin(self, pruning: Pruning, loss: Loss, inputs: Tensor, targets: Tensor) -> None:  # noqa: B027
        """Choose the first masks.

        Args:
            pruning: The weights at initialization, and where masks are set.
            loss: Mean over the samples of a batch, from outputs and targets.
            inputs: Of a batch, ``(N, ...)``.
            targets: Of these.
        """

    def before_step(self, pruning: Pruning) -> None:  # noqa: B027
        """Act on the gradients of the next step, which are those of all entries, masked or not.

        An optimizer that evaluates its closure several times in a step makes it several calls.
        """

    def after_step(self, pruning: Pruning) -> None:  # noqa: B027
        """Act on the weights after ``pruning.step`` steps."""

    def final(self, pruning: Pruning) -> dict[str, Tensor]:
        """The masks of the model that is handed over, were training to end now."""
        return dict(pruning.masks.kept)


def check_range(baseline: Baseline, *, low: float = 0.0, high: float = 1.0, **numbers: float) -> None:
    """Refuse options out of range.

    Args:
        baseline: Whose options they are, for the message.
        low: Least value.
        high: They are below it.
        numbers: Options by name.

    Raises:
        ValueError: If one is outside ``[low, high)``.
    """
    for name, number in numbers.items():
        if not low <= number < high:
            raise ValueError(
                f"{type(baseline).__name__}: {name} must be at least {low:g} and below {high:g}, got {number:g}"
            )


__all__ = ["Baseline", "Loss", "Training", "check_range"]
