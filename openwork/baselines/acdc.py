"""Alternating compressed and dense training."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from openwork.baselines.baseline import Baseline, Loss, check_range
from openwork.baselines.masks import Scope
from openwork.baselines.pruning import Pruning


@dataclass(frozen=True)
class ACDC(Baseline):
    """Alternating compressed / decompressed training, which ends compressed.

    A compressed phase begins with the largest weights and keeps that support; a dense one lets the others grow from
    zero, and begins with an optimizer without momentum. The defaults are those of the paper for ImageNet over 100
    epochs. Where the phases do not fill the time in between, the last one is longer.

    Args:
        density: Fraction of the prunable weights that is kept in compressed phases, in (0, 1].
        scope: Whether the largest of all are kept, as in the paper, or of each weight the same fraction.
        warmup: Fraction of the training before the first compressed phase, dense, in [0, 1).
        phase: Fraction of the training of one phase, in (0, 1).
        last_dense: Fraction of the training of the last dense phase, in [0, 1).
        last_compressed: Fraction of the training of the last compressed phase, at least, in [0, 1).

    Raises:
        ValueError: If a number is out of range, or they sum up to more than 1.

    References:
        Peste et al., AC/DC (NeurIPS 2021), arXiv:2106.12379, algorithm 1 and section 4.1.
    """

    density: float
    scope: Scope = "global"
    warmup: float = 0.1
    phase: float = 0.05
    last_dense: float = 0.1
    last_compressed: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, warmup=self.warmup, last_dense=self.last_dense, last_compressed=self.last_compressed)
        if not 0 < self.phase < 1:
            raise ValueError(f"ACDC: phase must be above 0 and below 1, got {self.phase:g}")
        if self._alternating() < 1:
            raise ValueError(
                "ACDC: warmup, one phase, last_dense and last_compressed must fit into the training, and their "
                f"fractions sum up to {self.warmup + self.phase + self.last_dense + self.last_compressed:g}"
            )

    def _alternating(self) -> int:
        """How many phases come between warm-up and last dense phase: compressed ones first and last."""
        time = 1 - self.warmup - self.last_dense - self.last_compressed
        phases = int(time / self.phase + 1e-9)
        return phases if phases % 2 else phases - 1

    def boundaries(self, steps: int) -> list[int]:
        """Steps after which a phase begins: compressed, dense, and so on; the last one compressed.

        Args:
            steps: Of the whole training.
        """
        phases = self._alternating()
        begins = [self.warmup + i * self.phase for i in range(phases + 1)]
        return [round(begin * steps) for begin in (*begins, begins[-1] + self.last_dense)]

    @override
    def check(self, steps: int) -> None:
        begins = self.boundaries(steps)
        if any(b <= a for a, b in zip(begins, [*begins[1:], steps], strict=True)):
            raise ValueError(
                f"ACDC: {len(begins)} phases do not fit into {steps} steps, each with a step of its own; take longer "
                "phases or train longer"
            )

    @override
    def begin(self, pruning: Pruning, loss: Loss, inputs: Tensor, targets: Tensor) -> None:
        self.after_step(pruning)  # without a warm-up, the first phase is compressed

    @override
    def after_step(self, pruning: Pruning) -> None:
        begins = self.boundaries(pruning.steps)
        if pruning.step not in begins:
            return
        if begins.index(pruning.step) % 2 == 0:
            pruning.keep_(self.final(pruning))
        else:
            pruning.keep_({name: torch.ones_like(kept) for name, kept in pruning.masks.kept.items()})
            pruning.optimizer.state.clear()

    @override
    def final(self, pruning: Pruning) -> dict[str, Tensor]:
        return pruning.masks.by_magnitude(self.density, self.scope)


__all__ = ["ACDC"]
