"""Batches from memory: fast, and the same ones whenever and wherever they are drawn."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from openwork.data.generators import generator
from openwork.data.splits import Split

Transform = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True, eq=False)
class Batches:
    """Batches of a split, epoch by epoch.

    The order in epoch e is a pure function of ``seed`` and e, so a run can begin at any batch of any epoch. With
    ``world`` processes, batch k of all of them together holds the samples of batch k of one process with
    ``world * batch_size``; the last ``N mod world`` samples of an epoch's order are left out, so that every process
    gets as many as the others.

    Args:
        split: Samples to draw from; batches are on its device.
        batch_size: Samples in a batch of this process.
        seed: Of the orders and of ``transform``.
        shuffle: Draw a new order each epoch; else keep that of the split.
        drop_last: Leave out a last batch that is not full.
        transform: Applied to the inputs of a batch, with a CPU generator that is a pure function of ``seed``, epoch,
            batch and rank.
        rank: Which of the processes this is, 0 to ``world - 1``.
        world: Number of processes that share an epoch.

    Raises:
        ValueError: If ``batch_size`` or ``world`` is less than 1, ``rank`` is not below ``world``, or no batch would
            be left.
    """

    split: Split
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    drop_last: bool = False
    transform: Transform | None = None
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"Batches: batch_size must be at least 1, got {self.batch_size}")
        if not 0 <= self.rank < self.world:
            raise ValueError(f"Batches: rank must be in 0 to world - 1 = {self.world - 1}, got {self.rank}")
        if len(self) == 0:
            raise ValueError(
                f"Batches: {len(self.split)} samples make no batch of {self.batch_size} in each of {self.world} "
                "processes; take a smaller batch_size"
            )

    def __len__(self) -> int:
        """Batches in an epoch of this process."""
        own = len(self.split) // self.world
        return own // self.batch_size if self.drop_last else -(-own // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets of the batches ``start``, ``start + 1``, ... of an epoch.

        Args:
            epoch: Counted from 0.
            start: First batch, counted from 0.

        Yields:
            Inputs ``(batch_size, ...)`` and targets ``(batch_size, ...)``; the last batch may be smaller.
        """
        rows = torch.split(self._order(epoch), self.batch_size)
        for batch in range(start, len(self)):
            inputs = self.split.inputs.index_select(0, rows[batch])
            if self.transform is not None:
                inputs = self.transform(inputs, generator("transform", self.seed, epoch, batch, self.rank))
            yield inputs, self.split.targets.index_select(0, rows[batch])

    def _order(self, epoch: int) -> Tensor:
        total = len(self.split)
        if self.shuffle:
            order = torch.randperm(total, generator=generator("order", self.seed, epoch))
        else:
            order = torch.arange(total)
        # Every world-th sample, so that the processes' batches k together are batch k of one process.
        own = order[self.rank :: self.world][: total // self.world]
        return own.contiguous().to(self.split.targets.device)
