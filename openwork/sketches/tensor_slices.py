"""Slices of tensors along several dimensions: taking them, writing them back, and which indices a draw leaves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from openwork.sketches.families import Units


@dataclass(frozen=True, eq=False)
class TensorSlices:
    """What a draw leaves of one tensor.

    Args:
        stays: Indices in rising order, by dimension; other dimensions stay whole.
        scales: What the slices are multiplied by, of shapes that broadcast to theirs.
    """

    stays: Mapping[int, Tensor]
    scales: tuple[Tensor, ...] = ()

    @property
    def unscaled(self) -> "TensorSlices":
        """The same slices as they are."""
        return TensorSlices(self.stays)

    def take(self, x: Tensor) -> Tensor:
        """The slices, multiplied; differentiable. The tensor itself where nothing of it is cut.

        Args:
            x: The whole tensor.
        """
        for dim, indices in self.stays.items():
            x = x.index_select(dim, indices)
        return reduce(torch.mul, self.scales, x)

    @torch.no_grad()
    def load_(self, small: Tensor, x: Tensor) -> None:
        """Write the slices into a tensor of their shape, multiplied.

        Args:
            small: Written to.
            x: The whole tensor.
        """
        left = list(self.stays.items())
        if not left:
            small.copy_(x)
            return
        for dim, indices in left[:-1]:
            x = x.index_select(dim, indices)
        torch.index_select(x.detach(), *left[-1], out=small.detach())
        for scale in self.scales:
            small.mul_(scale)

    @torch.no_grad()
    def put_(self, x: Tensor, small: Tensor) -> None:
        """Write slices back where they belong, divided by what they were multiplied by.

        Args:
            x: The whole tensor, written to.
            small: The slices.
        """
        for scale in self.scales:
            small = small / scale
        _put_(x, list(self.stays.items()), small)


def _put_(x: Tensor, stays: list[tuple[int, Tensor]], small: Tensor) -> None:
    if not stays:
        x.copy_(small)
        return
    (dim, indices), *others = stays
    if others:
        rows = x.index_select(dim, indices)
        _put_(rows, others, small)
        small = rows
    if dim == x.ndim - 1:
        # Twice as fast where neighbors along the axis lie next to each other.
        x.scatter_(dim, indices.expand_as(small), small)
    else:
        x.index_copy_(dim, indices, small)


@dataclass(frozen=True, eq=False)
class Layout:
    """Which units the indices along an axis belong to.

    Args:
        length: Of the axis.
        members: Number of a family and, for each index, the number of its unit in it, or the family's size if none.
        multiplicities: How many indices a unit of each member has; None if units differ in that.
    """

    length: int
    members: tuple[tuple[int, Tensor], ...]
    multiplicities: tuple[int | None, ...]

    @classmethod
    def of(cls, families: Sequence[Units], members: Sequence[tuple[int, Tensor]]) -> "Layout":
        """The layout of an axis.

        Args:
            families: All of the model.
            members: Number of a family, and units as in ``AxisSlices``.
        """
        counts = [units[units >= 0].bincount(minlength=families[at].size) for at, units in members]
        return cls(
            members[0][1].numel(),
            tuple((at, torch.where(units >= 0, units, families[at].size)) for at, units in members),
            tuple(int(count[0]) if bool((count == count[0]).all()) else None for count in counts),
        )

    def to(self, device: torch.device) -> "Layout":
        """The same on a device.

        Args:
            device: Where.
        """
        return Layout(self.length, tuple((at, units.to(device)) for at, units in self.members), self.multiplicities)

    def along(self, values: Sequence[Tensor]) -> Tensor:
        """For every index the product of its units' values.

        Args:
            values: Of the units of each family, and one more for indices without a unit.
        """
        return reduce(torch.mul, [values[at].index_select(0, units) for at, units in self.members])

    def left(self, dropped: Sequence[int], alive: Tensor) -> int:
        """How many indices stay; waits for the device only where units have different numbers of them.

        Args:
            dropped: Number of units of each family that go.
            alive: Which indices stay.
        """
        lost = 0
        for (at, _), each in zip(self.members, self.multiplicities, strict=True):
            if each is None:
                return int(alive.sum())
            lost += each * dropped[at]
        return self.length - lost


@dataclass(frozen=True)
class Axis:
    """A dimension of a tensor along which units lie.

    Args:
        name: Of the tensor.
        dim: The dimension.
        layout: Number of the layout of all its units.
        scaled: Number of the layout of those that are multiplied in it; None if there are none.
    """

    name: str
    dim: int
    layout: int
    scaled: int | None


def axes(families: Sequence[Units]) -> tuple[list[Layout], list[Axis]]:
    """All axes along which units lie, and their layouts, of which each is there once.

    Args:
        families: All of the model.
    """
    cut: dict[tuple[str, int], list[tuple[int, Tensor]]] = {}
    scaled: dict[tuple[str, int], list[tuple[int, Tensor]]] = {}
    for at, family in enumerate(families):
        for part in family.coupling.slices():
            cut.setdefault((part.name, part.dim), []).append((at, part.units.cpu()))
        for part in family.slices:
            scaled.setdefault((part.name, part.dim), []).append((at, part.units.cpu()))
    layouts: list[Layout] = []
    numbers: dict[tuple[tuple[int, tuple[int, ...]], ...], int] = {}

    def number(members: Sequence[tuple[int, Tensor]]) -> int:
        name = tuple((at, tuple(units.tolist())) for at, units in members)
        if name not in numbers:
            numbers[name] = len(layouts)
            layouts.append(Layout.of(families, members))
        return numbers[name]

    found = [
        Axis(name, dim, number(members), number(scaled[name, dim]) if (name, dim) in scaled else None)
        for (name, dim), members in cut.items()
    ]
    return layouts, found


__all__ = ["Axis", "Layout", "TensorSlices", "axes"]
