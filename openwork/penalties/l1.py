"""Lasso."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Scalar, Term, dense
from openwork.partitions import Elements, Partition
from openwork.penalties.base import GroupPenalty, Solution, check_strength, metric_quotient


def soft_threshold(x: Tensor, threshold: Scalar) -> Tensor:
    """Move every entry towards zero by ``threshold``, to exact zero if it is no larger than that."""
    return torch.sign(x) * torch.clamp_min(x.abs() - threshold, 0.0)


@dataclass(frozen=True)
class L1(GroupPenalty):
    """Sum of magnitudes, ``f(x) = lam * sum_i |x_i|``, which removes single weights.

    Args:
        lam: Strength, >= 0, against a loss averaged over samples.

    Raises:
        ValueError: If ``lam`` is negative.

    References:
        Tibshirani, Regression shrinkage and selection via the lasso (1996). Prox: Parikh & Boyd, Proximal Algorithms
        (2014), section 6.5.2.
    """

    lam: float
    groups = Elements()

    def __post_init__(self) -> None:
        check_strength(self, lam=self.lam)

    @override
    def value(self, x: Tensor) -> Tensor:
        return self.lam * x.abs().sum()

    @override
    def _prox_solution(self, x: Tensor, step: Scalar) -> Solution:
        point = soft_threshold(x, self.lam * step)
        return Solution(point, point != 0, x.new_zeros(()))

    @override
    def solve(self, b: Tensor, d: Tensor, weight: Scalar, start: Tensor | None = None) -> Solution:
        # The threshold goes before the division, since d can be tiny.
        x = metric_quotient(soft_threshold(b, weight * self.lam), d)
        return Solution(x, x != 0, x.new_zeros(()))

    @override
    def critical(self, b: Tensor, d: Tensor) -> Tensor:
        return b.abs() / self.lam

    @override
    def terms(self, weights: Sequence[Tensor]) -> list[Term] | None:
        found: list[Term] = []
        for position, weight in enumerate(weights):
            where = dense(position, weight.shape, weight.stride())
            if where is None:
                return None
            found.append(Term("entries", (where,), self.lam, 0.0, tuple(weight.shape)))
        return found

    @override
    def regroup(self, groups: Partition) -> Self:
        return self
