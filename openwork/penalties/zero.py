"""No penalty."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Scalar, Term, dense
from openwork.partitions import Cut, Elements
from openwork.penalties.base import DiagonalProx, Solution, metric_quotient
from openwork.structure import Structure, Support


@dataclass(frozen=True)
class Zero(DiagonalProx):
    """No penalty, ``f(x) = 0``: so that no code asks whether there is one. It has no groups to keep or drop."""

    @override
    def value(self, x: Tensor) -> Tensor:
        return x.new_zeros(())

    @override
    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        return x

    @override
    def solve(self, b: Tensor, d: Tensor, weight: Scalar, start: Tensor | None = None) -> Solution:
        return Solution(metric_quotient(b, d), _nothing(b), b.new_zeros(()))

    @override
    def _prox_solution(self, x: Tensor, step: Scalar) -> Solution:
        return Solution(x, _nothing(x), x.new_zeros(()))

    @override
    def terms(self, weights: Sequence[Tensor]) -> list[Term] | None:
        where = [dense(position, weight.shape, weight.stride()) for position, weight in enumerate(weights)]
        known = [Term("free", (region,)) for region in where if region is not None]
        return known if len(known) == len(where) else None

    @override
    def structure(self, x: Tensor) -> Structure:
        return self.read(_nothing(x))

    @override
    def read(self, kept: Tensor) -> Structure:
        return Support(Elements(), kept)

    @override
    def cut(self, shape: Sequence[int]) -> Cut | None:
        return Elements().cut(shape)


def _nothing(x: Tensor) -> Tensor:
    return x.new_zeros(0, dtype=torch.bool)
