"""A finite list of draws."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from openwork.sketches.group import Group
from openwork.sketches.key import Key
from openwork.sketches.perm_k import PermK
from openwork.sketches.probabilities import check_probabilities, pick
from openwork.sketches.sketch import Diagonal, DiagonalSketch, Whole, diagonal_of


@final
@dataclass(frozen=True, eq=False)
class Pool(DiagonalSketch):
    """One of N draws: a law over which means are exact, as methods of variance reduction need them.

    ``E[S] = I`` holds exactly if the pool was made of whole permutations, ``Pool.of(PermK(n), ...)``; a pool of other
    draws only comes close to the law that they are from. Pools are equal if they are the same object.

    Args:
        draws: The members, all of vectors of one size.
        weights: Probabilities of the members; equal ones if left out.

    Raises:
        ValueError: If there is no draw, the draws are of several sizes, some entry is kept by none, or the
            probabilities are none.
    """

    draws: tuple[Whole | Diagonal, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_probabilities("Pool", "weights", self.probabilities.tolist(), len(self.draws))
        sizes = {draw.diagonal.numel() for draw in self.draws if isinstance(draw, Diagonal)}
        if len(sizes) > 1:
            raise ValueError(f"Pool: draws must be of vectors of one size, got {sorted(sizes)}")
        for size in sizes:
            never = (self._rows(size) == 0).all(0).nonzero()
            if never.numel():
                raise ValueError(
                    f"Pool: no draw keeps entry {int(never[0])}, which is never trained then; take more draws"
                )

    @classmethod
    def of(cls, law: DiagonalSketch, key: Key, size: int, count: int) -> "Pool":
        """Draw a pool.

        Args:
            law: Of the members. Of one with complementary draws, such as ``PermK``, all workers' draws are taken, so
                that the mean of the pool is exactly the identity.
            key: What names the pool.
            size: Numbers in a vector, >= 1.
            count: N, the number of members; a multiple of the number of complementary draws.

        Returns:
            The pool; if the law has shares, its members are weighted by them.

        Raises:
            ValueError: If ``count`` is less than 1 or not such a multiple, or some entry is kept by no member.
        """
        each = law.complementary
        if count < 1 or count % each:
            raise ValueError(f"Pool: count must be a positive multiple of {each} complementary draws, got {count}")
        keys = [key.at(draw=draw, worker=worker) for draw in range(count // each) for worker in range(each)]
        shares = _shares(law)
        weights = None if shares is None else tuple(share * each / count for share in shares) * (count // each)
        return cls(tuple(law.sample(one, size) for one in keys), weights)

    @property
    def probabilities(self) -> Tensor:
        """Of the members, float64 ``(N,)``."""
        equal = self.weights is None
        values = [1 / max(1, len(self.draws))] * len(self.draws) if equal else list(self.weights or ())
        return torch.tensor(values, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.draws)

    def __getitem__(self, index: int) -> Whole | Diagonal:
        return self.draws[index]

    def __iter__(self) -> Iterator[Whole | Diagonal]:
        return iter(self.draws)

    def index(self, key: Key, probabilities: Tensor | None = None) -> int:
        """Choose a member.

        Args:
            key: What names the choice.
            probabilities: With which, float64 ``(N,)``, which sum to 1; those of the pool if left out. With others a
                member counts ``multipliers(probabilities)`` times.
        """
        return pick(key, self.probabilities if probabilities is None else probabilities)

    def importance(self, smoothness: Tensor) -> Tensor:
        """Best probabilities, ``q_s`` in proportion to ``w_s L_s``, which lower the largest ``L_s`` to their mean.

        Args:
            smoothness: ``L_s`` of each member's loss, > 0, float64 ``(N,)``.

        Raises:
            ValueError: If there is not one for each member, or one is not above 0.
        """
        if tuple(smoothness.shape) != (len(self.draws),) or not bool((smoothness > 0).all()):
            raise ValueError(f"Pool: smoothness must be {len(self.draws)} numbers above 0, got {smoothness.tolist()}")
        q = self.probabilities * smoothness.to(torch.float64)
        return q / q.sum()

    def multipliers(self, probabilities: Tensor) -> Tensor:
        """``w_s / q_s``, by which the gradient of a member is multiplied when it was chosen with probability ``q_s``.

        Args:
            probabilities: ``q_s``, float64 ``(N,)``.

        Raises:
            ValueError: If these are not N probabilities.
        """
        check_probabilities("Pool", "probabilities", probabilities.tolist(), len(self.draws))
        return self.probabilities / probabilities

    @override
    def sample(self, key: Key, size: int, device: torch.device | str | None = None) -> Whole | Diagonal:
        self._check(size)
        draw = self.draws[self.index(key)]
        return draw if isinstance(draw, Whole) or device is None else Diagonal(draw.diagonal.to(device), draw.scale)

    def mean(self, size: int) -> Tensor:
        """The diagonal of ``E[S]``, float64 ``(size,)``: ones if the pool was made of whole permutations.

        Args:
            size: Numbers in a vector, >= 1.
        """
        return self.probabilities @ self._rows(size)

    @override
    def inclusion(self, size: int) -> Tensor:
        return self.probabilities @ (self._rows(size) != 0).to(torch.float64)

    @override
    def pair_matrix(self, size: int) -> Tensor:
        kept = (self._rows(size) != 0).to(torch.float64)
        return kept.T @ (self.probabilities[:, None] * kept)

    @override
    def mean_square(self, size: int) -> Tensor:
        return self.probabilities @ self._rows(size).square()

    @override
    def second_moment(self, size: int) -> Tensor:
        rows = self._rows(size)
        return rows.T @ (self.probabilities[:, None] * rows)

    @override
    def largest_scale(self, size: int) -> float:
        return float(self._rows(size).max())

    def _check(self, size: int) -> None:
        for draw in self.draws:
            if isinstance(draw, Diagonal) and draw.diagonal.numel() != size:
                raise ValueError(f"Pool: its draws are of vectors of {draw.diagonal.numel()}, not of {size}")

    def _rows(self, size: int) -> Tensor:
        """The diagonals, float64 ``(N, size)``."""
        self._check(size)
        return torch.stack([diagonal_of(draw, size).cpu() for draw in self.draws])


def _shares(law: DiagonalSketch) -> tuple[float, ...] | None:
    if isinstance(law, Group):
        return _shares(law.law)
    return law.shares if isinstance(law, PermK) else None


__all__ = ["Pool"]
