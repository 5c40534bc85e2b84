"""Runs of consecutive indices along an axis."""

from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import override

from openwork.partitions.base import Cut, Layout, Partition, axis_of, check_positive, split_axis


@dataclass(frozen=True)
class Heads(Partition):
    """One group per run of consecutive indices along an axis, such as the rows of an attention head.

    Args:
        head_dim: Length of a run, a divisor of the axis.
        dim: The axis; 0 for the projections that make heads, 1 for the projection that reads them.

    Raises:
        ValueError: If ``head_dim`` is not positive.
    """

    head_dim: int
    dim: int = 0

    def __post_init__(self) -> None:
        check_positive("Heads", "head_dim", self.head_dim)

    @override
    def layout(self, shape: Sequence[int]) -> Layout:
        dim = axis_of(shape, self.dim, self)
        split = (*shape[:dim], *split_axis(shape, dim, self.head_dim, self), *shape[dim + 1 :])
        return Layout.of(split, [axis for axis in range(len(split)) if axis != dim])

    @override
    def cut(self, shape: Sequence[int]) -> Cut | None:
        return Cut(axis_of(shape, self.dim, self), self.head_dim)
