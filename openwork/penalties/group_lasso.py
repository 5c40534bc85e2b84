"""Group lasso."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Scalar, solve_group_norm
from openwork.partitions import Partition, Slices
from openwork.penalties.base import GroupPenalty, Solution, check_strength, metric_quotient

Weight = Literal["sqrt_size", "size", "one"]


def size_weight(size: Scalar, weight: Weight, counts_as: int | None) -> Scalar:
    """Factor of a group's term: the square root of its size, as in the papers, its size, or one.

    Args:
        size: Number of entries; one number, or one for each group where these differ.
        weight: Which of the three.
        counts_as: What is taken for the size; None for what it has.

    Returns:
        One number, or one for each group.
    """
    if weight == "one":
        return 1.0
    counted = size if counts_as is None else counts_as
    return counted if weight == "size" else counted**0.5


def group_weight(groups: Partition, x: Tensor, weight: Weight, counts_as: int | None) -> Scalar:
    """The factors of the groups of a weight; see ``size_weight``."""
    return size_weight(groups.size(x.shape), weight, counts_as)


def solve_groups(b: Tensor, d: Tensor, kappa: Scalar, groups: Partition) -> Solution:
    """Minimize ``0.5 x'Dx - b'x + kappa sum_g ||x_g||``, exactly.

    Args:
        b: Any shape that the groups tile.
        d: Metric, shaped like ``b``.
        kappa: Threshold, >= 0, a number or one per group (of shape ``groups.grid(b.shape)``).
        groups: Which entries form a group.

    Returns:
        The solution, with one residual per group.
    """
    layout = groups.layout(b.shape)
    if layout.empty or (not isinstance(kappa, Tensor) and kappa == 0):
        x = metric_quotient(b, d)
        kept = groups.any(x)
        return Solution(x, kept, x.new_zeros(kept.shape))
    if isinstance(kappa, Tensor) and kappa.ndim:
        kappa = kappa.view(layout.keepdim)
    x, kept, residual = solve_group_norm(b.view(layout.shape), d.view(layout.shape), kappa, layout.members)
    x = x.reshape(b.shape)  # no view where the solution of a narrowed weight is laid out in another order
    if isinstance(kappa, Tensor):
        x = torch.where(groups.spread((kappa == 0).expand(layout.keepdim), b), metric_quotient(b, d), x)
    return Solution(x, kept.view(layout.grid), residual.view(layout.grid))


def shrink_groups(x: Tensor, threshold: Scalar, groups: Partition) -> Solution:
    """Block soft-thresholding: shorten every group's norm by ``threshold``, to exact zero if it is no longer than that.

    Args:
        x: Any shape that the groups tile.
        threshold: >= 0, a number or one per group.
        groups: Which entries form a group.

    Returns:
        The solution.

    References:
        Parikh & Boyd, Proximal Algorithms (2014), section 6.5.1.
    """
    norms = groups.norm(x)
    kept = norms > threshold
    # A zero group has norm 0, so divide only where the group survives.
    factor = torch.where(kept, 1 - threshold / torch.where(kept, norms, 1.0), 0.0)
    return Solution(x * groups.spread(factor, like=x), kept, x.new_zeros(()))


@dataclass(frozen=True)
class GroupLasso(GroupPenalty):
    """Weighted group norms, ``f(x) = lam * sum_g w_g ||x_g||``, which removes whole groups.

    Args:
        lam: Strength, >= 0, per unit of weight norm, against a loss averaged over samples.
        groups: Which entries form a group.
        weight: ``w_g`` is the square root of the group's size, as in the papers, its size, or one.
        counts_as: What is taken for the size of a group; default what it has. A group of which a part was taken out
            counts as what it was.

    Raises:
        ValueError: If ``lam`` is negative.

    References:
        Yuan & Lin, Model selection and estimation in regression with grouped variables (2006), eq. (2.1).
    """

    lam: float
    groups: Partition = Slices(1)
    weight: Weight = "sqrt_size"
    counts_as: int | None = None

    def __post_init__(self) -> None:
        check_strength(self, lam=self.lam)

    @override
    def strengths(self, size: Scalar) -> tuple[float, Scalar]:
        return 0.0, self.lam * size_weight(size, self.weight, self.counts_as)

    def _strength(self, x: Tensor) -> Scalar:
        return self.strengths(self.groups.size(x.shape))[1]

    @override
    def value(self, x: Tensor) -> Tensor:
        return (self._strength(x) * self.groups.norm(x)).sum()

    @override
    def _prox_solution(self, x: Tensor, step: Scalar) -> Solution:
        return shrink_groups(x, self._strength(x) * step, self.groups)

    @override
    def solve(self, b: Tensor, d: Tensor, weight: Scalar, start: Tensor | None = None) -> Solution:
        return solve_groups(b, d, weight * self._strength(b), self.groups)

    @override
    def critical(self, b: Tensor, d: Tensor) -> Tensor:
        return self.groups.norm(b) / self._strength(b)
