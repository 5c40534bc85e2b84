"""Submodels inside each other: the first entries are kept."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from openwork.sketches.key import Key
from openwork.sketches.probabilities import check_probabilities, pick
from openwork.sketches.rand_k import part
from openwork.sketches.sketch import Diagonal, DiagonalSketch


@final
@dataclass(frozen=True)
class Nested(DiagonalSketch):
    """The first ``ceil(r d)`` of d entries for a random keep-ratio r; entry j, kept with ``p_j``, counts ``1 / p_j``.

    Args:
        ratios: Keep-ratios in (0, 1], of which the largest must be 1: the last entries are kept by no other.
        weights: Their probabilities; equal ones if left out.

    Raises:
        ValueError: If a ratio is out of range, none is 1, or the probabilities are none.

    References:
        Horvath et al., FjORD (NeurIPS 2021), arXiv:2102.13451.
    """

    ratios: tuple[float, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        wrong = [ratio for ratio in self.ratios if not 0 < ratio <= 1]
        if wrong:
            raise ValueError(f"Nested: ratios must be in (0, 1], got {wrong[0]}")
        if max(self.ratios, default=0.0) != 1:
            raise ValueError(
                f"Nested: the largest ratio must be 1, got {self.ratios}; else the last entries are never trained"
            )
        check_probabilities("Nested", "weights", self.probabilities, len(self.ratios))

    @property
    def probabilities(self) -> tuple[float, ...]:
        """Of the ratios."""
        return (1 / len(self.ratios),) * len(self.ratios) if self.weights is None else self.weights

    @override
    def sample(self, key: Key, size: int, device: torch.device | str | None = None) -> Diagonal:
        ratio = self.ratios[pick(key, torch.tensor(self.probabilities, dtype=torch.float64))]
        kept = torch.arange(size, device=device) < part(ratio, size)
        return Diagonal(torch.where(kept, (1 / self.inclusion(size)).to(kept.device), 0.0))

    @override
    def inclusion(self, size: int) -> Tensor:
        at = torch.arange(size)
        p = torch.zeros(size, dtype=torch.float64)
        for ratio, weight in zip(self.ratios, self.probabilities, strict=True):
            p += weight * (at < part(ratio, size))
        # The first entries are always kept: 1, whatever the rounding of the sum.
        return p.clamp(max=1.0).masked_fill(at < min(part(ratio, size) for ratio in self.ratios), 1.0)

    @override
    def pair_matrix(self, size: int) -> Tensor:
        p = self.inclusion(size)
        return torch.minimum(p[:, None], p)


__all__ = ["Nested"]
