"""How the learning rate changes over a training."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from openwork.factorizations.budget import learning_rates

Kind = Literal["stages", "cosine"]


@dataclass(frozen=True)
class Schedule:
    """The learning rate over the epochs of a training, a refit excepted.

    Args:
        kind: ``"stages"`` multiplies it at milestones; ``"cosine"`` lets it grow linearly, then fall to 0 along half a
            cosine, step by step.
        epochs: Of the training, >= 1.
        milestones: Epochs after which a new stage begins, increasing.
        gamma: Factor at a milestone, in (0, 1].
        warmup: Epochs in which it grows, >= 0.

    Raises:
        ValueError: If a number is out of range, or belongs to the other kind.
    """

    kind: Kind
    epochs: int
    milestones: Sequence[int] = ()
    gamma: float = 0.1
    warmup: int = 0

    def __post_init__(self) -> None:
        milestones, epochs = list(self.milestones), self.epochs
        if self.kind not in ("stages", "cosine"):
            raise ValueError(f"supervised: schedule must be 'stages' or 'cosine', got {self.kind!r}")
        if epochs < 1:
            raise ValueError(f"supervised: epochs must be a positive integer, got {epochs}")
        if not 0 < self.gamma <= 1:
            raise ValueError(f"supervised: gamma must be above 0 and at most 1, got {self.gamma}")
        if any(b <= a for a, b in pairwise((0, *milestones))):
            raise ValueError(f"supervised: milestones must be positive and increase, got {milestones}")
        if any(m >= epochs for m in milestones):
            raise ValueError(f"supervised: milestones must come before the end at {epochs} epochs, got {milestones}")
        if self.kind == "cosine" and milestones:
            raise ValueError(
                f"supervised: schedule='cosine' has no stages, got milestones {milestones}; leave them out, or take "
                "schedule='stages'"
            )
        if self.kind == "stages" and self.warmup:
            raise ValueError(f"supervised: warmup={self.warmup} needs schedule='cosine', got schedule='stages'")
        if not 0 <= self.warmup <= epochs:
            raise ValueError(f"supervised: warmup must be from 0 to {epochs} epochs, got {self.warmup}")

    def factor(self, period: int) -> Callable[[int], float]:
        """The factor of the learning rate at step 0, 1, ..., in [0, 1].

        Args:
            period: Steps of an epoch, >= 1.

        Returns:
            A function of the number of the step.
        """
        if self.kind == "cosine":
            return learning_rates("cosine", self.epochs * period, self.warmup * period)
        ends = [epoch * period for epoch in self.milestones]
        return lambda step: self.gamma ** bisect_right(ends, step)


__all__ = ["Kind", "Schedule"]
