"""Cut parameters into pieces that are updated together."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

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
        penalty: For the list of the tensors; of the kind that the optimizer needs, as the one it was split from.
        owners: The parameter each piece belongs to.
        tensors: Lists of views that match ``owners``, by name: ``"weight"``, ``"grad"`` and state.
    """

    penalty: Any
    owners: list[Tensor] = field(default_factory=list[Tensor])
    tensors: dict[str, list[Tensor]] = field(default_factory=dict[str, list[Tensor]])

    def __getitem__(self, name: str) -> list[Tensor]:
        return self.tensors[name]


def batches(rows: Iterable[tuple[Tensor, dict[str, Tensor]]], penalty: Penalty, limit: int | None) -> Iterator[Batch]:
    """Sort parameters and their state into batches of about ``limit`` entries.

    Args:
        rows: Parameters, each with tensors of its shape, or of that of the part that this process has.
        penalty: Says where a parameter may be cut.
        limit: Entries in a batch; None for one batch of everything, 0 for one batch per parameter.

    Yields:
        Batches that hold every entry once, the pieces of a parameter in order.
    """
    rows = list(rows)
    for part in penalty.split([tensors["param"].shape for _, tensors in rows], limit):
        batch = Batch(part.penalty)
        for piece in part.pieces:
            owner, tensors = rows[piece.position]
            batch.owners.append(owner)
            for name, tensor in tensors.items():
                batch.tensors.setdefault(name, []).append(piece.take(tensor))
        yield batch
