"""Tensors of which every process holds a part, as ``fully_shard`` makes parameters (``torch.distributed.tensor``)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

# torch.distributed.tensor takes longer to import than the rest of this package together, and whoever has a DTensor has
# imported it: its attributes say what it is, and its class makes others.


# What nearly all tensors are, and optimizers ask at every step.
_ORDINARY = (Tensor, nn.Parameter)


@dataclass(frozen=True)
class Ranks:
    """The processes among which a tensor is divided.

    Args:
        group: Their process group.
    """

    group: Any

    @property
    def number(self) -> int:
        """How many they are."""
        return dist.get_world_size(self.group)

    @property
    def here(self) -> int:
        """Number of this process among them."""
        return dist.get_rank(self.group)

    def sum_(self, x: Tensor) -> Tensor:
        """Add the tensors of all of them, in place: afterwards all have the same bits."""
        dist.all_reduce(x, dist.ReduceOp.SUM, self.group)  # pyright: ignore[reportUnknownMemberType]
        return x

    def max_(self, x: Tensor) -> Tensor:
        """The largest of each entry, in place."""
        dist.all_reduce(x, dist.ReduceOp.MAX, self.group)  # pyright: ignore[reportUnknownMemberType]
        return x

    def min_(self, x: Tensor) -> Tensor:
        """The smallest of each entry, in place."""
        dist.all_reduce(x, dist.ReduceOp.MIN, self.group)  # pyright: ignore[reportUnknownMemberType]
        return x

    def gather(self, x: Tensor, lengths: tuple[int, ...]) -> Tensor:
        """The vectors of all of them, one after the other.

        Args:
            x: Vector of this process.
            lengths: Of the vectors of all.

        Returns:
            A vector of ``sum(lengths)`` entries.
        """
        padded = x.new_zeros(max(lengths))
        padded[: len(x)] = x
        found = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(found, padded, self.group)  # pyright: ignore[reportUnknownMemberType]
        return torch.cat([part[:length] for part, length in zip(found, lengths, strict=True)])


@dataclass(frozen=True)
class Division:
    """How a tensor is divided: into stretches along one axis, which processes hold in turn.

    Args:
        mesh: Device mesh.
        placements: Of the tensor on it.
        shape: Of the whole tensor.
        dim: The axis that is divided.
        ranks: The processes among which it is.
        dtype: In which it is computed with, float32 at least.
    """

    mesh: Any
    placements: tuple[Any, ...]
    shape: tuple[int, ...]
    dim: int
    ranks: Ranks
    dtype: torch.dtype = torch.float32

    @property
    def device(self) -> torch.device:
        """Where the parts usually are: numbers that go with them wait there."""
        return torch.device(self.mesh.device_type)

    def bounds(self) -> tuple[tuple[int, int], ...]:
        """First index along ``dim`` and one after the last, for every process; a part may be empty."""
        return shares(self.shape[self.dim], self.ranks.number)

    def shape_of(self, rank: int) -> tuple[int, ...]:
        """Shape of the part of a process."""
        start, stop = self.bounds()[rank]
        return (*self.shape[: self.dim], stop - start, *self.shape[self.dim + 1 :])

    @property
    def local_shape(self) -> tuple[int, ...]:
        """Shape of the part of this process."""
        return self.shape_of(self.ranks.here)

    def here(self, x: Tensor) -> Tensor:
        """The part of this process of a tensor that it has as a whole; a view."""
        start, stop = self.bounds()[self.ranks.here]
        return x.narrow(self.dim, start, stop - start)

    def whole(self, x: Tensor) -> Tensor:
        """The whole of a tensor of which every process has a part; all must ask."""
        return self.wrap(x, self.shape, self.dim).full_tensor()  # pyright: ignore

    def wrap(self, x: Tensor, shape: tuple[int, ...], dim: int) -> Tensor:
        """A DTensor on the same mesh of which every process has a part.

        Args:
            x: The part of this process.
            shape: Of the whole.
            dim: The axis along which it is divided.
        """
        from torch.distributed.tensor import DTensor, Replicate, Shard

        placements = [Replicate() if p.is_replicate() else Shard(dim) for p in self.placements]
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(
            x.contiguous(), self.mesh, placements, run_check=False, shape=torch.Size(shape), stride=stride
        )


def shares(length: int, number: int) -> tuple[tuple[int, int], ...]:
    """How an axis is divided into ``number`` stretches: all are equally long, but for the last ones."""
    step = -(-length // number)
    starts = [min(rank * step, length) for rank in range(number)]
    return tuple((start, min(start + step, length)) for start in starts)


def is_distributed(x: Tensor) -> bool:
    """Whether a tensor is a DTensor."""
    return type(x) not in _ORDINARY and hasattr(x, "device_mesh")


def division(x: Tensor, name: str = "a tensor") -> Division | None:
    """How a tensor is divided; None if this process has all of it.

    Args:
        x: Any tensor.
        name: What to call it in a message.

    Returns:
        The division.

    Raises:
        ValueError: If it is divided along several mesh axes, or otherwise than into stretches.
    """
    if not is_distributed(x):
        return None
    dtensor = cast("Any", x)
    mesh, placements = dtensor.device_mesh, tuple(dtensor.placements)
    divided = [axis for axis, p in enumerate(placements) if not p.is_replicate() and mesh.size(axis) > 1]
    if not divided:
        return None
    if len(divided) > 1 or not placements[divided[0]].is_shard():
        raise ValueError(
            f"{name} is placed as {placements} on a mesh of shape {tuple(mesh.shape)}, and structure needs weights "
            "that are divided along one mesh axis, each into consecutive stretches; shard along one axis only, as "
            "fully_shard does on a mesh with one or two axes (replicate, shard)"
        )
    ranks = Ranks(mesh.get_group(divided[0]))
    dtype = torch.promote_types(x.dtype, torch.float32)
    return Division(mesh, placements, tuple(x.shape), placements[divided[0]].dim % x.ndim, ranks, dtype)


def sharing(divisions: Iterable[Division | None]) -> list[Ranks]:
    """The processes among which tensors are divided: the fewest first, and in the same order in all processes."""
    found = dict.fromkeys(how.ranks for how in divisions if how is not None)
    return sorted(found, key=lambda ranks: ranks.number)


def check_undivided(owner: str, named: Iterable[tuple[str, Tensor]], way_out: str) -> None:
    """Refuse tensors of which other processes have parts.

    Args:
        owner: Who asks, for the message.
        named: Tensors with their names.
        way_out: What to do instead.

    Raises:
        ValueError: If there is one.
    """
    for name, x in named:
        if is_distributed(x):
            raise ValueError(f"{owner}: {name!r} is divided among {x.device_mesh.size()} processes; {way_out}")  # pyright: ignore


def local(x: Tensor) -> Tensor:
    """What this process has of a tensor; writing to it writes the tensor."""
    return x.to_local() if is_distributed(x) else x  # pyright: ignore


def full(x: Tensor) -> Tensor:
    """The whole of a tensor, as a plain one; all processes that have a part must ask."""
    return x.full_tensor() if is_distributed(x) else x  # pyright: ignore


def like(whole: Tensor, x: Tensor) -> Tensor:
    """A tensor that this process has as a whole, divided as another is; that of the first process counts."""
    if not is_distributed(x):
        return full(whole)
    if is_distributed(whole):
        if whole.placements == x.placements:  # pyright: ignore
            return whole
        return whole.redistribute(x.device_mesh, x.placements)  # pyright: ignore
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole.detach(), x.device_mesh, x.placements)  # pyright: ignore


__all__ = [
    "Division",
    "Ranks",
    "check_undivided",
    "division",
    "full",
    "is_distributed",
    "like",
    "local",
    "shares",
    "sharing",
]
