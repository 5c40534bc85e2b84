"""Pruning at initialization by how much the loss feels each weight."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from openwork.baselines.baseline import Baseline, Loss
from openwork.baselines.masks import choose
from openwork.baselines.pruning import Pruning
from openwork.forward_pass import evaluating


@dataclass(frozen=True)
class SNIP(Baseline):
    """Single-shot network pruning: keep the weights with the largest ``|w dL/dw|`` of one batch, then train them.

    The model is in evaluation mode for that batch, as in the authors' code. At a small density whole layers can go
    (Tanaka et al. 2020); ``Pruning.keep_`` warns of it.

    Args:
        density: Fraction of the prunable weights that is kept, in (0, 1].

    Raises:
        ValueError: If ``density`` is out of range.

    References:
        Lee et al., SNIP (ICLR 2019), arXiv:1810.02340, algorithm 1, eq. (4) and (5).
    """

    density: float

    @override
    def begin(self, pruning: Pruning, loss: Loss, inputs: Tensor, targets: Tensor) -> None:
        weights = pruning.masks.weights
        with evaluating(pruning.model), torch.enable_grad():
            value = loss(pruning.model(inputs), targets)
            grads = torch.autograd.grad(value, list(weights.values()), allow_unused=True, materialize_grads=True)
        scores = {
            name: (weight.detach() * grad).abs() for (name, weight), grad in zip(weights.items(), grads, strict=True)
        }
        total = sum(float(score.double().sum()) for score in scores.values())
        if total == 0:
            raise ValueError(
                "SNIP: the loss feels no weight at initialization (all w dL/dw are zero), so none can be chosen; "
                "start from random weights"
            )
        scores = {name: score.double() / total for name, score in scores.items()}
        pruning.keep_(choose(scores, pruning.masks.kept, self.density, "global"))


__all__ = ["SNIP"]
