"""No pruning at all."""

from dataclasses import dataclass, field

from openwork.baselines.baseline import Baseline


@dataclass(frozen=True)
class Dense(Baseline):
    """Training as it is, nothing pruned: what all others are compared with."""

    density: float = field(default=1.0, init=False)


__all__ = ["Dense"]
