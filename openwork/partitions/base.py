"""What a partition is: which entries of one tensor form a group."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from typing_extensions import override

from openwork.reductions import Joint, Members, group_any, group_max, group_row, group_sum


@dataclass(frozen=True)
class Layout:
    """A view of a tensor whose axes are either group axes or member axes.

    A partition only ever splits axes. A split is a view of any strided tensor (transposed, channels-last, narrowed),
    so reading a group never copies a weight.

    Args:
        shape: Shape of the view.
        members: Axes of the view that run inside a group, at least one; the others number the groups. Or a joint, whose
            groups are numbered along one axis.
    """

    shape: tuple[int, ...]
    members: Members

    @classmethod
    def of(cls, shape: Sequence[int], members: Sequence[int]) -> "Layout":
        """A layout; groups of single entries get a member axis of length one, so that no reduction is over nothing."""
        return cls(tuple(shape), tuple(members)) if members else cls((*shape, 1), (len(shape),))

    @property
    def axes(self) -> tuple[int, ...]:
        """The members of a view of one tensor.

        Raises:
            TypeError: If it is a view of several.
        """
        if isinstance(self.members, Joint):
            raise TypeError("the groups of several tensors in one vector have no axes of their own")
        return self.members

    @property
    def grid(self) -> tuple[int, ...]:
        """Sizes of the group axes, in order."""
        if isinstance(self.members, Joint):
            return (self.members.count,)
        return tuple(n for axis, n in enumerate(self.shape) if axis not in self.members)

    @property
    def empty(self) -> bool:
        """Whether no group has an entry; a joint need not have any here."""
        return 0 in self.shape if isinstance(self.members, tuple) else self.members.count == 0

    @property
    def keepdim(self) -> tuple[int, ...]:
        """Shape of the view with every member axis shrunk to one."""
        if isinstance(self.members, Joint):
            return (self.members.count,)
        return tuple(1 if axis in self.members else n for axis, n in enumerate(self.shape))


@dataclass(frozen=True)
class Cut:
    """How a tensor may be cut into pieces that contain whole groups only.

    Args:
        dim: Axis of the tensor to cut, which is axis 0 of the group grid.
        unit: Length along ``dim`` of one step of that grid axis.
    """

    dim: int
    unit: int


class Partition(ABC):
    """Which entries of one tensor form a group; groups are disjoint, equally large, and cover the tensor."""

    @abstractmethod
    def layout(self, shape: Sequence[int]) -> Layout:
        """The view of a tensor of this shape that shows its groups.

        Args:
            shape: Shape of the tensor.

        Returns:
            The layout.

        Raises:
            ValueError: If the groups do not tile a tensor of this shape.
        """

    @abstractmethod
    def cut(self, shape: Sequence[int]) -> Cut | None:
        """Where a tensor of this shape may be cut without cutting a group; None if nowhere.

        A piece is partitioned by the same partition.
        """

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of a tensor that holds one number per group."""
        return self.layout(shape).grid

    def size(self, shape: Sequence[int]) -> int:
        """Number of entries in each group."""
        layout = self.layout(shape)
        return prod([layout.shape[axis] for axis in layout.axes])

    def sum(self, x: Tensor) -> Tensor:
        """Sum of every group.

        Args:
            x: Any shape that the groups tile.

        Returns:
            One number per group, of shape ``grid(x.shape)``.
        """
        layout = self.layout(x.shape)
        return group_sum(x.view(layout.shape), layout.members).view(layout.grid)

    def max(self, x: Tensor) -> Tensor:
        """Largest entry of every group.

        Args:
            x: Any shape that the groups tile; groups are not empty.

        Returns:
            One number per group, of shape ``grid(x.shape)``.
        """
        layout = self.layout(x.shape)
        return group_max(x.view(layout.shape), layout.members).view(layout.grid)

    def norm(self, x: Tensor) -> Tensor:
        """Euclidean norm of every group, even where a square would leave the range of the number format.

        Args:
            x: Any shape that the groups tile.

        Returns:
            One number per group, of shape ``grid(x.shape)``.
        """
        layout = self.layout(x.shape)
        if layout.empty:
            return self.sum(x)
        x, members = x.view(layout.shape), layout.members
        if _may_wait(x):
            norms = _root(group_sum(x * x, members))
            if _squares_are_safe(norms):
                return norms.view(layout.grid)
        scale = group_max(x.detach().abs(), members).clamp_min(torch.finfo(x.dtype).tiny)
        x = x / group_row(scale, x, members)
        return (_root(group_sum(x * x, members)) * scale).view(layout.grid)

    def any(self, x: Tensor) -> Tensor:
        """Whether a group has a nonzero entry.

        Args:
            x: Any shape that the groups tile.

        Returns:
            One boolean per group, of shape ``grid(x.shape)``.
        """
        layout = self.layout(x.shape)
        return group_any(x.view(layout.shape), layout.members)

    def spread(self, g: Tensor, like: Tensor) -> Tensor:
        """Give every entry the number of its group; the adjoint of ``sum``.

        Args:
            g: One number per group, of shape ``grid(like.shape)``.
            like: A tensor of the partitioned shape.

        Returns:
            A tensor shaped like ``like``; a view of ``g`` where the groups allow it.
        """
        layout = self.layout(like.shape)
        row = group_row(g.view(layout.keepdim), like.view(layout.shape), layout.members)
        return row.expand(layout.shape).reshape(like.shape)


def _root(squares: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0 instead of infinite, so that a penalty's value can be differentiated."""
    zero = squares == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, squares).sqrt())


def _may_wait(x: Tensor) -> bool:
    """Whether a result may be looked at: on a device and under ``torch.compile`` nobody waits for one."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _squares_are_safe(norms: Tensor) -> bool:
    """Whether norms of plain squares can be trusted."""
    root = torch.finfo(norms.dtype).tiny ** 0.25
    return bool(((norms > root) & (norms < 1 / root)).all())


@dataclass(frozen=True)
class Stacked(Partition):
    """The groups of each of several equal tensors stacked along a new first axis.

    Args:
        each: Partition of one tensor.
    """

    each: Partition

    @override
    def layout(self, shape: Sequence[int]) -> Layout:
        inner = self.each.layout(shape[1:])
        return Layout((shape[0], *inner.shape), tuple(axis + 1 for axis in inner.axes))

    @override
    def cut(self, shape: Sequence[int]) -> Cut | None:
        return Cut(0, 1)


def axis_of(shape: Sequence[int], dim: int, owner: object) -> int:
    """The axis ``dim`` of a shape as a number that is not negative.

    Args:
        shape: Shape of the tensor.
        dim: Axis; counted from the end if negative.
        owner: Who asks, named in the error.

    Returns:
        The axis, ``0 <= axis < len(shape)``.

    Raises:
        ValueError: If there is no such axis.
    """
    if not -len(shape) <= dim < len(shape):
        raise ValueError(
            f"{owner} needs axis {dim}, and a weight of shape {tuple(shape)} has {len(shape)}; "
            "choose another axis or leave this layer out"
        )
    return dim % len(shape)


def split_axis(shape: Sequence[int], dim: int, size: int, owner: object) -> tuple[int, int]:
    """Split one axis into runs of ``size``.

    Args:
        shape: Shape of the tensor.
        dim: Axis to split.
        size: Length of a run.
        owner: Who asks, named in the error.

    Returns:
        Number of runs, and ``size``.

    Raises:
        ValueError: If ``size`` does not divide the axis.
    """
    if shape[dim] % size:
        raise ValueError(
            f"{owner} does not tile a weight of shape {tuple(shape)}: "
            f"{shape[dim]} is not a multiple of {size}; choose a divisor or leave this layer out"
        )
    return shape[dim] // size, size


def check_positive(owner: str, name: str, value: int) -> None:
    """Refuse a size that is not a positive integer.

    Raises:
        ValueError: If ``value`` is below one.
    """
    if value < 1:
        raise ValueError(f"{owner}: {name} must be a positive integer, got {value}")


__all__ = ["Cut", "Layout", "Partition", "Stacked", "axis_of", "check_positive", "split_axis"]
