"""Deep weight factorization."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

import torch
from typing_extensions import override

from openwork.comparison.method import Method, geometric
from openwork.comparison.task import Task
from openwork.factorizations import param_groups, plan_budget
from openwork.optim import FactorizedSGD
from openwork.training import Run, supervised


@dataclass(frozen=True)
class Factorized(Method):
    """SGD on the factors of weights, whose L2 makes single weights zero.

    A strength is the collapse budget ``2 lam sum_t lr_t / (1 - momentum)``: without a gradient a weight shrinks to
    ``exp(-strength)`` of itself, so that the same strength leaves about the same zeros after any number of epochs;
    below 14 there are hardly any. What this costs in accuracy is the less the longer the training is.

    Args:
        depth: Factors of a weight, at least 2.
        lr: Largest learning rate; it grows for a tenth of the epochs, then falls to 0 along half a cosine.
        momentum: Of SGD, in [0, 1).
        clip: Largest norm of the gradient of the weights, without which large learning rates diverge.
        weakest: First strength of a path.
        strongest: Last strength of a path: deeper factors need less of it, and beyond training diverges.
    """

    depth: int
    lr: float
    momentum: float = 0.9
    clip: float = 1.0
    weakest: float = 14.5
    strongest: float = 40.0

    @override
    def about(self) -> str:
        zeros = (
            "as an L1 penalty does" if self.depth == 2 else "with less shrinkage of the others than an L1 penalty has"
        )
        return (
            f"Deep weight factorization: SGD on {self.depth} factors of each weight, whose L2 zeroes entries, {zeros}."
        )

    @override
    def strengths(self, task: Task, count: int) -> list[float]:
        return geometric(self.weakest, self.strongest, count)

    @override
    def run(self, task: Task, strength: float, epochs: int, seed: int) -> Run:
        model, data = task.model(seed), task.data(seed)
        period, warmup = ceil(len(data.train) / task.batch_size), epochs // 10
        # The budget is proportional to the strength of the factors' L2.
        per_lam = plan_budget(
            1.0, self.lr, epochs * period, momentum=self.momentum, schedule="cosine", warmup=warmup * period
        ).budget
        optimizer = FactorizedSGD(
            param_groups(model, self.depth, strength / per_lam),
            lr=self.lr,
            momentum=self.momentum,
            generator=torch.Generator().manual_seed(seed),
        )
        return supervised(
            model,
            task.loss,
            optimizer,
            data=data,
            epochs=epochs,
            batch_size=task.batch_size,
            schedule="cosine",
            warmup=warmup,
            clip=self.clip,
            augment=task.augment,
            seed=seed,
        )

    @override
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        return {"lr": (0.1, 1.0)}


__all__ = ["Factorized"]
