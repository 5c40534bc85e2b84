"""Weights that may not be negative."""

from dataclasses import dataclass, field, replace
from math import inf
from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Scalar
from openwork.partitions import Partition
from openwork.penalties.base import GroupPenalty, Solution


@dataclass(frozen=True)
class Nonnegative(GroupPenalty):
    """Another penalty for weights that may not be negative: ``f(x)`` where ``x >= 0``, infinite elsewhere.

    Args:
        penalty: Any that drops groups, such as ``GroupLasso``; strength 0 leaves the constraint alone.

    Raises:
        TypeError: If ``penalty`` does not drop groups, so that its value need not depend on magnitudes only.
    """

    penalty: GroupPenalty
    groups: Partition = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.penalty, GroupPenalty):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"Nonnegative: penalty must drop groups, as GroupLasso does, got {self.penalty!r}")
        object.__setattr__(self, "groups", self.penalty.groups)

    @property
    @override
    def convex(self) -> bool:
        return self.penalty.convex

    @override
    def value(self, x: Tensor) -> Tensor:
        return torch.where(self.groups.any(~(x >= 0)).any(), inf, self.penalty.value(x))

    # An entry with b_i <= 0 is best at 0, whatever the others are, and the others are positive by themselves.

    @override
    def _prox_solution(self, x: Tensor, step: Scalar) -> Solution:
        return self.penalty._prox_solution(x.clamp_min(0.0), step)

    @override
    def solve(self, b: Tensor, d: Tensor, weight: Scalar, start: Tensor | None = None) -> Solution:
        return self.penalty.solve(b.clamp_min(0.0), d, weight)

    @override
    def critical(self, b: Tensor, d: Tensor) -> Tensor:
        return self.penalty.critical(b.clamp_min(0.0), d)

    @override
    def counting_as(self, size: int | None) -> Self:
        return replace(self, penalty=self.penalty.counting_as(size))

    @override
    def regroup(self, groups: Partition) -> Self:
        return replace(self, penalty=self.penalty.regroup(groups))
