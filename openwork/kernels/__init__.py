"""The hot loops: one plain-torch definition each."""

from openwork.kernels.group_norm import GroupNormSolution, Scalar, solve_group_norm

__all__ = ["GroupNormSolution", "Scalar", "solve_group_norm"]
