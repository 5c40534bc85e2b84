"""The sketch that is none."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from openwork.sketches.key import Key
from openwork.sketches.sketch import DiagonalSketch, Whole


@final
@dataclass(frozen=True)
class Identity(DiagonalSketch):
    """``S = I``: training is ordinary training, to the bit."""

    @override
    def sample(self, key: Key, size: int, device: torch.device | str | None = None) -> Whole:
        return Whole()

    @override
    def fixed_count(self, size: int) -> int:
        return size

    @override
    def inclusion(self, size: int) -> Tensor:
        return torch.ones(size, dtype=torch.float64)

    @override
    def pair_matrix(self, size: int) -> Tensor:
        return torch.ones(size, size, dtype=torch.float64)


__all__ = ["Identity"]
