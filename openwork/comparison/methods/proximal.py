"""Proximal optimizers with a group lasso on the input features of each weight."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

from typing_extensions import override

from openwork.comparison.method import Method, geometric
from openwork.comparison.methods.scale import largest_strength
from openwork.comparison.task import Task
from openwork.optim import RAMDA, RMDA, ProxAdamW, ProximalOptimizer, ProxSGD, regularize
from openwork.penalties import GroupLasso
from openwork.training import Run, supervised

Kind = Literal["ramda", "rmda", "proxsgd", "proxadamw"]
ABOUT: Mapping[Kind, str] = {
    "ramda": "RAMDA, adaptive dual averaging with momentum,",
    "rmda": "RMDA, dual averaging with momentum,",
    "proxsgd": "Proximal SGD with momentum",
    "proxadamw": "Proximal AdamW",
}


@dataclass(frozen=True)
class Proximal(Method):
    """An optimizer for loss plus penalty, in up to three stages with a tenth of the learning rate each.

    The last stage is a quarter of the epochs, or more if ``averaging`` needs it to grow to 1. Where the whole budget is
    shorter than that, there is one stage with a larger ``averaging``. A strength is that of the penalty.

    Args:
        kind: Which.
        lr: Learning rate.
        averaging: Fraction moved towards the prox point at each step, in (0, 1]; ProxAdamW has none.
        weakest: First strength of a path, times the steps of the task's own budget: what is not needed shrinks step by
            step, and has to get to zero in time.
        strongest: Last strength of a path, times these steps, ...
        fraction: ... or as a fraction of ``largest_strength``, whichever is less.
    """

    kind: Kind
    lr: float
    averaging: float = 0.1
    weakest: float = 0.04
    strongest: float = 12.0
    fraction: float = 0.03

    def _optimizer(self, groups: list[dict[str, Any]], averaging: float) -> ProximalOptimizer:
        match self.kind:
            case "ramda":
                return RAMDA(groups, lr=self.lr, averaging=averaging)
            case "rmda":
                return RMDA(groups, lr=self.lr, averaging=averaging)
            case "proxsgd":
                return ProxSGD(groups, lr=self.lr, averaging=averaging)
            case "proxadamw":
                return ProxAdamW(groups, lr=self.lr)

    @override
    def about(self) -> str:
        return f"{ABOUT[self.kind]} and a group lasso on the input features of each weight."

    @override
    def strengths(self, task: Task, count: int) -> list[float]:
        largest = largest_strength(task, GroupLasso(1.0))
        steps = task.epochs * ceil(len(task.data(0).train) / task.batch_size)
        last = min(self.strongest / steps, self.fraction * largest)
        return geometric(min(self.weakest / steps, last / 5), last, count)

    @override
    def run(self, task: Task, strength: float, epochs: int, seed: int) -> Run:
        model, data = task.model(seed), task.data(seed)
        averaging, milestones = stages(epochs, ceil(len(data.train) / task.batch_size), self.averaging)
        return supervised(
            model,
            task.loss,
            self._optimizer(regularize(model, GroupLasso(strength)), averaging),
            data=data,
            epochs=epochs,
            batch_size=task.batch_size,
            milestones=milestones,
            augment=task.augment,
            seed=seed,
        )

    @override
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        return {"lr": (0.1 * self.lr, 3.0 * self.lr)}


def stages(epochs: int, period: int, averaging: float) -> tuple[float, list[int]]:
    """An averaging that reaches 1 before training ends, and the epochs after which a stage begins.

    Args:
        epochs: Of the training.
        period: Steps of an epoch.
        averaging: The one wanted; a larger one is taken if even the whole training is too short for it.
    """
    steps = epochs * period
    # One step less than there are, so that rounding cannot ask for one more.
    averaging = max(averaging, max(1, steps - 1) ** -0.5)
    last = max(ceil(epochs / 4), ceil(ceil(averaging**-2) / period))
    return averaging, sorted({min(epochs // 2, epochs - last), epochs - last} - {0})


__all__ = ["Proximal", "stages"]
