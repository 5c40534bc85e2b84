"""Contract checks for parts of your own: one call each, in a test."""

from openwork.testing.partitions import check_partition
from openwork.testing.penalties import check_penalty

__all__ = ["check_partition", "check_penalty"]
