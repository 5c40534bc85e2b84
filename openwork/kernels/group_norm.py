"""The one hot loop: groups shrunk under a diagonal metric."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from openwork.reductions import Members, group_maxima, group_row, group_sum_and

Scalar = float | Tensor

# A Newton count that never waits for a result, for devices and compiled code (six reach single precision for metrics
# spread over three decades, more only for wider ones), and the bound for code that stops as soon as every group passes.
FIXED_ITERATIONS = 8
MAX_ITERATIONS = 60


class GroupNormSolution(NamedTuple):
    """Minimizers of all groups.

    Args:
        x: Like ``b``; groups that are not kept are exact zeros.
        kept: Boolean, member axes kept with length one.
        residual: Norm of a subgradient at ``x``, per group, shaped like ``kept``.
    """

    x: Tensor
    kept: Tensor
    residual: Tensor


def solve_group_norm(b: Tensor, d: Tensor, kappa: Scalar, members: Members) -> GroupNormSolution:
    """Minimize ``0.5 x'Dx - b'x + kappa ||x||`` in every group, exactly.

    A group is zero iff ``||b|| <= kappa``. Otherwise ``x = r b / (r d + kappa)``, where ``r = ||x||`` is the root of
    the secular equation ``q(r) = sum b^2 / (r d + kappa)^2 = 1``. Newton's method on ``q^(-1/2)``, which is increasing
    and concave, rises monotonically to the root from any point below it. At every ``r`` the residual of ``x(r)`` is
    ``kappa |1 - sqrt(q)|``, so convergence is certified by a number that is there anyway.

    Args:
        b: Any shape, floating, not empty; with a joint a vector, which may be empty here.
        d: Metric, shaped like ``b``, >= 0; ``b`` must vanish where it does.
        kappa: Threshold, >= 0, a number or a tensor that broadcasts against the groups (member axes of length one).
        members: Axes that run inside a group, in increasing order; not empty. Or a joint: then every step exchanges two
            numbers per group with the other processes, at once for all tensors, and all take equally many steps, since
            each decides by numbers that are the same in all.

    Returns:
        The solution. It takes as many iterations as the slowest group needs on the CPU, and a fixed number on devices
        and under ``torch.compile``, where asking would wait.

    References:
        Newton on the reciprocal norm: Moré & Sorensen, Computing a Trust Region Step (1983), section 3. Zero test:
        Deleu & Bengio, arXiv:2102.03869, theorem 1.
    """
    tiny = torch.finfo(b.dtype).tiny
    # Squares of b and ratios of d must not leave the range of the number format.
    scale, top = (largest.clamp_min(tiny) for largest in group_maxima([b.abs(), d], members))
    k = kappa / scale
    b = b / group_row(scale, b, members)
    d = d / group_row(top, d, members)

    squares = b * b
    square, curvature = group_sum_and(squares, partial(squares.mul_, d), members)
    norm = square.sqrt()
    kept = norm > k
    # One Newton step from r = 0; and sum b^2 / (r d + kappa)^2 with d at its largest.
    surplus = norm - k
    r = torch.maximum(surplus * square / curvature(), surplus)
    # A group that is zero anyway gets a harmless equation.
    r, k = torch.where(kept, r, 0.0), torch.where(kept, k, 1.0)
    k_row = group_row(k, b, members)

    wait = b.device.type == "cpu" and not torch.compiler.is_compiling()
    tolerance = 4 * torch.finfo(b.dtype).eps
    iterations = MAX_ITERATIONS if wait else FIXED_ITERATIONS
    while True:
        e = torch.addcmul(k_row, group_row(r, b, members), d)
        u = b / e
        squares = u * u
        q, slope = group_sum_and(squares, partial(_slopes, squares, d, e), members)
        gap = torch.where(kept, q.sqrt() - 1, 0.0)
        if iterations == 0 or (wait and not (gap.abs() > tolerance).any()):
            break
        iterations -= 1
        following = r + q * gap / slope()
        # Rounding must not undo the monotone rise, nor may a group without a root spread its NaN.
        following = torch.where(following > r, following, r)
        if wait and torch.equal(following, r):
            break
        r = following
    x = u.mul_(group_row(r * scale / top, b, members))
    return GroupNormSolution(x, kept, gap.abs() * k * scale)


def _slopes(squares: Tensor, d: Tensor, e: Tensor) -> Tensor:
    return squares.mul_(d).div_(e)
