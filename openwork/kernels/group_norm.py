"""The one hot loop: groups shrunk under a diagonal metric."""

from typing import NamedTuple

import torch
from torch import Tensor

Scalar = float | Tensor

# Newton counts that never wait for a result, for devices and compiled code (six reach single precision for metrics
# spread over three decades, more only for wider ones), and the bound for code that stops once every group passes.
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


def solve_group_norm(b: Tensor, d: Tensor, kappa: Scalar, members: tuple[int, ...]) -> GroupNormSolution:
    """Minimize ``0.5 x'Dx - b'x + kappa ||x||`` in every group, exactly.

    A group is zero iff ``||b|| <= kappa``. Otherwise ``x = r b / (r d + kappa)``, where ``r = ||x||`` is the root of
    the secular equation ``q(r) = sum b^2 / (r d + kappa)^2 = 1``. Newton's method on ``q^(-1/2)``, which is increasing
    and concave, rises monotonically to the root from any point below it. At every ``r`` the residual of ``x(r)`` is
    ``kappa |1 - sqrt(q)|``, so convergence is certified by a number that is there anyway.

    Args:
        b: Any shape, floating.
        d: Metric, shaped like ``b``, >= 0; ``b`` must vanish where it does.
        kappa: Threshold, >= 0, a number or a tensor that broadcasts against the groups (member axes of length one).
        members: Axes that run inside a group; not empty.

    Returns:
        The solution. It takes as many iterations as the slowest group needs on the CPU, and a fixed number on devices
        and under ``torch.compile``, where asking would wait.

    References:
        Derived in the project's notes; the secular equation is that of trust regions, with Newton on the reciprocal
        norm as in Moré & Sorensen (1983), section 3. Zero test: Deleu & Bengio, arXiv:2102.03869, theorem 1.
    """
    tiny = torch.finfo(b.dtype).tiny
    # Squares of b and ratios of d must not leave the range of the number format.
    scale = b.abs().amax(members, keepdim=True).clamp_min(tiny)
    top = d.amax(members, keepdim=True).clamp_min(tiny)
    b, d, k = b / scale, d / top, kappa / scale

    squares = b.square()
    norm = squares.sum(members, keepdim=True).sqrt()
    kept = norm > k
    r = torch.where(kept, _lower_bound(squares, d, k, norm, members), 0.0)

    u, gap = b, r
    wait = b.device.type == "cpu" and not torch.compiler.is_compiling()
    tolerance = 4 * torch.finfo(b.dtype).eps
    for iteration in range(MAX_ITERATIONS if wait else FIXED_ITERATIONS + 1):
        e = torch.addcmul(k, r, d)
        u = b / e
        squares = u.square()
        q = squares.sum(members, keepdim=True)
        gap = torch.where(kept, q.sqrt() - 1, 0.0)
        if wait:
            if not (gap.abs() > tolerance).any():
                break
        elif iteration == FIXED_ITERATIONS:
            break
        slope = squares.mul_(d).div_(e).sum(members, keepdim=True)
        following = r + q * gap / slope
        # Rounding must not undo the monotone rise, nor may a group without a root spread its NaN.
        following = torch.where(following > r, following, r)
        if wait and torch.equal(following, r):
            break
        r = following
    x = torch.where(kept, u * (r * scale / top), 0.0)
    return GroupNormSolution(x, kept, torch.where(kept, gap.abs() * k * scale, 0.0))


def _lower_bound(squares: Tensor, d: Tensor, k: Tensor, norm: Tensor, members: tuple[int, ...]) -> Tensor:
    """The best of three lower bounds on the root, for ``max d = 1``.

    One Newton step from ``r = 0``, one from infinity, and ``(||b|| - kappa) / max d``.
    """
    surplus = norm - k
    from_zero = surplus * norm.square() / (squares * d).sum(members, keepdim=True)
    a_squares = squares / d.square()
    a_norm = a_squares.sum(members, keepdim=True).sqrt()
    from_infinity = a_norm - k * (a_squares / d).sum(members, keepdim=True) / a_norm.square()
    # The second needs 1/d^3, which is trusted only where the metric is spread over less than nine decades.
    spread_is_mild = d.amin(members, keepdim=True) >= 1e-9
    best = torch.maximum(from_zero, surplus)
    return torch.where(spread_is_mild & (from_infinity > best), from_infinity, best)
