"""The hot loops: one plain-torch definition each."""

from openwork.kernels.group_norm import GroupNormSolution, Scalar, solve_group_norm
from openwork.kernels.secular import Crossing, first_crossing
from openwork.kernels.singular_values import SingularValues, shrink_singular_values, singular_values

__all__ = [
    "Crossing",
    "GroupNormSolution",
    "Scalar",
    "SingularValues",
    "first_crossing",
    "shrink_singular_values",
    "singular_values",
    "solve_group_norm",
]
