"""Training, pruning once by magnitude, and perhaps training on."""

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from openwork.baselines.baseline import Baseline, Training, check_range
from openwork.baselines.masks import Scope
from openwork.baselines.pruning import Pruning


@dataclass(frozen=True)
class MagnitudePruning(Baseline):
    """One-shot magnitude pruning: train, keep the largest weights, and fine-tune them if asked.

    Args:
        density: Fraction of the prunable weights that is kept, in (0, 1].
        scope: Whether the largest of all are kept, or of each weight the same fraction.
        finetune: Fraction of the training that follows the pruning, in [0, 1).
        finetune_rate: Learning rate of that over the one before, > 0; its schedule begins anew.

    Raises:
        ValueError: If a number is out of range.

    References:
        Han et al., Learning both weights and connections (NeurIPS 2015), section 3, with one prune and retrain cycle.
    """

    density: float
    scope: Scope = "global"
    finetune: float = 0.0
    finetune_rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, finetune=self.finetune)
        if not self.finetune_rate > 0:
            raise ValueError(f"MagnitudePruning: finetune_rate must be above 0, got {self.finetune_rate:g}")

    def _pruned_after(self, steps: int) -> int:
        return steps - round(self.finetune * steps)

    @override
    def check(self, steps: int) -> None:
        if self._pruned_after(steps) == 0:
            raise ValueError(
                f"MagnitudePruning: finetune={self.finetune:g} leaves none of {steps} steps to train before pruning; "
                "take a smaller fraction or train longer"
            )

    @override
    def trainings(self, steps: int) -> list[Training]:
        pruned = self._pruned_after(steps)
        tuning = [Training(pruned, steps, rate=self.finetune_rate)] if pruned < steps else []
        return [Training(0, pruned), *tuning]

    @override
    def after_step(self, pruning: Pruning) -> None:
        if pruning.step == self._pruned_after(pruning.steps):
            pruning.keep_(self.final(pruning))

    @override
    def final(self, pruning: Pruning) -> dict[str, Tensor]:
        return pruning.masks.by_magnitude(self.density, self.scope)


__all__ = ["MagnitudePruning"]
