"""The dense network that every method is held against."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from typing_extensions import override

from openwork.comparison.method import Method
from openwork.comparison.task import Task
from openwork.training import Run, supervised


@dataclass(frozen=True)
class Dense(Method):
    """Adam without any penalty.

    Args:
        lr: Largest learning rate; it falls to 0 along half a cosine.
    """

    baseline: ClassVar[bool] = True

    lr: float = 1e-3

    @override
    def strengths(self, task: Task, count: int) -> list[float]:
        return [0.0]

    @override
    def run(self, task: Task, strength: float, epochs: int, seed: int) -> Run:
        model = task.model(seed)
        return supervised(
            model,
            task.loss,
            torch.optim.Adam(model.parameters(), lr=self.lr),
            data=task.data(seed),
            epochs=epochs,
            batch_size=task.batch_size,
            schedule="cosine",
            augment=task.augment,
            seed=seed,
        )

    @override
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        return {"lr": (3e-4, 1e-2)}


__all__ = ["Dense"]
