"""Groups of several tensors in one vector, some of whose entries are in other processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from typing_extensions import override

from openwork.partitions.base import Cut, Layout, Partition
from openwork.reductions import Joint, Stretch
from openwork.sharding import Division


@dataclass(frozen=True, eq=False)
class Joined(Partition):
    """The groups of several tensors that lie flat in one vector.

    Sums, norms and maxima are those of the whole groups, and the same in all processes.

    Args:
        joint: Where the groups are.
        sizes: Number of entries of each group, in all processes together.
    """

    joint: Joint
    sizes: Tensor

    @override
    def layout(self, shape: Sequence[int]) -> Layout:
        return Layout(tuple(shape), self.joint)

    @override
    def cut(self, shape: Sequence[int]) -> Cut | None:
        return None

    @override
    def size(self, shape: Sequence[int]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Number of entries of each group, which need not be equal here."""
        return self.sizes


@dataclass(frozen=True)
class _Axis:
    """The axes of a view that come from one axis of the tensor.

    Args:
        first: The first of them.
        count: How many they are.
        grid: The axis of the grid that they make; None if the axis of the tensor runs inside groups.
        groups: Number of different places along it.
        numbers: For each index of the tensor its place there.
    """

    first: int
    count: int
    grid: int | None
    groups: int
    numbers: Tensor


def divided_grid(groups: Partition, division: Division) -> int | None:
    """The axis of the grid along which the groups of a tensor are divided, if every process has whole groups.

    Then its part is tiled by the same partition.

    Args:
        groups: Partition of the whole tensor.
        division: How that is divided.

    Returns:
        The axis; None if a process has part of a group.
    """
    axis = _axis(groups, division.shape, division.dim)
    unit = max(len(axis.numbers) // max(axis.groups, 1), 1)
    in_turn = torch.equal(axis.numbers, torch.arange(len(axis.numbers)) // unit)
    aligned = all(edge % unit == 0 for bounds in division.bounds() for edge in bounds)
    return axis.grid if in_turn and aligned else None


def stretch(groups: Partition, division: Division, first: int) -> Stretch:
    """Where the part of this process is among the groups of the whole tensor.

    Args:
        groups: Partition of the whole tensor.
        division: How that is divided.
        first: Number that the first group of the tensor gets.
    """
    layout, axis = groups.layout(division.shape), _axis(groups, division.shape, division.dim)
    start, stop = division.bounds()[division.ranks.here]
    after = axis.first + axis.count
    view = (*layout.shape[: axis.first], stop - start, *layout.shape[after:])
    # The axes of the view that come from the divided one become one again.
    members = {a if a < axis.first else a - axis.count + 1 for a in layout.axes if not axis.first <= a < after}
    if axis.groups == 1:
        members.add(axis.first)
    grid = tuple(1 if a in members else axis.groups if a == axis.first else length for a, length in enumerate(view))
    numbered = (axis.first, axis.numbers[start:stop].to(division.device)) if axis.groups > 1 else (None, None)
    return Stretch(view, tuple(sorted(members)), *numbered, grid, first)


def _axis(groups: Partition, shape: Sequence[int], dim: int) -> _Axis:
    """What becomes of one axis of a tensor, which a partition may only split."""
    layout = groups.layout(shape)
    first = count = 0
    for length in shape[: dim + 1]:
        first, count = first + count, 1
        while prod(layout.shape[first : first + count]) != length:
            count += 1
    axes = range(first, first + count)
    numbers, total = torch.zeros([layout.shape[axis] for axis in axes], dtype=torch.int64), 1
    own = [axis for axis in axes if axis not in layout.axes]
    for axis in own:
        along = torch.arange(layout.shape[axis]).view([-1 if other == axis else 1 for other in axes])
        numbers, total = numbers * layout.shape[axis] + along, total * layout.shape[axis]
    grid = sum(axis not in layout.axes for axis in range(own[0])) if own else None
    return _Axis(first, count, grid, total, numbers.flatten())


__all__ = ["Joined", "divided_grid", "stretch"]
