"""Activations made of straight pieces, solved exactly."""

from math import inf

import torch
from torch import Tensor
from typing_extensions import override

from openwork.altmin.elementwise import Activation
from openwork.kernels import Scalar


class ReLU(Activation):
    """``h(z) = max(z, 0)``."""

    @property
    @override
    def homogeneous(self) -> bool:
        return True

    @override
    def forward(self, z: Tensor) -> Tensor:
        return z.clamp(min=0)

    @override
    def solve(self, c: Tensor, d: Tensor, r: Scalar, k: Scalar, z: Tensor) -> Tensor:
        # The minimizers of the two pieces are max(0, m) with m the weighted mean of c and d, and min(0, c). For c > 0
        # the first wins; for c <= 0 it wins if its cost r k (c - d)^2 / (r + k) is below k d^2, where d > 0: a root.
        fraction = r / (r + k)
        root = fraction**0.5
        step = c - d
        mean = (step * fraction).add_(d)
        test = torch.where(c > 0, mean, step.mul_(root).add_(d))
        return torch.where(test > 0, mean, c.clamp(max=0))

    @override
    def interval(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(low > 0, low, -inf), high.clamp(min=0)
