"""Number of groups."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Scalar
from openwork.partitions import Partition, Slices
from openwork.penalties.base import GroupPenalty, Solution, check_strength, metric_quotient
from openwork.penalties.group_lasso import Weight, group_weight


@dataclass(frozen=True)
class GroupL0(GroupPenalty):
    """Weighted number of groups that are not zero, ``f(x) = lam * sum_g w_g [x_g != 0]``.

    Not convex; survivors are not shrunk.

    Args:
        lam: Strength, >= 0: ``lam * w_g`` is the loss that a group must save to stay.
        groups: Which entries form a group.
        weight: ``w_g`` is the group's size, so that ``lam`` is per weight as for ``L0``, its square root, or one.
        counts_as: What is taken for the size of a group; default what it has.

    Raises:
        ValueError: If ``lam`` is negative.
    """

    lam: float
    groups: Partition = Slices(1)
    weight: Weight = "size"
    counts_as: int | None = None

    def __post_init__(self) -> None:
        check_strength(self, lam=self.lam)

    def _strength(self, x: Tensor) -> float:
        return self.lam * group_weight(self.groups.size(x.shape), self.weight, self.counts_as)

    @property
    @override
    def convex(self) -> bool:
        return False

    @override
    def value(self, x: Tensor) -> Tensor:
        return self._strength(x) * self.groups.any(x).sum().to(x.dtype)

    @override
    def solve(self, b: Tensor, d: Tensor, weight: Scalar, start: Tensor | None = None) -> Solution:
        # Dropping a group costs sum b^2 / (2 d), keeping it weight * lam * w_g.
        kept = self.groups.norm(metric_quotient(b, d.sqrt())) > (2 * weight * self._strength(b)) ** 0.5
        x = torch.where(self.groups.spread(kept, like=b), metric_quotient(b, d), 0.0)
        return Solution(x, kept, b.new_zeros(()))

    @override
    def critical(self, b: Tensor, d: Tensor) -> Tensor:
        return self.groups.norm(metric_quotient(b, d.sqrt())).square() / (2 * self._strength(b))
