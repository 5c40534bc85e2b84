"""Cut parameters into pieces that are updated together."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from openwork.penalties import Penalty

# Entries updated together. Temporaries should stay in the caches on the CPU, but a large matrix cut into short rows
# loses more than it gains; a device should be full, and its scratch memory bounded all the same.
CPU_ENTRIES = 1 << 20
DEVICE_ENTRIES = 1 << 24


@dataclass
class Batch:
    """Tensors updated together: whole parameters, or pieces of large ones cut between groups.

    Args:
        owners: The parameter each piece belongs to.
        tensors: Lists of views that match ``owners``, by name: ``"weight"``, ``"grad"`` and state.
    """

    owners: list[Tensor] = field(default_factory=list[Tensor])
    tensors: dict[str, list[Tensor]] = field(default_factory=dict[str, list[Tensor]])

    def __getitem__(self, name: str) -> list[Tensor]:
        return self.tensors[name]

    def append(self, owner: Tensor, tensors: dict[str, Tensor]) -> None:
        """Add a piece."""
        self.owners.append(owner)
        for name, tensor in tensors.items():
            self.tensors.setdefault(name, []).append(tensor)


def batches(rows: Iterable[tuple[Tensor, dict[str, Tensor]]], penalty: Penalty, limit: int | None) -> Iterator[Batch]:
    """Sort parameters and their state into batches of about ``limit`` entries.

    Args:
        rows: Parameters, each with tensors of its shape.
        penalty: Says where a parameter may be cut.
        limit: Entries in a batch; None for one batch of everything, 0 for one batch per parameter.

    Yields:
        Batches that hold every entry once, the pieces of a parameter in order.
    """
    batch, entries = Batch(), 0
    for owner, tensors in rows:
        for piece, size in _pieces(owner, tensors, penalty, limit):
            if batch.owners and limit is not None and entries + size > limit:
                yield batch
                batch, entries = Batch(), 0
            batch.append(owner, piece)
            entries += size
    if batch.owners:
        yield batch


def _pieces(
    owner: Tensor, tensors: dict[str, Tensor], penalty: Penalty, limit: int | None
) -> Iterator[tuple[dict[str, Tensor], int]]:
    size = owner.numel()
    cut = penalty.cut(owner.shape) if limit and size > limit and penalty.separable else None
    if cut is None or not limit:
        yield tensors, size
        return
    row = prod(owner.shape) // owner.shape[cut.dim]
    length = max(1, limit // (row * cut.unit)) * cut.unit
    for start in range(0, owner.shape[cut.dim], length):
        stop = min(start + length, owner.shape[cut.dim])
        piece = {name: torch.narrow(tensor, cut.dim, start, stop - start) for name, tensor in tensors.items()}
        yield piece, row * (stop - start)
