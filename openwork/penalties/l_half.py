"""Sum of square roots of magnitudes."""

from dataclasses import dataclass
from math import pi
from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Scalar
from openwork.partitions import Elements, Partition
from openwork.penalties.base import GroupPenalty, Solution, check_strength, metric_quotient

# Entries up to this times (2 weight lam / d)^(2/3) are dropped.
THRESHOLD = 54 ** (1 / 3) / 4


@dataclass(frozen=True)
class LHalf(GroupPenalty):
    """Sum of square roots of magnitudes, ``f(x) = lam * sum_i |x_i|^(1/2)``: between ``L0`` and ``L1``. Not convex.

    Args:
        lam: Strength, >= 0, against a loss averaged over samples.

    Raises:
        ValueError: If ``lam`` is negative.

    References:
        Xu, Chang, Xu & Zhang, L1/2 regularization: a thresholding representation theory (2012), theorem 2. Diagonal
        metric: Yun, Lozano & Yang (NeurIPS 2021), arXiv:2007.07484, section 4.
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
        return self.lam * x.abs().sqrt().sum()

    @override
    def solve(self, b: Tensor, d: Tensor, weight: Scalar, start: Tensor | None = None) -> Solution:
        z = metric_quotient(b, d)
        strength = 2 * weight * self.lam / torch.where(d > 0, d, 1.0)
        kept = z.abs() > THRESHOLD * strength ** (2 / 3)
        cosine = strength / 8 * (torch.where(kept, z.abs(), 1.0) / 3) ** -1.5
        angle = torch.arccos(torch.where(kept, cosine.clamp_max(1.0), 0.0))
        x = 2 / 3 * z * (1 + torch.cos(2 * (pi - angle) / 3))
        return Solution(torch.where(kept, x, 0.0), kept, b.new_zeros(()))

    @override
    def critical(self, b: Tensor, d: Tensor) -> Tensor:
        return d / (2 * self.lam) * (metric_quotient(b.abs(), d) / THRESHOLD) ** 1.5

    @override
    def regroup(self, groups: Partition) -> Self:
        return self
