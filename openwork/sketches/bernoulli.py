"""Independent entries, as in dropout."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from openwork.sketches.key import Key
from openwork.sketches.numbers import chosen, uniform
from openwork.sketches.sketch import Diagonal, DiagonalSketch


@final
@dataclass(frozen=True, eq=False)
class Bernoulli(DiagonalSketch):
    """Every entry is kept with probability p, independently, and multiplied by 1 / p.

    Args:
        p: In (0, 1]: one number, or a tensor ``(size,)`` with one for each entry.

    Raises:
        ValueError: If ``p`` is out of range, or a tensor that is no vector.

    References:
        Demidovich et al. (ICLR 2025), arXiv:2311.16086.
    """

    p: float | Tensor

    def __post_init__(self) -> None:
        p = torch.as_tensor(self.p, dtype=torch.float64)
        if isinstance(self.p, Tensor) and self.p.ndim != 1:
            raise ValueError(f"Bernoulli: p must be a number or a vector, got shape {tuple(self.p.shape)}")
        wrong = p[~((p > 0) & (p <= 1))]
        if wrong.numel():
            raise ValueError(
                f"Bernoulli: p must be in (0, 1], got {wrong[0].item()}; an entry that is never kept is never trained"
            )

    # Tensors have no equality that a dataclass could use.
    @override
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Bernoulli):
            return NotImplemented
        if isinstance(self.p, Tensor) and isinstance(other.p, Tensor):
            return torch.equal(self.p, other.p)
        return not isinstance(self.p, Tensor) and not isinstance(other.p, Tensor) and self.p == other.p

    @override
    def __hash__(self) -> int:
        return hash((Bernoulli, tuple(self.p.shape) if isinstance(self.p, Tensor) else self.p))

    def _check(self, size: int) -> None:
        if isinstance(self.p, Tensor) and self.p.numel() != size:
            raise ValueError(f"Bernoulli: p has {self.p.numel()} entries for vectors of {size}; pass one for each")

    @override
    def sample(self, key: Key, size: int, device: torch.device | str | None = None) -> Diagonal:
        self._check(size)
        kept = chosen(key, self.p, size, device)
        if not isinstance(self.p, Tensor):
            return Diagonal(kept, 1 / self.p)
        return Diagonal(torch.where(kept, 1 / self.p.to(device=kept.device, dtype=torch.float64), 0.0))

    @override
    def complements(self, key: Key, size: int, device: torch.device | str | None = None) -> tuple[Diagonal, ...]:
        """Masks that keep an entry where its uniform number, moved on around a circle, is below p.

        Args:
            key: What names them all.
            size: Numbers in the vectors they are for, >= 1.
            device: Where their tensors lie.
        """
        self._check(size)
        p = torch.as_tensor(self.p, dtype=torch.float64, device=device)
        u, count = uniform(key, size, device), max(2, int(1 / p.max() + 1e-9))
        kept = [(u + at / count).remainder(1) < p for at in range(count)]
        return tuple(Diagonal(torch.where(one, 1 / p, 0.0)) for one in kept)

    @override
    def inclusion(self, size: int) -> Tensor:
        self._check(size)
        if isinstance(self.p, Tensor):
            return self.p.to(device="cpu", dtype=torch.float64, copy=True)
        return torch.full((size,), self.p, dtype=torch.float64)

    @override
    def pair_matrix(self, size: int) -> Tensor:
        p = self.inclusion(size)
        return torch.outer(p, p).diagonal_scatter(p)


__all__ = ["Bernoulli"]
