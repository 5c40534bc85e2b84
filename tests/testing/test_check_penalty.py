"""The contract check notices penalties that are almost right."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Scalar
from openwork.partitions import Elements
from openwork.penalties import L1, GroupLasso, GroupPenalty, Penalty, Solution
from openwork.structure import Structure, Support
from openwork.testing import check_penalty


@dataclass(frozen=True)
class AlmostL1(Penalty):
    """A lasso whose prox is made wrong by a subclass."""

    def wrong(self, x: Tensor, step: Scalar) -> Tensor:
        return L1(1.0).prox(x, step)

    @override
    def value(self, x: Tensor) -> Tensor:
        return x.abs().sum()

    @override
    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        return self.wrong(x, step)

    @override
    def structure(self, x: Tensor) -> Structure:
        return Support(Elements(), x != 0)


class ShrinksTooMuch(AlmostL1):
    @override
    def wrong(self, x: Tensor, step: Scalar) -> Tensor:
        return L1(1.001).prox(x, step)


class DividesByItsNorm(AlmostL1):
    @override
    def wrong(self, x: Tensor, step: Scalar) -> Tensor:
        return x * (1 - step / x.abs()).clamp_min(0.0)


class WritesItsArgument(AlmostL1):
    @override
    def wrong(self, x: Tensor, step: Scalar) -> Tensor:
        return x.copy_(L1(1.0).prox(x, step))


class ForgetsThePrecision(AlmostL1):
    @override
    def wrong(self, x: Tensor, step: Scalar) -> Tensor:
        return L1(1.0).prox(x.double(), step)


@dataclass(frozen=True)
class SolvesAtThePoint(GroupLasso):
    """Takes the prox of b / d, which is not the solution under a metric."""

    @override
    def solve(self, b: Tensor, d: Tensor, weight: Scalar, start: Tensor | None = None) -> Solution:
        return self._prox_solution(torch.where(d > 0, b / d, 0.0), weight)


@dataclass(frozen=True)
class ForgetsTheWeights(GroupLasso):
    @override
    def critical(self, b: Tensor, d: Tensor) -> Tensor:
        return self.groups.norm(b) / self.lam


def test_the_right_one_passes() -> None:
    check_penalty(AlmostL1(), (3, 4))


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        (ShrinksTooMuch(), r"prox with step .* is beaten by"),
        (DividesByItsNorm(), r"prox\(0, 0.0\) is not 0"),
        (WritesItsArgument(), "prox writes its argument"),
        (ForgetsThePrecision(), "prox changes the dtype"),
        (SolvesAtThePoint(0.3), "solve with weight .* is beaten by"),
        (ForgetsTheWeights(0.3), "a group survives a weight above its critical one|vanishes at a weight below"),
    ],
    ids=lambda case: type(case).__name__,
)
def test_a_wrong_one_is_caught(penalty: Penalty | GroupPenalty, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_penalty(penalty, (5, 4))
