"""Penalties of group norms that stop growing, so that large groups are not shrunk."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Scalar, first_crossing
from openwork.partitions import Partition, Slices
from openwork.penalties.base import GroupPenalty, Solution, check_strength, metric_quotient
from openwork.penalties.group_lasso import Weight, group_weight
from openwork.reductions import group_max, group_sum

#: What happened to a group, as ``branches`` reports it.
DROPPED, SHRUNK, UNTOUCHED = 0, 1, 2


class Piece(NamedTuple):
    """A stretch of radii on which the slope is linear, ``p'(r) = level - curvature * r``."""

    level: Tensor
    curvature: float
    start: Tensor
    stop: Tensor


class _Minimum(NamedTuple):
    x: Tensor
    branch: Tensor
    residual: Tensor


@dataclass(frozen=True)
class FoldedConcave(GroupPenalty):
    """``f(x) = sum_g p(||x_g||)``, where ``p`` has slope ``lam * w_g`` at 0 and none from ``gamma * lam * w_g`` on.

    The subproblem of a group need not be convex, yet its global minimum is found: on every stretch of radii the secular
    equation has at most one root that is a minimum, its first, and Newton's method rises to it or shows that there is
    none. What is left is to compare with 0 or with the unshrunk point ``b / d``.

    It is convex while ``weight`` times the largest curvature of ``p`` is less than every entry of ``d``. Adaptive
    metrics are small, and with dual averaging (RMDA, RAMDA) ``weight`` grows without bound, so that there the
    subproblem always becomes nonconvex and its solution then jumps, in the limit like that of ``GroupL0``, which the
    theory of these methods does not cover. Prefer ProxSGD or ProxAdamW.

    Args:
        lam: Strength, >= 0, against a loss averaged over samples.
        gamma: Norm, in units of ``lam * w_g``, from which on a group is not shrunk.
        groups: Which entries form a group.
        weight: ``w_g`` is the square root of the group's size, its size, or one.
    """

    lam: float
    gamma: float = 3.0
    groups: Partition = Slices(1)
    weight: Weight = "sqrt_size"
    counts_as: int | None = None

    def __post_init__(self) -> None:
        check_strength(self, lam=self.lam)

    @property
    @override
    def convex(self) -> bool:
        return False

    @abstractmethod
    def _height(self, r: Tensor, lam: Scalar) -> Tensor:
        """``p(r)``."""

    @abstractmethod
    def _slope(self, r: Tensor, lam: Scalar) -> Tensor:
        """``p'(r)``."""

    @abstractmethod
    def _pieces(self, lam: Tensor) -> list[Piece]:
        """The stretches of ``[0, gamma lam]`` in order."""

    def _strength(self, x: Tensor) -> float:
        return self.lam * group_weight(self.groups.size(x.shape), self.weight, self.counts_as)

    @override
    def value(self, x: Tensor) -> Tensor:
        return self._height(self.groups.norm(x), self._strength(x)).sum()

    @override
    def solve(self, b: Tensor, d: Tensor, weight: Scalar, start: Tensor | None = None) -> Solution:
        x, branch, residual = self._minimize(b, d, weight)
        return Solution(x, branch != DROPPED, residual)

    def branches(self, b: Tensor, d: Tensor, weight: Scalar) -> Tensor:
        """Which kind of minimum each group has.

        Args:
            b: As in ``solve``.
            d: As in ``solve``.
            weight: As in ``solve``.

        Returns:
            One integer per group: 0 dropped, 1 shrunk, 2 left at ``b / d``.
        """
        return self._minimize(b, d, weight).branch

    def _minimize(self, b: Tensor, d: Tensor, weight: Scalar) -> _Minimum:
        layout = self.groups.layout(b.shape)
        members, like = layout.members, b
        if b.numel() == 0:
            return _Minimum(b, b.new_zeros(layout.grid, dtype=torch.long), b.new_zeros(layout.grid))
        b, d = b.view(layout.shape), d.view(layout.shape)
        # Squares of b and ratios of d must not leave the range of the number format; x is in units of scale / top.
        tiny = torch.finfo(b.dtype).tiny
        scale = group_max(b.abs(), members).clamp_min(tiny)
        top = group_max(d, members).clamp_min(tiny)
        b, d = b / scale, d / top
        lam = self._strength(like) * (top / scale)
        weight = (weight.view(layout.keepdim) if isinstance(weight, Tensor) and weight.ndim else weight) / top

        def total(x: Tensor) -> Tensor:
            return group_sum(x, members)

        r, found = torch.zeros_like(lam), torch.zeros_like(lam, dtype=torch.bool)
        for level, curvature, left, right in self._pieces(lam):
            crossing = first_crossing(b, d - weight * curvature, weight * level, left, right, members)
            r = torch.where(crossing.found & ~found, crossing.r, r)
            found = found | crossing.found
        slope = weight * self._slope(r, lam)
        shrunk = torch.where(found, b * (r / torch.addcmul(slope, r, d).clamp_min(tiny)), 0.0)
        free = metric_quotient(b, d)

        cost_shrunk = torch.where(found, total((0.5 * d * shrunk - b) * shrunk) + weight * self._height(r, lam), 0.0)
        cost_free = weight * self._height(self.gamma * lam, lam) - 0.5 * total(b * free)
        far = total(free.square()).sqrt() >= self.gamma * lam
        untouched = (far & (cost_free < cost_shrunk)) | (weight * lam == 0)

        norm = total(shrunk.square()).sqrt()
        residual = (weight * self._slope(norm, lam) - slope * norm / torch.where(found, r, 1.0)).abs() * scale
        residual = torch.where(found & ~untouched, residual, 0.0)
        x = torch.where(untouched, free, shrunk) * (scale / top)
        branch = torch.where(untouched & (total(b.abs()) > 0), UNTOUCHED, torch.where(found, SHRUNK, DROPPED))
        return _Minimum(x.reshape(like.shape), branch.view(layout.grid), residual.view(layout.grid))

    @override
    def critical(self, b: Tensor, d: Tensor) -> Tensor:
        lam = self._strength(b)
        unshrunk = self.groups.norm(metric_quotient(b, d)) >= self.gamma * lam
        # Below the first, 0 is no local minimum; below the second, the unshrunk point is better.
        gain = self.groups.norm(metric_quotient(b, d.sqrt())).square() / 2
        height = self._height(gain.new_tensor(self.gamma * lam), lam)
        return torch.maximum(self.groups.norm(b) / lam, torch.where(unshrunk, gain / height, 0.0))
