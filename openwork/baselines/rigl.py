"""Sparse training whose connections follow the gradient."""

from dataclasses import dataclass
from math import cos, pi

from torch import Tensor
from typing_extensions import override

from openwork.baselines.allocation import Layers
from openwork.baselines.baseline import Baseline, Loss, check_range
from openwork.baselines.masks import largest
from openwork.baselines.pruning import Pruning
from openwork.baselines.random_pruning import random_masks


@dataclass(frozen=True)
class RigL(Baseline):
    """Rigged lottery: every so often small weights give their place to those with the largest gradients.

    Step ``t`` changes the masks and no weight if it is a multiple of ``every`` and ``t < T_end``. Of each weight the
    fraction ``alpha/2 (1 + cos(pi t / T_end))`` of smallest magnitude is dropped; as many of what is not kept then, the
    dropped ones included, come back by the magnitude of their gradient, at zero and with no momentum. What is dropped
    and comes back at once stays as it was, as in the authors' code.

    Args:
        density: Fraction of the prunable weights that is kept, in (0, 1].
        layers: How it is spread over the weights: ``"erk"``, or ``"uniform"`` with a dense first layer, as in the
            paper, so that the model is denser than asked. See ``RandomPruning``.
        alpha: Fraction that is dropped at first, in [0, 1).
        every: Steps between two changes.
        end: ``T_end`` over the steps of the training, in (0, 1].

    Raises:
        ValueError: If a number is out of range.

    References:
        Evci et al., Rigging the lottery (ICML 2020), arXiv:1911.11134, algorithm 1.
    """

    density: float
    layers: Layers = "erk"
    alpha: float = 0.3
    every: int = 100
    end: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, alpha=self.alpha)
        if self.every < 1:
            raise ValueError(f"RigL: every must be at least 1 step, got {self.every}")
        if not 0 < self.end <= 1:
            raise ValueError(f"RigL: end must be above 0 and at most 1, the fraction of the training, got {self.end:g}")

    @override
    def check(self, steps: int) -> None:
        if self.every >= self.end * steps:
            raise ValueError(
                f"RigL: every={self.every} leaves no change of the masks before step T_end = {self.end * steps:g} "
                f"of {steps}; change them more often or train longer"
            )

    @override
    def begin(self, pruning: Pruning, loss: Loss, inputs: Tensor, targets: Tensor) -> None:
        pruning.keep_(random_masks(pruning.masks, self.density, self.layers, pruning.seed))

    @override
    def before_step(self, pruning: Pruning) -> None:
        step, end = pruning.step + 1, self.end * pruning.steps
        if step % self.every or step >= end:
            return
        fraction = self.alpha / 2 * (1 + cos(pi * step / end))
        kept = dict(pruning.masks.kept)
        for name, weight in pruning.masks.weights.items():
            if weight.grad is not None:
                kept[name] = _moved(weight.detach().abs(), weight.grad.abs(), kept[name], fraction)
        pruning.keep_(kept)
        pruning.skip_step_()


def _moved(magnitude: Tensor, gradient: Tensor, kept: Tensor, fraction: float) -> Tensor:
    """The mask after dropping a fraction of it and growing as many."""
    active = int(kept.sum())
    count = int(fraction * active)
    stays = largest(magnitude.masked_fill(~kept, -1.0), active - count)
    return stays | largest(gradient.masked_fill(stays, -1.0), count)


__all__ = ["RigL"]
