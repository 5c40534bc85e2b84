"""Sparse group lasso."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Scalar
from openwork.partitions import Partition, Slices
from openwork.penalties.base import GroupPenalty, Solution, check_strength
from openwork.penalties.group_lasso import Weight, shrink_groups, size_weight, solve_groups
from openwork.penalties.l1 import soft_threshold

# Steps to the weight at which a group vanishes; Newton on a convex, piecewise smooth function rarely needs ten.
MAX_ITERATIONS = 50


@dataclass(frozen=True)
class SparseGroupLasso(GroupPenalty):
    """Lasso and group lasso, ``f(x) = lam * (alpha * ||x||_1 + (1 - alpha) * sum_g w_g ||x_g||)``.

    It removes whole groups, and single weights in those that stay.

    Args:
        lam: Strength, >= 0, against a loss averaged over samples.
        alpha: Share of the lasso, in [0, 1].
        groups: Which entries form a group.
        weight: ``w_g`` is the square root of the group's size, its size, or one.
        counts_as: What is taken for the size of a group; default what it has.

    Raises:
        ValueError: If ``lam`` is negative, or ``alpha`` outside [0, 1].

    References:
        Simon, Friedman, Hastie & Tibshirani, A sparse-group lasso (2013), eq. (3).
    """

    lam: float
    alpha: float = 0.5
    groups: Partition = Slices(1)
    weight: Weight = "sqrt_size"
    counts_as: int | None = None

    def __post_init__(self) -> None:
        check_strength(self, lam=self.lam)
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"SparseGroupLasso: alpha must lie in [0, 1], got {self.alpha}")

    @override
    def strengths(self, size: Scalar) -> tuple[float, Scalar]:
        return self.lam * self.alpha, self.lam * (1 - self.alpha) * size_weight(size, self.weight, self.counts_as)

    def _strengths(self, x: Tensor) -> tuple[float, Scalar]:
        return self.strengths(self.groups.size(x.shape))

    def _soften(self, x: Tensor, threshold: Scalar) -> Tensor:
        if isinstance(threshold, Tensor) and threshold.ndim:
            threshold = self.groups.spread(threshold, like=x)
        return soft_threshold(x, threshold)

    @override
    def value(self, x: Tensor) -> Tensor:
        single, group = self._strengths(x)
        return (single * self.groups.sum(x.abs()) + group * self.groups.norm(x)).sum()

    @override
    def _prox_solution(self, x: Tensor, step: Scalar) -> Solution:
        single, group = self._strengths(x)
        return shrink_groups(self._soften(x, step * single), step * group, self.groups)

    @override
    def solve(self, b: Tensor, d: Tensor, weight: Scalar, start: Tensor | None = None) -> Solution:
        # Entries that stay keep the sign of b, so the lasso only moves b; this holds for every diagonal metric.
        single, group = self._strengths(b)
        return solve_groups(self._soften(b, weight * single), d, weight * group, self.groups)

    @override
    def critical(self, b: Tensor, d: Tensor) -> Tensor:
        # The root t of ||soft(b, t single)|| = t group. The left side less the right is convex and falls, so Newton's
        # method rises from 0 to the root.
        single, group = self._strengths(b)
        root = torch.zeros_like(self.groups.norm(b))
        if self.groups.layout(b.shape).empty:
            return root
        for _ in range(MAX_ITERATIONS):
            rest = soft_threshold(b, self.groups.spread(root, like=b) * single)
            norm = self.groups.norm(rest)
            slope = single * self.groups.sum(rest.abs() / self.groups.spread(norm, like=b)) + group
            following = root + (norm - root * group) / slope
            root = torch.where(following > root, following, root)
        return root
