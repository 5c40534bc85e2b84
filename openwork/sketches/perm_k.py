"""Disjoint shares of one random permutation, one for each worker."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from openwork.sketches.key import Key
from openwork.sketches.numbers import permutation
from openwork.sketches.sketch import Diagonal, DiagonalSketch


@final
@dataclass(frozen=True)
class PermK(DiagonalSketch):
    """Worker i of n keeps the i-th share of one random permutation of the entries, multiplied by n.

    Shares of the workers are disjoint and cover everything, so that the mean of all workers' S is the identity in every
    draw. The worker is that of the key, and all workers with the same other counters share the permutation. If n does
    not divide the size, dummy entries fill it up, so that each share has the same probability.

    Args:
        workers: n, >= 1.

    Raises:
        ValueError: If ``workers`` is less than 1.

    References:
        Szlendak, Tyurin & Richtárik (ICLR 2022), arXiv:2110.03300, definition 2.
    """

    workers: int

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"PermK: workers must be at least 1, got {self.workers}")

    def share(self, key: Key, size: int, device: torch.device | str | None = None) -> Tensor:
        """Entries of the key's worker, in rising order; int64.

        Args:
            key: What names the draw.
            size: Numbers in a vector, >= 1.
            device: Where.

        Raises:
            ValueError: If there is no such worker.
        """
        if key.worker >= self.workers:
            raise ValueError(f"PermK: worker {key.worker} of {self.workers}; workers count from 0, raise workers")
        each = -(-size // self.workers)
        order = permutation(key.at(worker=0), each * self.workers, device)
        mine = order[key.worker * each : (key.worker + 1) * each]
        return mine[mine < size].sort().values

    @override
    def sample(self, key: Key, size: int, device: torch.device | str | None = None) -> Diagonal:
        weights = torch.zeros(size, dtype=torch.float64, device=device)
        weights[self.share(key, size, device)] = float(self.workers)
        return Diagonal(weights)

    @override
    def complements(self, key: Key, size: int, device: torch.device | str | None = None) -> tuple[Diagonal, ...]:
        """The shares of all workers.

        Args:
            key: What names them all.
            size: Numbers in the vectors they are for, >= 1.
            device: Where their tensors lie.
        """
        return tuple(self.sample(key.at(worker=worker), size, device) for worker in range(self.workers))

    @override
    def inclusion(self, size: int) -> Tensor:
        return torch.full((size,), 1 / self.workers, dtype=torch.float64)

    @override
    def pair_matrix(self, size: int) -> Tensor:
        each = -(-size // self.workers)
        slots = each * self.workers
        both = each * (each - 1) / (slots * (slots - 1)) if slots > 1 else 1.0
        return torch.full((size, size), both, dtype=torch.float64).fill_diagonal_(1 / self.workers)


__all__ = ["PermK"]
