"""One of several laws at random."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from openwork.sketches.key import Key
from openwork.sketches.probabilities import check_probabilities, pick
from openwork.sketches.sketch import Diagonal, DiagonalSketch, Whole, check_diagonal


@final
@dataclass(frozen=True)
class Mixture(DiagonalSketch):
    """A draw of one of several laws, chosen at random, with the scale of that law.

    Over keep-ratios, ``Mixture((RandK(0.25), RandK(0.5)), (0.5, 0.5))``, or of dense and sparse steps,
    ``Mixture((Identity(), RandK(0.1)), (0.2, 0.8))``. Each worker chooses for itself.

    Args:
        sketches: The laws, at least one.
        weights: Their probabilities, which sum to 1.

    Raises:
        TypeError: If one of ``sketches`` is not diagonal.
        ValueError: If the probabilities are none, or not one for each law.
    """

    sketches: tuple[DiagonalSketch, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        for position, law in enumerate(self.sketches):
            check_diagonal("Mixture", f"sketches[{position}]", law)
        check_probabilities("Mixture", "weights", self.weights, len(self.sketches))

    @override
    def sample(self, key: Key, size: int, device: torch.device | str | None = None) -> Whole | Diagonal:
        choice = pick(key.at(family=f"{key.family}/choice"), torch.tensor(self.weights, dtype=torch.float64))
        return self.sketches[choice].sample(key, size, device)

    @override
    def inclusion(self, size: int) -> Tensor:
        return self._mean([law.inclusion(size) for law in self.sketches])

    @override
    def pair_matrix(self, size: int) -> Tensor:
        return self._mean([law.pair_matrix(size) for law in self.sketches])

    @override
    def mean_square(self, size: int) -> Tensor:
        return self._mean([law.mean_square(size) for law in self.sketches])

    @override
    def second_moment(self, size: int) -> Tensor:
        return self._mean([law.second_moment(size) for law in self.sketches])

    @override
    def largest_scale(self, size: int) -> float:
        return max(law.largest_scale(size) for law in self.sketches)

    def _mean(self, of_each: list[Tensor]) -> Tensor:
        return torch.stack([weight * one for weight, one in zip(self.weights, of_each, strict=True)]).sum(0)


__all__ = ["Mixture"]
