"""Every entry alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import override

from openwork.partitions.base import Cut, Layout, Partition


@dataclass(frozen=True)
class Elements(Partition):
    """Every entry is a group of its own."""

    @override
    def layout(self, shape: Sequence[int]) -> Layout:
        return Layout.of(shape, ())

    @override
    def cut(self, shape: Sequence[int]) -> Cut | None:
        return Cut(0, 1) if shape else None
