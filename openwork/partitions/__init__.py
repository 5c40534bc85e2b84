"""Which entries of one tensor form a group."""

from openwork.partitions.base import Cut, Layout, Partition, Stacked
from openwork.partitions.blocks import Blocks
from openwork.partitions.elements import Elements
from openwork.partitions.heads import Heads
from openwork.partitions.joined import Joined, divided_grid, stretch
from openwork.partitions.slices import Slices

__all__ = [
    "Blocks",
    "Cut",
    "Elements",
    "Heads",
    "Joined",
    "Layout",
    "Partition",
    "Slices",
    "Stacked",
    "divided_grid",
    "stretch",
]
