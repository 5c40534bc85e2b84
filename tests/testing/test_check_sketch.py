"""The contract check notices laws that are almost right."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor
from typing_extensions import override

from openwork.sketches import Constants, Diagonal, DiagonalSketch, Draw, Key, RandK, Sketch, Whole
from openwork.testing import check_sketch


@dataclass(frozen=True)
class Half(DiagonalSketch):
    """A law that keeps half of the entries, made wrong by subclasses."""

    @override
    def sample(self, key: Key, size: int, device: torch.device | str | None = None) -> Whole | Diagonal:
        return RandK(0.5).sample(key, size, device)

    @override
    def inclusion(self, size: int) -> Tensor:
        return RandK(0.5).inclusion(size)

    @override
    def pair_matrix(self, size: int) -> Tensor:
        return RandK(0.5).pair_matrix(size)


class Unscaled(Half):
    @override
    def sample(self, key: Key, size: int, device: torch.device | str | None = None) -> Diagonal:
        return Diagonal(RandK(0.5).sample(key, size).kept)


class GlobalState(Half):
    @override
    def sample(self, key: Key, size: int, device: torch.device | str | None = None) -> Diagonal:
        return RandK(0.5).sample(key.at(draw=int(torch.randint(99, ()))), size)


@dataclass(frozen=True)
class Counting(Half):
    calls: list[int] = field(default_factory=list)

    @override
    def sample(self, key: Key, size: int, device: torch.device | str | None = None) -> Diagonal:
        self.calls.append(1)
        return RandK(0.5).sample(key.at(draw=len(self.calls)), size)


class AlwaysTheSame(Half):
    @override
    def sample(self, key: Key, size: int, device: torch.device | str | None = None) -> Diagonal:
        return RandK(0.5).sample(Key(0), size)


class SameForAllWorkers(Half):
    @override
    def sample(self, key: Key, size: int, device: torch.device | str | None = None) -> Diagonal:
        return RandK(0.5).sample(key.at(worker=0), size)


class SameForAllFamilies(Half):
    @override
    def sample(self, key: Key, size: int, device: torch.device | str | None = None) -> Diagonal:
        return RandK(0.5).sample(key.at(family=""), size)


class Independent(Half):
    @override
    def pair_matrix(self, size: int) -> Tensor:
        return torch.full((size, size), 0.25, dtype=torch.float64).fill_diagonal_(0.5)


class SmallConstants(Half):
    @override
    def largest_scale(self, size: int) -> float:
        return 1.5


class LooseConstants(Half):
    @override
    def constants(self, size: int) -> Constants:
        return Constants(4.0, 3.0, 2.0)


@dataclass(frozen=True, eq=False)
class Leaking(Draw):
    """Zeros by multiplication, which are none for infinite entries; not its own adjoint."""

    weights: Tensor
    factor: float

    @override
    def apply(self, x: Tensor) -> Tensor:
        return x * self.weights.to(x.dtype)

    @override
    def adjoint(self, x: Tensor) -> Tensor:
        return self.factor * self.apply(x)


@dataclass(frozen=True)
class WrongAdjoint(Sketch):
    @override
    def sample(self, key: Key, size: int, device: torch.device | str | None = None) -> Draw:
        return Leaking(RandK(0.5).sample(key, size).weights, 1.01)

    @override
    def constants(self, size: int) -> Constants:
        return RandK(0.5).constants(size)


@dataclass(frozen=True)
class WrongConstants(WrongAdjoint):
    @override
    def sample(self, key: Key, size: int, device: torch.device | str | None = None) -> Draw:
        return Leaking(RandK(0.5).sample(key, size).weights, 1.0)

    @override
    def constants(self, size: int) -> Constants:
        return Constants(4.0, 1.5, 1.0)


BROKEN: list[tuple[Sketch, str]] = [
    (Unscaled(), r"E\[S\] of .* is 0\.\d+ .*, not 1"),
    (GlobalState(), "changes the global random state"),
    (Counting(), "with the same key differ"),
    (AlwaysTheSame(), "are the same at all steps"),
    (SameForAllWorkers(), "are the same for all workers"),
    (SameForAllFamilies(), "are the same for all families"),
    (Independent(), "pair_matrix of .* is"),
    (SmallConstants(), "largest is 2.25, but a draw has 4"),
    (LooseConstants(), "convex or smooth of .* is wrong|constants of"),
    (WrongAdjoint(), "adjoint of a draw of .* is none"),
    (WrongConstants(), r"but E\|\|S x\|\|\^2 = "),
]


@pytest.mark.parametrize(("law", "message"), BROKEN, ids=[type(law).__name__ for law, _ in BROKEN])
def test_a_broken_law_is_found(law: Sketch, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_sketch(law, 4)


def test_what_it_is_made_from_is_not_broken() -> None:
    check_sketch(Half(), 4)
