"""Disjoint shares of one random permutation, one for each worker."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import floor
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from openwork.sketches.key import Key
from openwork.sketches.numbers import permutation, uniform
from openwork.sketches.probabilities import check_probabilities
from openwork.sketches.rand_k import pairs
from openwork.sketches.sketch import Constants, Diagonal, DiagonalSketch


@final
@dataclass(frozen=True)
class PermK(DiagonalSketch):
    """Worker i of n keeps the i-th share of one random permutation of the entries, multiplied by n.

    Shares of the workers are disjoint and cover everything, so that the mean of all workers' S is the identity in every
    draw. The worker is that of the key, and all workers with the same other counters share the permutation. If n does
    not divide the size, dummy entries fill it up, so that each share has the same probability; with more workers than
    entries some keep nothing then.

    If n is a multiple of the size d, every worker keeps one entry, multiplied by d, and ``overlap`` = n / d workers the
    same one. The mean of all S is the identity still; shares are not disjoint.

    Workers of unequal capacities get ``shares``: worker i keeps the fraction ``phi_i`` in expectation, multiplied by
    ``1 / phi_i``. The boundaries between shares are rounded together by one random number, so that the probabilities
    are exact, and shares are within one entry of ``phi_i d``. They are disjoint and cover everything. The mean of all S
    is not the identity then, only their sum weighted by ``phi_i`` is, and every worker has its own law: ``constants``
    are those over all workers, the other methods ask which, and laws made of this one ask for worker 0.

    Args:
        workers: n, >= 1.
        shares: ``phi_i`` for each worker, above 0, which sum to 1; equal ones if left out.

    Raises:
        TypeError: If ``workers`` is no whole number.
        ValueError: If ``workers`` is less than 1, or the shares are no probabilities.

    References:
        Szlendak, Tyurin & Richtárik (ICLR 2022), arXiv:2110.03300, definitions 2 and 3.
    """

    workers: int
    shares: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if type(self.workers) is not int:
            raise TypeError(f"PermK: workers must be a whole number of workers, got {self.workers!r}")
        if self.workers < 1:
            raise ValueError(f"PermK: workers must be at least 1, got {self.workers}")
        if self.shares is not None:
            check_probabilities("PermK", "shares", self.shares, self.workers)

    @property
    @override
    def complementary(self) -> int:
        return self.workers

    def overlap(self, size: int) -> int:
        """How many workers keep the same entry: 1 if shares are disjoint.

        Args:
            size: Numbers in a vector, >= 1.
        """
        return self.workers // size if self.shares is None and self.workers % size == 0 else 1

    def scale(self, size: int, worker: int = 0) -> float:
        """What a worker's entries are multiplied by.

        Args:
            size: Numbers in a vector, >= 1.
            worker: Which; it matters if there are shares.

        Raises:
            ValueError: If there is no such worker.
        """
        self._check(worker)
        return 1 / self.shares[worker] if self.shares is not None else self.workers / self.overlap(size)

    def share(self, key: Key, size: int, device: torch.device | str | None = None) -> Tensor:
        """Entries of the key's worker, in rising order; int64.

        Args:
            key: What names the draw.
            size: Numbers in a vector, >= 1.
            device: Where.

        Raises:
            ValueError: If there is no such worker.
        """
        return self._slots(key, size, device).sort().values

    @override
    def sample(self, key: Key, size: int, device: torch.device | str | None = None) -> Diagonal:
        kept = torch.zeros(size, dtype=torch.bool, device=device)
        kept[self._slots(key, size, device)] = True
        return Diagonal(kept, self.scale(size, key.worker))

    @override
    def fixed_count(self, size: int) -> int | None:
        if self.shares is not None or (size % self.workers and self.overlap(size) == 1):
            return None
        return max(1, size // self.workers)

    @override
    def complements(self, key: Key, size: int, device: torch.device | str | None = None) -> tuple[Diagonal, ...]:
        """The draws of all workers; with shares only that of the key's, since the others have other laws.

        Args:
            key: What names them all.
            size: Numbers in the vectors they are for, >= 1.
            device: Where their tensors lie.
        """
        workers = range(self.workers) if self.shares is None else (key.worker,)
        return tuple(self.sample(key.at(worker=worker), size, device) for worker in workers)

    @override
    def inclusion(self, size: int, worker: int = 0) -> Tensor:
        return torch.full((size,), 1 / self.scale(size, worker), dtype=torch.float64)

    @override
    def pair_matrix(self, size: int, worker: int = 0) -> Tensor:
        self._check(worker)
        if self.shares is not None:
            mean = self.shares[worker] * size
            # One of two neighboring whole numbers, the larger one with probability mean - floor(mean).
            return pairs(mean, floor(mean) * (2 * mean - floor(mean) - 1), size)
        if self.overlap(size) > 1:
            return pairs(1, 0, size)
        each = -(-size // self.workers)
        slots = each * self.workers
        both = each * (each - 1) / (slots * (slots - 1)) if slots > 1 else 0.0
        return pairs(size / self.workers, size * (size - 1) * both, size)

    @override
    def mean_square(self, size: int, worker: int = 0) -> Tensor:
        return 1 / self.inclusion(size, worker)

    @override
    def second_moment(self, size: int, worker: int = 0) -> Tensor:
        p = self.inclusion(size, worker)
        return self.pair_matrix(size, worker) / torch.outer(p, p)

    @override
    def one_scale(self, size: int) -> bool:
        return self.shares is None or len(set(self.shares)) == 1

    @override
    def largest_scale(self, size: int) -> float:
        return self.constants(size).largest ** 0.5

    @override
    def constants(self, size: int) -> Constants:
        scales = [self.scale(size, worker) for worker in range(self.workers if self.shares is not None else 1)]
        return Constants(max(scales) ** 2, max(scales), min(scales))

    def _check(self, worker: int) -> None:
        if worker >= self.workers:
            raise ValueError(f"PermK: worker {worker} of {self.workers}; workers count from 0, raise workers")

    def _slots(self, key: Key, size: int, device: torch.device | str | None) -> Tensor:
        """Entries of the key's worker, in the order of the permutation."""
        self._check(key.worker)
        shared = key.at(worker=0)
        if self.shares is not None:
            shift = float(uniform(shared.at(family=f"{key.family}/shift"), 1))
            # The last boundary is the size, whatever the rounding of the sum.
            bounds = [0.0, *(size * total for total in accumulate(self.shares[:-1])), float(size)]
            first, last = (floor(bounds[at] + shift) for at in (key.worker, key.worker + 1))
            return _order(shared, size, device)[first:last]
        overlap = self.overlap(size)
        if overlap > 1:
            return _order(shared, self.workers, device)[key.worker : key.worker + 1] % size
        each = -(-size // self.workers)
        mine = _order(shared, each * self.workers, device)[key.worker * each : (key.worker + 1) * each]
        return mine[mine < size]


@lru_cache(maxsize=1)
def _order(shared: Key, slots: int, device: torch.device | str | None) -> Tensor:
    # Whoever asks for the share of one worker asks for those of the others next.
    return permutation(shared, slots, device)


__all__ = ["PermK"]
