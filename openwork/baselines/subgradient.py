"""A penalty without its prox: what is lost."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from openwork.baselines.baseline import Baseline
from openwork.baselines.masks import choose
from openwork.baselines.pruning import Pruning
from openwork.penalties import Penalty
from openwork.structure import Support


@dataclass(frozen=True)
class Subgradient(Baseline):
    """A penalty whose subgradient is added to the gradient: small weights, and no zero among them.

    Groups are those of the papers, the entries of a weight that read one input feature. What makes zeros is cutting at
    the end: groups go by their root mean square, whole, until at most the density is left.

    Args:
        penalty: Such as ``L1(1e-4)`` or ``GroupLasso(1e-4)``; given the groups of each layer.
        density: Fraction of the prunable weights that is kept in the end, in (0, 1]; 1 keeps what training gave.

    Raises:
        TypeError: If ``penalty`` is no penalty of a single weight.
        ValueError: If ``density`` is out of range.
    """

    penalty: Penalty
    density: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.penalty, Penalty) or self.penalty.joins:
            raise TypeError(
                f"Subgradient: penalty must be a penalty of one weight such as L1(1e-4), got {self.penalty!r}"
            )

    @override
    def before_step(self, pruning: Pruning) -> None:
        for name, weight in pruning.masks.weights.items():
            if weight.grad is not None:
                point = weight.detach().requires_grad_()
                with torch.enable_grad():
                    value = self._of(pruning, name).value(point)
                weight.grad.add_(torch.autograd.grad(value, point)[0])

    def _of(self, pruning: Pruning, name: str) -> Penalty:
        return self.penalty.regroup(pruning.masks.groups[name])

    @override
    def final(self, pruning: Pruning) -> dict[str, Tensor]:
        masks = pruning.masks
        if self.density == 1:
            return dict(masks.kept)
        scores, groups = masks.magnitudes(), {}
        for name, weight in masks.weights.items():
            structure = self._of(pruning, name).structure(weight.detach())
            if isinstance(structure, Support):
                groups[name] = structure.groups
                norms = structure.groups.norm(weight.detach()) / structure.groups.size(weight.shape) ** 0.5
                scores[name] = structure.groups.spread(norms, like=weight)
        chosen = choose(scores, masks.kept, self.density, "global")
        for name, partition in groups.items():
            # The last group may have been cut in two.
            whole = ~partition.any((~chosen[name]).to(scores[name].dtype))
            chosen[name] = partition.spread(whole.to(scores[name].dtype), like=scores[name]) > 0
        return chosen


__all__ = ["Subgradient"]
