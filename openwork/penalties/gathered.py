"""Weights that are collected from all processes, for penalties that need them whole."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from openwork.kernels import Scalar
from openwork.penalties.base import DiagonalProx, Solution
from openwork.penalties.wrapper import Together
from openwork.sharding import Division


@dataclass(frozen=True, eq=False)
class Gathered(Together):
    """A penalty of weights of which this process has parts; each process collects them and solves for the whole.

    For structure that no sum over entries shows, such as singular values.

    Args:
        penalty: Of whole weights.
        divisions: Of the weights; None for one that this process has as a whole.
    """

    divisions: tuple[Division | None, ...]

    @property
    @override
    def joins(self) -> bool:
        return True

    @override
    def prox_list(self, xs: Sequence[Tensor], step: Scalar) -> list[Solution]:
        return self._parts(self.penalty.prox_list(self._whole(xs), step))

    @override
    def metrics(self, d: list[Tensor]) -> list[Tensor]:
        return [self._part(i, x) for i, x in enumerate(self._inside.metrics(self._whole(d)))]

    @override
    def solve_(
        self, b: list[Tensor], d: list[Tensor], weight: Scalar, start: list[Tensor] | None = None
    ) -> list[Solution]:
        begin = None if start is None else self._whole(start)
        return self._parts(self._inside.solve_(self._whole(b), self._whole(d), weight, begin))

    @property
    def _inside(self) -> DiagonalProx:
        if not isinstance(self.penalty, DiagonalProx):
            raise TypeError(f"{self.penalty!r} has only a Euclidean prox; wrap it as ProximalGradient(...)")
        return self.penalty

    def _whole(self, xs: Sequence[Tensor]) -> list[Tensor]:
        return [x if how is None else how.whole(x) for how, x in zip(self.divisions, xs, strict=True)]

    def _part(self, i: int, x: Tensor) -> Tensor:
        how = self.divisions[i]
        return x if how is None else how.here(x).clone()

    def _parts(self, solutions: list[Solution]) -> list[Solution]:
        return [solution._replace(x=self._part(i, solution.x)) for i, solution in enumerate(solutions)]
