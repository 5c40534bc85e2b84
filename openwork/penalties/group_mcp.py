"""Group MCP."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Scalar
from openwork.penalties.folded_concave import FoldedConcave, Piece


@dataclass(frozen=True)
class GroupMCP(FoldedConcave):
    """Minimax concave penalty of group norms, which removes whole groups and does not shrink large ones.

    ``f(x) = sum_g p(||x_g||)`` with ``p(r) = l r - r^2 / (2 gamma)`` up to ``r = gamma l``, ``gamma l^2 / 2`` beyond,
    and ``l = lam * w_g``. With ``groups=Elements()`` it is the MCP of single weights.

    The global minimum of every subproblem is found, but where ``gamma * min(d) <= weight`` it is not convex and jumps.
    With dual averaging (RMDA, RAMDA) that happens sooner or later, and their theory does not cover it: prefer ProxSGD
    or ProxAdamW.

    Args:
        lam: Strength, >= 0, against a loss averaged over samples.
        gamma: Norm, in units of ``lam * w_g``, from which on a group is not shrunk, > 0; large is like ``GroupLasso``,
            small like ``GroupL0``.
        groups: Which entries form a group.
        weight: ``w_g`` is the square root of the group's size, its size, or one.
        counts_as: What is taken for the size of a group; default what it has.

    Raises:
        ValueError: If ``lam`` is negative or ``gamma`` not positive.

    References:
        Zhang, Nearly unbiased variable selection under minimax concave penalty (2010), eq. (2.1); groups: Huang,
        Breheny & Ma, A selective review of group selection in high-dimensional models (2012), section 2.3.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.gamma > 0:
            raise ValueError(f"GroupMCP: gamma must be > 0, got {self.gamma}")

    @override
    def _height(self, r: Tensor, lam: Scalar) -> Tensor:
        r = torch.minimum(r, r.new_ones(()) * (self.gamma * lam))
        return r * (lam - r / (2 * self.gamma))

    @override
    def _slope(self, r: Tensor, lam: Scalar) -> Tensor:
        return (lam - r / self.gamma).clamp_min(0.0)

    @override
    def _pieces(self, lam: Tensor) -> list[Piece]:
        return [Piece(lam, 1 / self.gamma, torch.zeros_like(lam), self.gamma * lam)]
