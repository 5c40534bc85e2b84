"""Group SCAD."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Scalar
from openwork.penalties.folded_concave import FoldedConcave, Piece


@dataclass(frozen=True)
class GroupSCAD(FoldedConcave):
    """Smoothly clipped absolute deviation of group norms: group lasso for small groups, no shrinkage for large ones.

    ``f(x) = sum_g p(||x_g||)`` with ``p(r) = l r`` up to ``r = l``, ``l r - (r - l)^2 / (2 (gamma - 1))`` up to
    ``r = gamma l``, ``(gamma + 1) l^2 / 2`` beyond, and ``l = lam * w_g``. With ``groups=Elements()`` it is the SCAD of
    single weights.

    The global minimum of every subproblem is found, but where ``(gamma - 1) * min(d) <= weight`` it is not convex and
    jumps. With dual averaging (RMDA, RAMDA) that happens sooner or later, and their theory does not cover it: prefer
    ProxSGD or ProxAdamW.

    Args:
        lam: Strength, >= 0, against a loss averaged over samples.
        gamma: Norm, in units of ``lam * w_g``, from which on a group is not shrunk, > 2.
        groups: Which entries form a group.
        weight: ``w_g`` is the square root of the group's size, its size, or one.
        counts_as: What is taken for the size of a group; default what it has.

    Raises:
        ValueError: If ``lam`` is negative or ``gamma`` at most 2.

    References:
        Fan & Li, Variable selection via nonconcave penalized likelihood (2001), eq. (2.7), where ``gamma`` is a;
        groups: Huang, Breheny & Ma, A selective review of group selection in high-dimensional models (2012), section
        2.3.
    """

    gamma: float = 3.7

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.gamma > 2:
            raise ValueError(f"GroupSCAD: gamma must be > 2, got {self.gamma}")

    @override
    def _height(self, r: Tensor, lam: Scalar) -> Tensor:
        r = torch.minimum(r, r.new_ones(()) * (self.gamma * lam))
        curved = (r - lam).clamp_min(0.0)
        return lam * r - curved.square() / (2 * (self.gamma - 1))

    @override
    def _slope(self, r: Tensor, lam: Scalar) -> Tensor:
        return torch.minimum((self.gamma * lam - r) / (self.gamma - 1), r.new_ones(()) * lam).clamp_min(0.0)

    @override
    def _pieces(self, lam: Tensor) -> list[Piece]:
        curvature = 1 / (self.gamma - 1)
        return [
            Piece(lam, 0.0, torch.zeros_like(lam), lam),
            Piece(self.gamma * curvature * lam, curvature, lam, self.gamma * lam),
        ]
