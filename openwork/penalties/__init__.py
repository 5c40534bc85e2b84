"""Penalties: value, proximal operator, and the structure they leave in a weight."""

from openwork.penalties.base import DiagonalProx, DropsGroups, GroupPenalty, Part, Penalty, Solution
from openwork.penalties.coupled import Coupled
from openwork.penalties.group_l0 import GroupL0
from openwork.penalties.group_lasso import GroupLasso
from openwork.penalties.group_mcp import GroupMCP
from openwork.penalties.group_scad import GroupSCAD
from openwork.penalties.l0 import L0
from openwork.penalties.l1 import L1
from openwork.penalties.l_half import LHalf
from openwork.penalties.nonnegative import Nonnegative
from openwork.penalties.nuclear_norm import NuclearNorm
from openwork.penalties.proximal_gradient import Descent, ProximalGradient
from openwork.penalties.sharded import KeptPlace, Sharded
from openwork.penalties.sparse_group_lasso import SparseGroupLasso
from openwork.penalties.target import Target
from openwork.penalties.zero import Zero

__all__ = [
    "L0",
    "L1",
    "Coupled",
    "Descent",
    "DiagonalProx",
    "DropsGroups",
    "GroupL0",
    "GroupLasso",
    "GroupMCP",
    "GroupPenalty",
    "GroupSCAD",
    "KeptPlace",
    "LHalf",
    "Nonnegative",
    "NuclearNorm",
    "Part",
    "Penalty",
    "ProximalGradient",
    "Sharded",
    "Solution",
    "SparseGroupLasso",
    "Target",
    "Zero",
]
