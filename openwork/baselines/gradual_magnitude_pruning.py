"""Pruning by magnitude a little at a time."""

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from openwork.baselines.baseline import Baseline, Loss, check_range
from openwork.baselines.masks import Scope
from openwork.baselines.pruning import Pruning


@dataclass(frozen=True)
class GradualMagnitudePruning(Baseline):
    """Gradual magnitude pruning: the smallest weights go while training, fast at first, then ever more slowly.

    The sparsity after step ``t = t_0 + j every`` is ``s_f + (s_i - s_f) (1 - (t - t_0) / (n every))^3``, j = 0 to n.

    Args:
        density: Fraction of the prunable weights that is kept in the end, ``1 - s_f``, in (0, 1].
        scope: Whether the largest of all are kept, or of each weight the same fraction, as in the paper.
        begin_at: Fraction of the training before ``t_0``, in [0, 1).
        end_at: Fraction of the training before the last pruning, in (begin_at, 1]; the rest is for recovery.
        every: Steps between two prunings.
        initial_sparsity: ``s_i``, in [0, 1 - density].

    Raises:
        ValueError: If a number is out of range.

    References:
        Zhu & Gupta, To prune, or not to prune (2017), arXiv:1710.01878, eq. (1). What was pruned stays pruned here.
    """

    density: float
    scope: Scope = "layerwise"
    begin_at: float = 0.2
    end_at: float = 0.75
    every: int = 100
    initial_sparsity: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, begin_at=self.begin_at)
        if not self.begin_at < self.end_at <= 1:
            raise ValueError(
                f"GradualMagnitudePruning: end_at must be above begin_at={self.begin_at:g} and at most 1, "
                f"got {self.end_at:g}"
            )
        if self.every < 1:
            raise ValueError(f"GradualMagnitudePruning: every must be at least 1 step, got {self.every}")
        if not 0 <= self.initial_sparsity <= 1 - self.density:
            raise ValueError(
                f"GradualMagnitudePruning: initial_sparsity must be from 0 to 1 - density = {1 - self.density:g}, "
                f"got {self.initial_sparsity:g}"
            )

    def _times(self, steps: int) -> tuple[int, int]:
        """The first step after which weights are pruned, and how often they are after that."""
        first = round(self.begin_at * steps)
        return first, (round(self.end_at * steps) - first) // self.every

    @override
    def check(self, steps: int) -> None:
        first, times = self._times(steps)
        if times == 0:
            raise ValueError(
                f"GradualMagnitudePruning: every={self.every} is more than the {round(self.end_at * steps) - first} "
                f"steps from begin_at to end_at of {steps}; prune more often or train longer"
            )

    @override
    def begin(self, pruning: Pruning, loss: Loss, inputs: Tensor, targets: Tensor) -> None:
        self.after_step(pruning)

    @override
    def after_step(self, pruning: Pruning) -> None:
        first, times = self._times(pruning.steps)
        number, between = divmod(pruning.step - first, self.every)
        if between == 0 and 0 <= number <= times:
            self._prune(pruning, number / times)

    def _prune(self, pruning: Pruning, done: float) -> None:
        density = self.density + (1 - self.initial_sparsity - self.density) * (1 - done) ** 3
        if density < 1:
            pruning.keep_(pruning.masks.by_magnitude(density, self.scope))

    @override
    def final(self, pruning: Pruning) -> dict[str, Tensor]:
        return pruning.masks.by_magnitude(self.density, self.scope)


__all__ = ["GradualMagnitudePruning"]
