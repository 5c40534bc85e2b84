"""Rectangular blocks."""

from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import override

from openwork.partitions.base import Cut, Layout, Partition, axis_of, check_positive, split_axis


@dataclass(frozen=True)
class Blocks(Partition):
    """Blocks that tile the leading axes; later axes lie inside a block as a whole.

    ``Blocks((out_channels // groups, 1))`` are the input channels of a grouped convolution.

    Args:
        shape: Side lengths of a block along the first axes, each a divisor of that axis.

    Raises:
        ValueError: If the shape is empty or a side is not positive.
    """

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.shape:
            raise ValueError("Blocks: shape must name at least one side, got ()")
        for side in self.shape:
            check_positive("Blocks", "every side", side)

    @override
    def layout(self, shape: Sequence[int]) -> Layout:
        axis_of(shape, len(self.shape) - 1, self)
        split = [n for dim, side in enumerate(self.shape) for n in split_axis(shape, dim, side, self)]
        members = [2 * dim + 1 for dim in range(len(self.shape))]
        trailing = shape[len(self.shape) :]
        return Layout((*split, *trailing), (*members, *range(len(split), len(split) + len(trailing))))

    @override
    def cut(self, shape: Sequence[int]) -> Cut | None:
        return Cut(0, self.shape[0])
