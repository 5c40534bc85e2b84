"""One group per index along an axis."""

from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import override

from openwork.partitions.base import Cut, Layout, Partition, axis_of


@dataclass(frozen=True)
class Slices(Partition):
    """One group per index along an axis: ``Slices(1)`` of a Linear or Conv weight are its input features.

    Args:
        dim: The axis; counted from the end if negative.
    """

    dim: int

    @override
    def layout(self, shape: Sequence[int]) -> Layout:
        dim = axis_of(shape, self.dim, self)
        return Layout.of(shape, [axis for axis in range(len(shape)) if axis != dim])

    @override
    def cut(self, shape: Sequence[int]) -> Cut | None:
        return Cut(axis_of(shape, self.dim, self), 1)
