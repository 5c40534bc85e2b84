"""What penalties around another penalty share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor
from typing_extensions import override

from openwork.kernels import Scalar
from openwork.partitions import Cut, Partition
from openwork.penalties.base import DiagonalProx, Penalty, Solution
from openwork.structure import Structure


@dataclass(frozen=True)
class Wrapper(DiagonalProx):
    """A penalty around another, which answers whatever a subclass does not.

    Args:
        penalty: The one inside.
    """

    penalty: Penalty

    @property
    @override
    def convex(self) -> bool:
        return self.penalty.convex

    @property
    @override
    def joins(self) -> bool:
        return self.penalty.joins

    @override
    def value(self, x: Tensor) -> Tensor:
        return self.penalty.value(x)

    @override
    def structure(self, x: Tensor) -> Structure:
        return self.penalty.structure(x)

    @override
    def read(self, kept: Tensor) -> Structure:
        return self.penalty.read(kept)

    @override
    def kept_list(self, xs: Sequence[Tensor]) -> list[Tensor]:
        return self.penalty.kept_list(xs)

    @override
    def read_list(self, kept: Sequence[Tensor]) -> list[Structure]:
        return self.penalty.read_list(kept)

    @override
    def distinct(self, kept: Sequence[Tensor]) -> list[Tensor]:
        return self.penalty.distinct(kept)

    @override
    def check(self, x: Tensor) -> None:
        self.penalty.check(x)

    @override
    def cut(self, shape: Sequence[int]) -> Cut | None:
        return self.penalty.cut(shape)

    @override
    def regroup(self, groups: Partition) -> Self:
        return replace(self, penalty=self.penalty.regroup(groups))


@dataclass(frozen=True)
class Together(Wrapper):
    """A penalty around another that solves for a list of weights at once; one weight is a list of one.

    A subclass says how, by ``prox_list`` and ``solve_``.
    """

    separable = False

    @override
    def cut(self, shape: Sequence[int]) -> Cut | None:
        return None

    @override
    def _prox_solution(self, x: Tensor, step: Scalar) -> Solution:
        return self.prox_list([x], step)[0]

    @override
    def solve(self, b: Tensor, d: Tensor, weight: Scalar, start: Tensor | None = None) -> Solution:
        return self.solve_([b], [d], weight, None if start is None else [start])[0]
