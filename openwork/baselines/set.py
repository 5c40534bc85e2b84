"""Sparse training whose connections evolve at random."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from openwork.baselines.allocation import Layers
from openwork.baselines.baseline import Baseline, Loss, check_range
from openwork.baselines.pruning import Pruning
from openwork.baselines.random_pruning import random_masks
from openwork.data.generators import generator


@dataclass(frozen=True)
class SET(Baseline):
    """Sparse evolutionary training: after every epoch but the last the weakest connections move to random places.

    Of each weight a fraction zeta of the smallest positive and of the largest negative entries goes, and with them what
    is zero although it is kept; as many others come back, zero at first, as in the authors' code.

    Args:
        density: Fraction of the prunable weights that is kept, in (0, 1].
        layers: How it is spread over the weights; Erdos-Renyi in the paper. See ``RandomPruning``.
        zeta: Fraction that moves, in [0, 1).

    Raises:
        ValueError: If a number is out of range.

    References:
        Mocanu et al., Scalable training of artificial neural networks with adaptive sparse connectivity (2018),
        algorithm 1.
    """

    density: float
    layers: Layers = "er"
    zeta: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, zeta=self.zeta)

    @override
    def begin(self, pruning: Pruning, loss: Loss, inputs: Tensor, targets: Tensor) -> None:
        pruning.keep_(random_masks(pruning.masks, self.density, self.layers, pruning.seed))

    @override
    def after_step(self, pruning: Pruning) -> None:
        epoch, position = divmod(pruning.step, pruning.period)
        if position or pruning.step >= pruning.steps:
            return
        before, weights = pruning.masks.kept, pruning.masks.weights
        core = {name: self._core(weight.detach(), before[name]) for name, weight in weights.items()}
        grown: dict[str, Tensor] = {}
        for name, kept in core.items():
            free = (~kept).flatten().nonzero().flatten()
            missing = int(before[name].sum()) - int(kept.sum())
            order = torch.randperm(len(free), generator=generator("SET", pruning.seed, epoch, name))
            chosen = kept.flatten().clone()
            chosen[free[order[:missing].to(free.device)]] = True
            grown[name] = chosen.view(kept.shape)
        # What is dropped is zero from now on, also where the draw brings it back at once.
        pruning.drop_({name: before[name] & ~kept for name, kept in core.items()})
        pruning.keep_(grown)

    def _core(self, weight: Tensor, kept: Tensor) -> Tensor:
        """What stays: all but a fraction of the smallest on either side of zero."""
        core = kept & (weight != 0)
        for side in (kept & (weight > 0), kept & (weight < 0)):
            places = side.flatten().nonzero().flatten()
            order = weight.flatten()[places].abs().sort(stable=True).indices
            core.view(-1)[places[order[: int(self.zeta * len(places))]]] = False
        return core


__all__ = ["SET"]
