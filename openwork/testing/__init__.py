"""Contract checks for parts of your own: one call each, in a test."""

from openwork.testing.baselines import check_baseline
from openwork.testing.optimizers import check_optimizer
from openwork.testing.partitions import check_partition
from openwork.testing.penalties import check_penalty
from openwork.testing.sketches import check_sketch

__all__ = ["check_baseline", "check_optimizer", "check_partition", "check_penalty", "check_sketch"]
