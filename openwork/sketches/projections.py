"""Projections on random subspaces."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from openwork.sketches.key import Key
from openwork.sketches.numbers import normal
from openwork.sketches.sketch import Constants, Draw, Sketch


@final
@dataclass(frozen=True, eq=False)
class Projection(Draw):
    """``S = scale Q Qᵀ``, along one axis of a tensor.

    Args:
        basis: Q, float64 ``(size, rank)``, with orthonormal columns.
        scale: What the projection is multiplied by.
        axis: Along which S acts, on each line alike.
    """

    basis: Tensor
    scale: float
    axis: int

    @override
    def apply(self, x: Tensor) -> Tensor:
        q = self.basis.to(x.dtype)
        return ((x.movedim(self.axis, -1) @ q) @ q.T * self.scale).movedim(-1, self.axis)

    @override
    def adjoint(self, x: Tensor) -> Tensor:
        return self.apply(x)


@final
@dataclass(frozen=True)
class RandomProjection(Sketch):
    """``S = (d / r) Q Qᵀ`` on d entries, for a uniformly random subspace of dimension r with the orthonormal basis Q.

    Draws of the back end ``"hash"`` are the same on every device up to rounding.

    Args:
        rank: r, >= 1.

    Raises:
        ValueError: If ``rank`` is less than 1.
    """

    rank: int

    def __post_init__(self) -> None:
        _check_rank("RandomProjection", self.rank)

    @override
    def sample(self, key: Key, size: int, device: torch.device | str | None = None) -> Projection:
        return _projection("RandomProjection", self.rank, key, size, device, axis=0)

    @override
    def constants(self, size: int) -> Constants:
        return _constants("RandomProjection", self.rank, size)


@final
@dataclass(frozen=True)
class RightProjection(Sketch):
    """``D -> (n / r) D Q Qᵀ`` for matrices D with n inputs, Q as in ``RandomProjection``: what is trained has rank r.

    It acts along dimension 1 of tensors ``(out, in, ...)``, hence on matrices and convolutions, not on biases. As
    ``D Q`` is what is trained, this is LoRA with one random factor that stays as it is.

    Args:
        rank: r, >= 1.

    Raises:
        ValueError: If ``rank`` is less than 1.

    References:
        Malinovsky et al., RAC-LoRA (2024), arXiv:2410.08305.
    """

    axis: ClassVar[int | None] = 1

    rank: int

    def __post_init__(self) -> None:
        _check_rank("RightProjection", self.rank)

    @override
    def sample(self, key: Key, size: int, device: torch.device | str | None = None) -> Projection:
        return _projection("RightProjection", self.rank, key, size, device, axis=1)

    @override
    def constants(self, size: int) -> Constants:
        return _constants("RightProjection", self.rank, size)


def _check_rank(place: str, rank: int) -> None:
    if rank < 1:
        raise ValueError(f"{place}: rank must be at least 1, got {rank}")


def _check_size(place: str, rank: int, size: int) -> None:
    if rank > size:
        raise ValueError(f"{place}: rank={rank} in {size} dimensions; take at most {size}")


def _projection(
    place: str, rank: int, key: Key, size: int, device: torch.device | str | None, *, axis: int
) -> Projection:
    _check_size(place, rank, size)
    q, r = torch.linalg.qr(normal(key, size * rank, device).view(size, rank))
    # Signs that make R's diagonal positive: without them Q is not uniform, and depends on the library.
    return Projection(q * torch.where(r.diagonal() < 0, -1.0, 1.0), size / rank, axis)


def _constants(place: str, rank: int, size: int) -> Constants:
    _check_size(place, rank, size)
    return Constants((size / rank) ** 2, size / rank, size / rank)


__all__ = ["Projection", "RandomProjection", "RightProjection"]
