"""Penalties: value, proximal operator, and the structure they leave in a weight."""

from openwork.penalties.base import DiagonalProx, GroupPenalty, Penalty, Solution
from openwork.penalties.group_lasso import GroupLasso
from openwork.penalties.l1 import L1
from openwork.penalties.zero import Zero

__all__ = ["L1", "DiagonalProx", "GroupLasso", "GroupPenalty", "Penalty", "Solution", "Zero"]
