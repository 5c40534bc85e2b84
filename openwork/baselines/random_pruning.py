"""Random masks at initialization."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from openwork.baselines.allocation import Layers, counts
from openwork.baselines.baseline import Baseline, Loss
from openwork.baselines.masks import Masks
from openwork.baselines.pruning import Pruning
from openwork.data.generators import generator


def random_masks(masks: Masks, density: float, layers: Layers, seed: int) -> dict[str, Tensor]:
    """Random masks with a given number of entries of each weight.

    Args:
        masks: The weights.
        density: Fraction of all entries, in (0, 1].
        layers: How it is spread over the weights, see ``layer_densities``.
        seed: Of the draw.

    Returns:
        One boolean tensor for each weight.
    """
    kept: dict[str, Tensor] = {}
    for name, count in counts(masks.weights, density, layers).items():
        weight = masks.weights[name]
        order = torch.randperm(weight.numel(), generator=generator("random masks", seed, name))
        kept[name] = (order < count).view(weight.shape).to(weight.device)
    return kept


@dataclass(frozen=True)
class RandomPruning(Baseline):
    """Random pruning at initialization: what is kept is drawn, then trained.

    Args:
        density: Fraction of the prunable weights that is kept, in (0, 1].
        layers: How it is spread: the same fraction of each weight (equal), that but for a dense first layer (uniform),
            or more of small layers (er, erk).

    Raises:
        ValueError: If ``density`` is out of range.

    References:
        Liu et al., The unreasonable effectiveness of random pruning (ICLR 2022), arXiv:2202.02643.
    """

    density: float
    layers: Layers = "equal"

    @override
    def begin(self, pruning: Pruning, loss: Loss, inputs: Tensor, targets: Tensor) -> None:
        pruning.keep_(random_masks(pruning.masks, self.density, self.layers, pruning.seed))


__all__ = ["RandomPruning", "random_masks"]
