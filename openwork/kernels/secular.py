"""Smallest roots of secular equations, also of those that need not have one."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from openwork.reductions import Members, group_row, group_sum_and

# As for the group norm, except that the start is a plain lower bound, which costs a few iterations more.
FIXED_ITERATIONS = 16
MAX_ITERATIONS = 60


class Crossing(NamedTuple):
    """Where ``q`` first falls to one.

    Args:
        r: The root; meaningless where there is none.
        found: Whether there is one.
    """

    r: Tensor
    found: Tensor


def first_crossing(b: Tensor, c: Tensor, kappa: Tensor, start: Tensor, stop: Tensor, members: Members) -> Crossing:
    """The smallest root of ``q(r) = sum b^2 / (kappa + r c)^2 = 1`` in ``(start, stop]``, if ``q(start) > 1``.

    Entries of ``c`` may have either sign as long as the denominators are positive in between. By Cauchy-Schwarz
    ``q^(-1/2)`` is concave all the same, so Newton's method rises monotonically to the first root, if there is one; if
    not, a tangent, which lies above the curve, misses the level, and this is seen.

    Args:
        b: Any shape.
        c: Shaped like ``b``.
        kappa: One number per group, member axes of length one, as for the rest.
        start: Left end, >= 0.
        stop: Right end.
        members: Axes that run inside a group; not empty. Or a joint, as for ``solve_group_norm``.

    Returns:
        One root per group.
    """
    wait = b.device.type == "cpu" and not torch.compiler.is_compiling()
    tiny = torch.finfo(b.dtype).tiny
    tolerance = 4 * torch.finfo(b.dtype).eps
    r = start.expand_as(kappa)
    below = found = torch.zeros_like(kappa, dtype=torch.bool)
    kappa = group_row(kappa, b, members)
    for iteration in range(MAX_ITERATIONS if wait else FIXED_ITERATIONS):
        e = torch.addcmul(kappa, group_row(r, b, members), c).clamp_min(tiny)
        squares = (b / e).square()
        q, slopes = group_sum_and(squares, partial(_slopes, squares, c, e), members)
        gap = q.sqrt() - 1
        if iteration == 0:
            below = found = gap > 0
        slope = slopes()
        following = r + q * gap / slope
        # Where the tangent never reaches the level before the right end, neither does the curve.
        found = found & ((gap <= tolerance) | ((slope > 0) & (following <= stop)))
        rising = found & (following > r)
        if wait and not bool((rising & (gap > tolerance)).any()):
            break
        r = torch.where(rising, following, r)
    return Crossing(r, below & found)


def _slopes(squares: Tensor, c: Tensor, e: Tensor) -> Tensor:
    return squares * (c / e)
