"""Iterative magnitude pruning that goes back to early weights."""

from dataclasses import dataclass
from math import ceil, log

from torch import Tensor
from typing_extensions import override

from openwork.baselines.baseline import Baseline, Loss, Training
from openwork.baselines.masks import Scope
from openwork.baselines.pruning import Pruning


@dataclass(frozen=True)
class LotteryTicket(Baseline):
    """Lottery ticket: train, prune some of what is left, rewind the rest to its early values, and so on.

    All trainings together are the steps of the run, so each is the shorter the smaller the density. Every one begins
    with a new optimizer, and with the learning rate of the step to which it is rewound.

    Args:
        density: Fraction of the prunable weights that is kept in the end, in (0, 1].
        rate: Fraction of what is left that one round prunes, in (0, 1).
        rewind: Step to whose weights (and running statistics) the model goes back; 0 is initialization.
        scope: Whether the largest of all are kept, or of each weight the same fraction.

    Raises:
        ValueError: If a number is out of range.

    References:
        Frankle & Carbin, The lottery ticket hypothesis (ICLR 2019), strategy 1; Frankle et al., Linear mode
        connectivity and the lottery ticket hypothesis (ICML 2020), algorithm 1, for ``rewind`` above 0.
    """

    density: float
    rate: float = 0.2
    rewind: int = 0
    scope: Scope = "global"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.rate < 1:
            raise ValueError(f"LotteryTicket: rate must be above 0 and below 1, got {self.rate:g}")
        if self.rewind < 0:
            raise ValueError(f"LotteryTicket: rewind must be at least step 0, got {self.rewind}")

    @property
    def rounds(self) -> int:
        """How often is pruned; the last time only as much as is needed."""
        return ceil(log(self.density) / log(1 - self.rate) - 1e-9)

    def _stops(self, steps: int) -> list[int]:
        """Steps after which the trainings end."""
        parts = self.rounds + 1
        return [self.rewind + part * (steps - self.rewind) // parts for part in range(1, parts + 1)]

    @override
    def check(self, steps: int) -> None:
        if steps - self.rewind < self.rounds + 1:
            raise ValueError(
                f"LotteryTicket: density={self.density:g} takes {self.rounds + 1} trainings of at least one step after "
                f"step {self.rewind}, and there are {steps} steps; train longer, or take a larger rate or density"
            )

    @override
    def trainings(self, steps: int) -> list[Training]:
        first, *stops = self._stops(steps)
        starts = [first, *stops[:-1]]
        again = [Training(start, stop, self.rewind) for start, stop in zip(starts, stops, strict=False)]
        return [Training(0, first), *again]

    @override
    def begin(self, pruning: Pruning, loss: Loss, inputs: Tensor, targets: Tensor) -> None:
        if self.rewind == 0:
            self._remember(pruning)

    @override
    def after_step(self, pruning: Pruning) -> None:
        if pruning.step == self.rewind:
            self._remember(pruning)
        stops = self._stops(pruning.steps)
        if pruning.step not in stops[:-1]:
            return
        done = stops.index(pruning.step) + 1
        density = self.density if done == self.rounds else (1 - self.rate) ** done
        kept = pruning.masks.by_magnitude(density, self.scope)
        pruning.model.load_state_dict(pruning.memory)
        pruning.optimizer.state.clear()
        pruning.keep_(kept)

    def _remember(self, pruning: Pruning) -> None:
        pruning.memory = {name: value.clone() for name, value in pruning.model.state_dict().items()}

    @override
    def final(self, pruning: Pruning) -> dict[str, Tensor]:
        return pruning.masks.by_magnitude(self.density, self.scope)


__all__ = ["LotteryTicket"]
