"""Sums and maxima over the member axes of a view, in the order that is fast, and the way back."""

from torch import Tensor

__all__ = ["group_max", "group_row", "group_sum"]


def group_sum(x: Tensor, members: tuple[int, ...]) -> Tensor:
    """Sum over the member axes, which stay with length one.

    Args:
        x: Any shape.
        members: Axes to sum over, in increasing order.

    Returns:
        One number per group. Leading axes are summed first: over rows that is several times faster than all at once.
    """
    for run in _runs(members):
        x = x.sum(run, keepdim=True)
    return x


def group_max(x: Tensor, members: tuple[int, ...]) -> Tensor:
    """Largest entry over the member axes, which stay with length one; see ``group_sum``."""
    for run in _runs(members):
        x = x.amax(run, keepdim=True)
    return x


def group_row(g: Tensor, like: Tensor, members: tuple[int, ...]) -> Tensor:
    """Numbers per group in a form that broadcasts fast against ``like``.

    Args:
        g: One number per group, member axes of length one.
        like: The grouped tensor.
        members: Its member axes, in increasing order.

    Returns:
        ``g``, repeated along trailing members if there are leading ones: broadcasting rows is several times faster than
        broadcasting over the short kernel axes of a convolution.
    """
    if len(_runs(members)) == 1:
        return g
    first = min(axis for axis in range(like.ndim) if axis not in members)
    return g.expand(*g.shape[:first], *like.shape[first:]).contiguous()


def _runs(members: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Consecutive axes together."""
    runs: list[tuple[int, ...]] = []
    for axis in members:
        if runs and runs[-1][-1] == axis - 1:
            runs[-1] = (*runs[-1], axis)
        else:
            runs.append((axis,))
    return runs
