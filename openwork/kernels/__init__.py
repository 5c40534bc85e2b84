"""The hot loops: one plain-torch definition each, and fused twins of whole steps beside those of ``openwork.optim``.

A fused step reads and writes each tensor as rarely as it can: once, or twice where weights have groups. What it needs
to know of a penalty is a ``Plan`` of ``Term``: which ``Region`` of which tensor belongs to which group, and two
strengths; penalties of other forms have no fused step.
``FusedKernels`` lists the steps, and ``fused_kernels(device)`` gives those for a kind of device, or None: numba on the
CPU, Triton on CUDA. A new backend implements ``FusedKernels``: it gets lists of tensors that share their strides, the
plan over them, what is known of its groups (``Found``: which are kept, and where Newton's method starts), and how
gradients enter (``Descent``); it writes all but gradients, and returns how well the groups were solved.
"""

from openwork.kernels.fused import NEWTON, Descent, Found, FusedKernels, Method, capturing, fused_kernels
from openwork.kernels.group_norm import GroupNormSolution, Scalar, solve_group_norm
from openwork.kernels.regions import Plan, Region, Term, dense, regions
from openwork.kernels.secular import Crossing, first_crossing
from openwork.kernels.singular_values import SingularValues, shrink_singular_values, singular_values

__all__ = [
    "NEWTON",
    "Crossing",
    "Descent",
    "Found",
    "FusedKernels",
    "GroupNormSolution",
    "Method",
    "Plan",
    "Region",
    "Scalar",
    "SingularValues",
    "Term",
    "capturing",
    "dense",
    "first_crossing",
    "fused_kernels",
    "regions",
    "shrink_singular_values",
    "singular_values",
    "solve_group_norm",
]
