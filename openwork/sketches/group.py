"""Laws over groups of entries."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from openwork.sketches.key import Key
from openwork.sketches.sketch import Constants, Diagonal, DiagonalSketch, Whole, check_diagonal


@final
@dataclass(frozen=True, eq=False)
class Group(DiagonalSketch):
    """A law whose entries are groups: those of one group stay or go together, with one scale.

    Large models draw faster in blocks, and blocks stay contiguous.

    Args:
        law: Over groups.
        groups: Length of blocks of consecutive entries, >= 1, of which the last may be shorter; or int64 ``(size,)``,
            the number of each entry's group, 0, 1, ... without gaps.

    Raises:
        TypeError: If ``law`` is not diagonal, or ``groups`` neither a whole number nor a tensor of such.
        ValueError: If ``groups`` is out of range or has gaps.
    """

    law: DiagonalSketch
    groups: int | Tensor

    def __post_init__(self) -> None:
        check_diagonal("Group", "law", self.law)
        if not isinstance(self.groups, Tensor):
            if type(self.groups) is not int:
                raise TypeError(f"Group: groups must be a length of blocks or a tensor, got {self.groups!r}")
            if self.groups < 1:
                raise ValueError(f"Group: a block must have at least 1 entry, got groups={self.groups}")
            return
        if self.groups.dtype != torch.int64 or self.groups.ndim != 1:
            raise TypeError(
                f"Group: groups must be an int64 vector, got {self.groups.dtype} of shape {tuple(self.groups.shape)}"
            )
        if self.groups.numel() == 0 or int(self.groups.min()) < 0 or int(self.groups.bincount().min()) == 0:
            raise ValueError("Group: groups must be numbered 0, 1, ... without gaps; renumber them with torch.unique")

    # Tensors have no equality that a dataclass could use.
    @override
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Group):
            return NotImplemented
        if isinstance(self.groups, Tensor) and isinstance(other.groups, Tensor):
            return self.law == other.law and torch.equal(self.groups, other.groups)
        tensors = isinstance(self.groups, Tensor) or isinstance(other.groups, Tensor)
        return not tensors and (self.law, self.groups) == (other.law, other.groups)

    @override
    def __hash__(self) -> int:
        groups = tuple(self.groups.shape) if isinstance(self.groups, Tensor) else self.groups
        return hash((Group, self.law, groups))

    @property
    @override
    def complementary(self) -> int:
        return self.law.complementary

    def count(self, size: int) -> int:
        """Number of groups.

        Args:
            size: Numbers in a vector, >= 1.

        Raises:
            ValueError: If the labels are of another size.
        """
        if not isinstance(self.groups, Tensor):
            return -(-size // self.groups)
        if self.groups.numel() != size:
            raise ValueError(
                f"Group: groups has {self.groups.numel()} entries for vectors of {size}; pass one for each"
            )
        return int(self.groups.max()) + 1

    def spread(self, of_groups: Tensor, size: int) -> Tensor:
        """Give every entry what its group has.

        Args:
            of_groups: Along the first axis one for each group.
            size: Numbers in a vector, >= 1.
        """
        if isinstance(self.groups, Tensor):
            return of_groups[self.groups.to(of_groups.device)]
        return of_groups.repeat_interleave(self.groups, dim=0)[:size]

    @override
    def sample(self, key: Key, size: int, device: torch.device | str | None = None) -> Whole | Diagonal:
        return self._spread(self.law.sample(key, self.count(size), device), size)

    @override
    def complements(
        self, key: Key, size: int, device: torch.device | str | None = None
    ) -> tuple[Whole | Diagonal, ...]:
        return tuple(self._spread(draw, size) for draw in self.law.complements(key, self.count(size), device))

    @override
    def inclusion(self, size: int) -> Tensor:
        return self.spread(self.law.inclusion(self.count(size)), size)

    @override
    def pair_matrix(self, size: int) -> Tensor:
        return self._of_pairs(self.law.pair_matrix(self.count(size)), size)

    @override
    def mean_square(self, size: int) -> Tensor:
        return self.spread(self.law.mean_square(self.count(size)), size)

    @override
    def second_moment(self, size: int) -> Tensor:
        return self._of_pairs(self.law.second_moment(self.count(size)), size)

    @override
    def one_scale(self, size: int) -> bool:
        return self.law.one_scale(self.count(size))

    @override
    def largest_scale(self, size: int) -> float:
        return self.law.largest_scale(self.count(size))

    @override
    def constants(self, size: int) -> Constants:
        return self.law.constants(self.count(size))

    def _spread(self, draw: Whole | Diagonal, size: int) -> Whole | Diagonal:
        return draw if isinstance(draw, Whole) else Diagonal(self.spread(draw.diagonal, size), draw.scale)

    def _of_pairs(self, of_groups: Tensor, size: int) -> Tensor:
        return self.spread(self.spread(of_groups, size).T, size).T


__all__ = ["Group"]
