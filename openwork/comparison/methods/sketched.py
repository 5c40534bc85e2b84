"""Sketched training (MAST), then pruning by magnitude."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn
from typing_extensions import override

from openwork.comparison.method import Method, geometric
from openwork.comparison.task import Task
from openwork.data import Batches
from openwork.sketches import Key, RandK, SketchedModule, export_submodel
from openwork.training import Run, supervised

# Batches that recalibrate batch normalization after the pruning.
RECALIBRATED = 20


@dataclass(frozen=True)
class Sketched(Method):
    """Adam on a model that every step sees through a random mask, then the largest weights of each layer.

    A strength is the compression ratio of the weights that are sketched. Nothing is trained after the pruning.

    Args:
        lr: Largest learning rate; it falls to 0 along half a cosine.
        ratio: Fraction of each weight's entries that a step keeps, in (0, 1].
        weakest: First strength of a path, > 1.
        strongest: Last strength of a path.
    """

    least: ClassVar[float] = 1.0

    lr: float = 3e-3
    ratio: float = 0.8
    weakest: float = 1.5
    strongest: float = 20.0

    @override
    def about(self) -> str:
        return (
            f"Sketched training (MAST): Adam on a random {self.ratio:.0%} of each weight at every step, then magnitude "
            "pruning of each layer."
        )

    @override
    def strengths(self, task: Task, count: int) -> list[float]:
        return geometric(self.weakest, self.strongest, count)

    @override
    def run(self, task: Task, strength: float, epochs: int, seed: int) -> Run:
        if strength < 1:
            raise ValueError(
                f"the strength of sketched training must be at least 1, how many times fewer weights it leaves, got "
                f"{strength:g}"
            )
        data, key = task.data(seed), Key(seed)
        sketched = SketchedModule(task.model(seed), RandK(self.ratio), shift="zero", key=key)
        optimizer = torch.optim.Adam(sketched.module.parameters(), lr=self.lr)
        sketched.follow(optimizer)
        run = supervised(
            sketched,
            task.loss,
            optimizer,
            data=data,
            epochs=epochs,
            batch_size=task.batch_size,
            schedule="cosine",
            augment=task.augment,
            seed=seed,
        )

        def finish() -> nn.Module:
            run.finish()
            split = data.train.to(next(sketched.parameters()).device)
            batches = Batches(split, task.batch_size, seed=seed).epoch(epochs)
            seen = [batch for batch, _ in zip(batches, range(RECALIBRATED), strict=False)]
            return export_submodel(sketched, 1 / strength, "magnitude", batches=seen, key=key)

        return replace(run, finish=finish)

    @override
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        return {"lr": (1e-3, 1e-2), "ratio": (0.5, 0.9)}


__all__ = ["Sketched"]
