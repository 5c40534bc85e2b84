"""Sums and maxima over the members of groups, in the order that is fast, and the way back.

Members are the axes of a view that run inside a group, or a ``Joint``: groups of several tensors in one flat vector,
which may have entries in other processes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from openwork.sharding import Ranks

__all__ = [
    "Joint",
    "Members",
    "Stretch",
    "group_any",
    "group_max",
    "group_maxima",
    "group_row",
    "group_sum",
    "group_sum_and",
    "group_sums",
]


@dataclass(frozen=True)
class Stretch:
    """One tensor, flat in a longer vector, and which of its entries are in which group.

    Args:
        shape: Of the view of the tensor that shows its groups.
        members: Axes of the view over which a group runs as a whole, in increasing order.
        axis: The axis along which ``numbers`` says where an index belongs; None if an index is its own number.
        numbers: For each index along ``axis`` its place on the grid of groups, on any device.
        grid: Shape of the groups, with length one along ``members``.
        first: Number of its first group.
        counts: Whether its entries count here: those of a tensor that every process has count in one of them.
    """

    shape: tuple[int, ...]
    members: tuple[int, ...]
    axis: int | None
    numbers: Tensor | None
    grid: tuple[int, ...]
    first: int
    counts: bool = True

    def of(self, groups: Tensor) -> Tensor:
        """The numbers of its groups, as a view of those of all."""
        return groups.narrow(0, self.first, prod(self.grid)).view(self.grid)

    def add_(self, groups: Tensor, x: Tensor) -> None:
        """Add the sums of its groups to those of all."""
        sums = group_sum(x.view(self.shape), self.members)
        if self.axis is None or self.numbers is None:
            self.of(groups).add_(sums)
        else:
            self.of(groups).index_add_(self.axis, self.numbers.to(x.device), sums)

    def raise_(self, groups: Tensor, x: Tensor) -> None:
        """Raise the maxima of all groups to those of its own."""
        if x.numel() == 0:
            return
        largest, own = group_max(x.view(self.shape), self.members), self.of(groups)
        if self.axis is None or self.numbers is None:
            own.copy_(torch.maximum(own, largest))
        else:
            places = self.numbers.to(x.device).view([-1 if a == self.axis else 1 for a in range(largest.ndim)])
            own.scatter_reduce_(self.axis, places.expand_as(largest), largest, "amax")

    def write_(self, x: Tensor, groups: Tensor) -> None:
        """Give every entry the number of its group."""
        own = self.of(groups)
        if self.axis is not None and self.numbers is not None:
            own = own.index_select(self.axis, self.numbers.to(x.device))
        x.view(self.shape).copy_(own)


@dataclass(frozen=True)
class Joint:
    """Groups of several tensors that lie flat in one vector, so that what they need from other processes comes at once.

    Args:
        stretches: The tensors, in order.
        count: Number of groups.
        ranks: The processes that hold entries of these groups; None if this one holds them all.
    """

    stretches: tuple[Stretch, ...]
    count: int
    ranks: Ranks | None

    def sums(self, xs: Iterable[Tensor]) -> list[Tensor]:
        """One number per group for each vector, by one exchange with the other processes."""
        found = torch.stack([self._collected(x, Stretch.add_) for x in xs])
        return list(found if self.ranks is None else self.ranks.sum_(found))

    def maxima(self, xs: Iterable[Tensor]) -> list[Tensor]:
        """The largest entry of every group for each vector, whose entries are >= 0; by one exchange."""
        found = torch.stack([self._collected(x, Stretch.raise_) for x in xs])
        return list(found if self.ranks is None else self.ranks.max_(found))

    def row(self, groups: Tensor) -> Tensor:
        """The number of its group for every entry."""
        x = groups.new_empty(sum(prod(stretch.shape) for stretch in self.stretches))
        for stretch, part in self._parts(x):
            stretch.write_(part, groups)
        return x

    def _collected(self, x: Tensor, collect_: Callable[[Stretch, Tensor, Tensor], None]) -> Tensor:
        groups = x.new_zeros(self.count)
        for stretch, part in self._parts(x):
            if stretch.counts:
                collect_(stretch, groups, part)
        return groups

    def _parts(self, x: Tensor) -> Iterable[tuple[Stretch, Tensor]]:
        lengths = [prod(stretch.shape) for stretch in self.stretches]
        return zip(self.stretches, torch.split(x, lengths), strict=True)


Members = tuple[int, ...] | Joint


def group_sum(x: Tensor, members: Members) -> Tensor:
    """Sum over the members.

    Args:
        x: Any shape.
        members: Axes to sum over, in increasing order; they stay with length one. Or a joint, for a vector.

    Returns:
        One number per group. Leading axes are summed first: over rows that is several times faster than all at once.
    """
    if isinstance(members, Joint):
        return members.sums([x])[0]
    for run in _runs(members):
        x = x.sum(run, keepdim=True)
    return x


def group_sums(xs: Sequence[Tensor], members: Members) -> list[Tensor]:
    """Several sums, by one exchange where other processes have entries; see ``group_sum``."""
    return members.sums(xs) if isinstance(members, Joint) else [group_sum(x, members) for x in xs]


def group_sum_and(x: Tensor, other: Callable[[], Tensor], members: Members) -> tuple[Tensor, Callable[[], Tensor]]:
    """A sum, and another of which nobody knows yet whether it is needed.

    Args:
        x: Any shape.
        other: Makes what else is to be summed; it may overwrite ``x``.
        members: As for ``group_sum``.

    Returns:
        The sum of ``x``, and what gives that of ``other()``: computed when asked for, or, where other processes have
        entries, by the same exchange.
    """
    if not isinstance(members, Joint):
        return group_sum(x, members), lambda: group_sum(other(), members)
    # In turn: the second may overwrite what the first is made of.
    first, second = members.sums(make() for make in (lambda: x, other))
    return first, lambda: second


def group_max(x: Tensor, members: Members) -> Tensor:
    """Largest entry over the members, >= 0 for a joint; see ``group_sum``."""
    if isinstance(members, Joint):
        return members.maxima([x])[0]
    for run in _runs(members):
        x = x.amax(run, keepdim=True)
    return x


def group_maxima(xs: Sequence[Tensor], members: Members) -> list[Tensor]:
    """Several maxima, by one exchange where other processes have entries; see ``group_max``."""
    return members.maxima(xs) if isinstance(members, Joint) else [group_max(x, members) for x in xs]


def group_any(x: Tensor, members: Members) -> Tensor:
    """Whether a group has an entry that is not zero; member axes are gone."""
    if isinstance(members, Joint):
        return members.sums([(x != 0).to(torch.float32)])[0] > 0
    return (x != 0).any(dim=members)


def group_row(g: Tensor, like: Tensor, members: Members) -> Tensor:
    """Numbers per group in a form that broadcasts fast against ``like``.

    Args:
        g: One number per group, member axes of length one.
        like: The grouped tensor.
        members: Its member axes, in increasing order, or a joint.

    Returns:
        ``g``, repeated along trailing members if there are leading ones: broadcasting rows is several times faster than
        broadcasting over the short kernel axes of a convolution.
    """
    if isinstance(members, Joint):
        return members.row(g)
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
