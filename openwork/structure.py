"""What survives in a weight."""

from dataclasses import dataclass

from torch import Tensor

from openwork.partitions import Partition


@dataclass(frozen=True)
class Support:
    """The groups of a weight that are not zero.

    Args:
        groups: How the weight is partitioned.
        kept: One boolean per group, of shape ``groups.grid(weight.shape)``; False where the group is exactly zero.
    """

    groups: Partition
    kept: Tensor


@dataclass(frozen=True)
class Rank:
    """The singular values of a weight (as a matrix) that are not zero.

    Args:
        kept: One boolean per singular value, of shape ``(min(m, n),)``, largest first.
    """

    kept: Tensor

    @property
    def rank(self) -> int:
        """Number of singular values that are not zero."""
        return int(self.kept.sum())


Structure = Support | Rank

__all__ = ["Rank", "Structure", "Support"]
