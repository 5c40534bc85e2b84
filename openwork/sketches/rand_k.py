"""Uniform subsets of a fixed size."""

from dataclasses import dataclass
from math import ceil
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from openwork.sketches.key import Key
from openwork.sketches.numbers import permutation, subset
from openwork.sketches.sketch import Diagonal, DiagonalSketch


def part(ratio: float, size: int) -> int:
    """A fraction of some entries, the next whole number, at least 1.

    Args:
        ratio: In (0, 1].
        size: Of how many.
    """
    # A fraction such as 0.1 of 30 must not become 4 by rounding.
    return max(1, ceil(ratio * size - 1e-9))


def pairs(k: float, both: float, size: int) -> Tensor:
    """The pair matrix of a law that treats all entries alike.

    Args:
        k: Mean number of entries kept.
        both: Mean number of ordered pairs of different entries kept.
        size: Out of how many.
    """
    off = both / (size * (size - 1)) if size > 1 else 0.0
    return torch.full((size, size), off, dtype=torch.float64).fill_diagonal_(k / size)


@final
@dataclass(frozen=True)
class RandK(DiagonalSketch):
    """A uniformly random subset of K of d entries, multiplied by d / K.

    Args:
        keep: K as a whole number >= 1, or as a fraction of d in (0, 1], of which the next whole number is taken.

    Raises:
        TypeError: If ``keep`` is no number.
        ValueError: If ``keep`` is out of range.

    References:
        Demidovich et al. (ICLR 2025), arXiv:2311.16086.
    """

    keep: int | float

    def __post_init__(self) -> None:
        if isinstance(self.keep, bool) or not isinstance(self.keep, (int, float)):
            raise TypeError(
                f"RandK: keep must be a whole number of entries, or a fraction in (0, 1], got {self.keep!r}"
            )
        if isinstance(self.keep, int):
            if self.keep < 1:
                raise ValueError(f"RandK: keep must be at least 1 entry, got {self.keep}")
        elif not 0 < self.keep <= 1:
            raise ValueError(f"RandK: keep must be a whole number of entries, or a fraction in (0, 1], got {self.keep}")

    def kept(self, size: int) -> int:
        """K for vectors of a size.

        Args:
            size: Numbers in a vector, >= 1.

        Raises:
            ValueError: If K is larger.
        """
        if isinstance(self.keep, int) and self.keep > size:
            raise ValueError(f"RandK: keep={self.keep} entries of {size}; take at most {size}, or a fraction")
        return self.keep if isinstance(self.keep, int) else part(self.keep, size)

    @override
    def sample(self, key: Key, size: int, device: torch.device | str | None = None) -> Diagonal:
        k = self.kept(size)
        return Diagonal(subset(key, k, size, device), size / k)

    @override
    def fixed_count(self, size: int) -> int:
        return self.kept(size)

    @override
    def complements(self, key: Key, size: int, device: torch.device | str | None = None) -> tuple[Diagonal, ...]:
        """Disjoint subsets, as many as fit; if K divides d their mean is the identity.

        Args:
            key: What names them all.
            size: Numbers in the vectors they are for, >= 1.
            device: Where their tensors lie.
        """
        k = self.kept(size)
        shares = permutation(key, size, device)[: size // k * k].view(-1, k)
        kept = torch.zeros(len(shares), size, dtype=torch.bool, device=device).scatter_(1, shares, True)
        return tuple(Diagonal(one, size / k) for one in kept)

    @override
    def inclusion(self, size: int) -> Tensor:
        return torch.full((size,), self.kept(size) / size, dtype=torch.float64)

    @override
    def pair_matrix(self, size: int) -> Tensor:
        k = self.kept(size)
        return pairs(k, k * (k - 1), size)


__all__ = ["RandK", "pairs", "part"]
