"""Pieces of the tensors of a list, which is what a penalty is asked to solve for in one call."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor
from typing_extensions import override

T = TypeVar("T")


@dataclass(frozen=True)
class Piece:
    """One tensor of a list, as a whole.

    Args:
        position: Its place in the list.
    """

    position: int

    def take(self, x: Tensor) -> Tensor:
        """This piece of a tensor: a view, unless a subclass says otherwise.

        Args:
            x: The tensor at ``position``, or another of its shape.

        Returns:
            The piece.
        """
        return x


@dataclass(frozen=True)
class Units(Piece, ABC):
    """The indices of units along one axis of a tensor, which becomes an axis of units and others that run inside one.

    Args:
        dim: The axis of the tensor.
        width: Number of units.
        counts_as: What is taken for the size of a unit, in all tensors together; None for what it has.
    """

    dim: int
    width: int
    counts_as: int | None = field(default=None, kw_only=True)

    @property
    def axis(self) -> int:
        """The axis of the piece that numbers the units."""
        return self.dim

    @property
    @abstractmethod
    def indices(self) -> int:
        """Number of indices along ``dim`` that belong to the units."""

    def put_(self, x: Tensor, values: Tensor) -> None:
        """Write this piece of a tensor.

        Args:
            x: The tensor at ``position``, or another of its shape.
            values: Shaped like the piece.
        """
        self.take(x).copy_(values)


@dataclass(frozen=True)
class Strip(Units):
    """Units side by side, each a run of consecutive indices, and that several times over.

    A flattened channel has a run of many indices; the units of fused query, key and value come three times over.

    Args:
        start: First index.
        run: Number of consecutive indices of a unit.
        repeats: Number of times that the units come.
        skipped: Number of indices between the last unit and the first one of the next time.
    """

    start: int = 0
    run: int = 1
    repeats: int = 1
    skipped: int = 0

    @property
    @override
    def axis(self) -> int:
        return self.dim + (self.repeats > 1)

    @property
    @override
    def indices(self) -> int:
        return self.repeats * self.width * self.run

    @override
    def take(self, x: Tensor) -> Tensor:
        length, dim = self.width * self.run, self.dim
        if self.repeats > 1:
            # unfold puts the windows' own axis last.
            x = x.narrow(dim, self.start, self.repeats * (length + self.skipped) - self.skipped)
            x = x.unfold(dim, length, length + self.skipped).movedim(-1, dim + 1)
            dim += 1
        else:
            x = x.narrow(dim, self.start, length)
        return x if self.run == 1 else _divided(x, dim, self.width, self.run)

    def some(self, first: int, width: int) -> "Strip":
        """The ``width`` units from number ``first`` on."""
        skipped = self.skipped + (self.width - width) * self.run
        return replace(self, start=self.start + first * self.run, width=width, skipped=skipped)


@dataclass(frozen=True)
class Scattered(Units):
    """Units whose indices lie anywhere, equally many each; the piece is a copy.

    Args:
        order: Indices along ``dim``, unit after unit.
    """

    order: tuple[int, ...]
    _indices: dict[torch.device, Tensor] = field(
        default_factory=dict[torch.device, Tensor], init=False, repr=False, compare=False
    )

    @property
    @override
    def indices(self) -> int:
        return len(self.order)

    def _index(self, device: torch.device) -> Tensor:
        if torch.compiler.is_compiling():
            return torch.tensor(self.order, device=device)
        # Copied to a device once, since nobody may wait for it in a step.
        if device not in self._indices:
            self._indices[device] = torch.tensor(self.order, device=device)
        return self._indices[device]

    @override
    def take(self, x: Tensor) -> Tensor:
        picked = x.index_select(self.dim, self._index(x.device))
        return _divided(picked, self.dim, self.width, len(self.order) // self.width)

    @override
    def put_(self, x: Tensor, values: Tensor) -> None:
        x.index_copy_(self.dim, self._index(x.device), values.flatten(self.dim, self.dim + 1))


def _divided(x: Tensor, dim: int, *lengths: int) -> Tensor:
    """An axis as several, a view of any strided tensor."""
    return x.view(*x.shape[:dim], *lengths, *x.shape[dim + 1 :])


def pack(sized: Iterable[tuple[T, int]], limit: int | None) -> Iterator[list[T]]:
    """Put things together that have about ``limit`` entries.

    Args:
        sized: Things with their numbers of entries.
        limit: Entries at most, unless one thing has more; None for no limit.

    Yields:
        Lists that are not empty and keep the order.
    """
    packed: list[T] = []
    entries = 0
    for thing, size in sized:
        if packed and limit is not None and entries + size > limit:
            yield packed
            packed, entries = [], 0
        packed.append(thing)
        entries += size
    if packed:
        yield packed
