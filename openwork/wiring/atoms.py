"""Which channels are one and the same: every index along every axis of every parameter, joined as data flows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from openwork.wiring.coupling import Remark

Part = Literal["producer", "consumer", "statistic"]


@dataclass(frozen=True)
class Axis:
    """One axis of one parameter or buffer, and the numbers of its atoms.

    Args:
        name: Qualified name of the parameter or buffer.
        dim: Which axis.
        shape: Shape of the parameter.
        start: Number of the atom at index 0; the others follow.
    """

    name: str
    dim: int
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        """Length of the axis."""
        return self.shape[self.dim]

    @property
    def atoms(self) -> Tensor:
        """Numbers of its atoms, int64 ``(size,)``."""
        return torch.arange(self.start, self.start + self.size)


@dataclass(frozen=True, eq=False)
class Size:
    """A length that a module is told as a number.

    Args:
        ids: Atoms of the tensor that it makes.
        dim: Dimension whose length it is.
        module: Path of the module.
        derived: Whether the number is -1, so that the length follows from others.
    """

    ids: Tensor
    dim: int
    module: str
    derived: bool = False


class Atoms:
    """An atom is one index along one axis of one parameter; atoms that must go together are joined into a unit.

    Joins are collected as tensors and resolved together, so the cost is near-linear in the number of atoms whatever the
    depth of the model. The number -1 stands for no atom.

    Args:
        weighed: Whether the numbers in the weights are looked at, so that it is known who reads what.
    """

    def __init__(self, *, weighed: bool = False) -> None:
        self.weighed = weighed
        self.axes: list[Axis] = []
        self._size = 0
        self._joins: list[Tensor] = []
        self._rigid: list[tuple[Tensor, int, str]] = []
        self._split: list[Tensor] = []
        self._reads: list[Tensor] = []
        self.blocked: list[tuple[Tensor, str]] = []
        self.remarks: list[tuple[Tensor, Remark]] = []
        self.sizes: list[Size] = []
        self.balanced: list[list[Tensor]] = []
        self.parts: dict[Part, list[Tensor]] = {"producer": [], "consumer": [], "statistic": []}

    def add(self, name: str, shape: tuple[int, ...]) -> list[Axis]:
        """Number the atoms of all axes of a parameter."""
        added: list[Axis] = []
        for dim, size in enumerate(shape):
            added.append(Axis(name, dim, shape, self._size))
            self._size += size
        self.axes += added
        return added

    def mark(self, ids: Tensor, part: Part) -> None:
        """These atoms produce their channel, consume it, or keep statistics of it."""
        self.parts[part].append(_known(ids))

    def block(self, ids: Tensor, why: str) -> None:
        """The units of these atoms cannot be removed, since something looks at them."""
        self.blocked.append((_known(ids), why))
        self._reads.append(self.blocked[-1][0])

    def remark(self, ids: Tensor, remark: Remark) -> None:
        """Whoever removes units of these atoms has to know something."""
        self.remarks.append((_known(ids), remark))

    def read(self, ids: Tensor, live: Tensor) -> None:
        """Something looks at these atoms, and at those where ``live`` is False sees a zero whatever they are.

        Args:
            ids: Atoms.
            live: Booleans that broadcast with them.
        """
        shape = broadcast(ids.shape, live.shape)
        self._reads.append(_known(ids.expand(shape)[live.expand(shape)]))

    def is_read(self, unit: Tensor) -> Tensor:
        """Whether anything sees more than zeros in a unit, for each atom that names one.

        Args:
            unit: The unit of every atom, as ``units`` gives it.

        Returns:
            One boolean per atom, right for the atoms that units are named after.
        """
        read = torch.zeros(self._size, dtype=torch.bool)
        for ids in self._reads:
            read[unit[ids]] = True
        return read

    def size(self, ids: Tensor, dim: int, module: str, *, derived: bool = False) -> None:
        """The code of a module is told the length of this dimension, perhaps by an attribute."""
        self.sizes.append(Size(ids, dim, module, derived))

    def join(self, a: Tensor, b: Tensor, why: str) -> None:
        """Atoms at the same place go together, after broadcasting; an atom that meets no atom is blocked."""
        shape = broadcast(a.shape, b.shape)
        pairs = torch.stack([a.expand(shape).flatten(), b.expand(shape).flatten()])
        pairs = pairs[:, pairs[0] != pairs[1]]
        both = (pairs >= 0).all(dim=0)
        self._joins.append(pairs[:, both])
        if not both.all():
            self.block(pairs[:, ~both], why)

    def merge(self, ids: Tensor, dim: int) -> None:
        """All atoms along ``dim`` go together."""
        if ids.shape[dim] > 1:
            self.join(ids, ids.narrow(dim, 0, 1), "goes together with channels that are not known")

    def rigid(self, ids: Tensor, dim: int, why: str) -> None:
        """The length of ``dim`` cannot change: units span it where they can, and are blocked where they cannot."""
        self._rigid.append((ids, dim, why))

    def split(self, ids: Tensor) -> None:
        """What is left of an axis split in two or more must be a full grid: units span all dimensions but one."""
        self._split.append(ids)

    def equal(self, groups: Sequence[Tensor], why: str) -> None:
        """The units of these tensors of atoms must stay equally many, though not the same ones."""
        self.balanced.append(list(groups))
        for ids in groups:
            self.remark(ids, Remark("equal", why))

    def units(self) -> Tensor:
        """Resolve all joins.

        Returns:
            For each atom the smallest atom of its unit, int64.
        """
        unit = self._resolve(torch.arange(self._size))
        while self._span(unit):
            unit = self._resolve(unit)
        for ids, dim, why in self._rigid:
            if varies(_lookup(unit, ids), dim):
                # Nobody need look at them: it is the length that is fixed.
                self.blocked.append((_known(ids), why))
        return unit

    def _span(self, unit: Tensor) -> bool:
        """Merge what the shapes of the tensors demand; whether there was anything."""
        for ids, dim, _ in self._rigid:
            dims = _varying(_lookup(unit, ids))
            if dim in dims and len(dims) > 1:
                self.merge(ids, dim)
        if not self._joins:
            for ids in self._split:
                dims = _varying(_lookup(unit, ids))
                if len(dims) > 1:
                    self.merge(ids, min(dims, key=lambda dim: ids.shape[dim]))
        return bool(self._joins)

    def _resolve(self, unit: Tensor) -> Tensor:
        """Connected components: every root hooks onto the smallest root it is joined with, then paths are halved."""
        joins = torch.cat([torch.empty(2, 0, dtype=torch.int64), *self._joins], dim=1)
        self._joins.clear()
        while joins.numel():
            roots = unit[joins]
            joins = joins[:, roots[0] != roots[1]]
            low, high = unit[joins].amin(dim=0), unit[joins].amax(dim=0)
            unit = unit.scatter_reduce(0, high, low, "amin")
            unit = _until_fixed(unit, lambda unit: unit[unit])
        return unit


def varies(ids: Tensor, dim: int) -> bool:
    """Whether entries along ``dim`` differ."""
    if ids.shape[dim] <= 1 or ids.stride(dim) == 0:
        return False
    return not torch.equal(ids, ids.narrow(dim, 0, 1).expand_as(ids))


def broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    """Shape of a result that is computed entry by entry, from the shapes of its operands, which fit."""
    ndim = max(map(len, shapes))
    aligned = [(1,) * (ndim - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*aligned, strict=True))


def distinct(ids: Tensor) -> Tensor:
    """The numbers that occur, in order, each once."""
    ordered = ids.flatten().sort().values
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


def _varying(ids: Tensor) -> list[int]:
    return [dim for dim in range(ids.ndim) if varies(ids, dim)]


def _lookup(unit: Tensor, ids: Tensor) -> Tensor:
    return torch.where(ids < 0, ids, unit[ids])


def _known(ids: Tensor) -> Tensor:
    return distinct(ids[ids >= 0])


def _until_fixed(x: Tensor, step: Callable[[Tensor], Tensor]) -> Tensor:
    while not torch.equal(x, after := step(x)):
        x = after
    return x
