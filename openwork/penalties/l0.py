"""Number of weights."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Scalar
from openwork.partitions import Elements, Partition
from openwork.penalties.base import GroupPenalty, Solution, check_strength, metric_quotient


@dataclass(frozen=True)
class L0(GroupPenalty):
    """Number of weights that are not zero, ``f(x) = lam * #{i: x_i != 0}``. Not convex; survivors are not shrunk.

    Args:
        lam: Strength, >= 0, the loss that one weight must save to stay.

    Raises:
        ValueError: If ``lam`` is negative.

    References:
        Blumensath & Davies, Iterative thresholding for sparse approximations (2008), eq. (2.2). Diagonal metric: Yun,
        Lozano & Yang (NeurIPS 2021), arXiv:2007.07484, section 4.
    """

    lam: float
    groups = Elements()

    def __post_init__(self) -> None:
        check_strength(self, lam=self.lam)

    @property
    @override
    def convex(self) -> bool:
        return False

    @override
    def value(self, x: Tensor) -> Tensor:
        return self.lam * torch.count_nonzero(x).to(x.dtype)

    @override
    def solve(self, b: Tensor, d: Tensor, weight: Scalar, start: Tensor | None = None) -> Solution:
        # |b| > sqrt(2 d weight lam), without products that leave the range of the number format.
        kept = metric_quotient(b.abs(), d.sqrt()) > (2 * weight * self.lam) ** 0.5
        return Solution(torch.where(kept, metric_quotient(b, d), 0.0), kept, b.new_zeros(()))

    @override
    def critical(self, b: Tensor, d: Tensor) -> Tensor:
        return metric_quotient(b.abs(), d.sqrt()).square() / (2 * self.lam)

    @override
    def regroup(self, groups: Partition) -> Self:
        return self
