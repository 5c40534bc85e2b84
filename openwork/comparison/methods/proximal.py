"""Proximal optimizers with a group lasso on what couplings can lose."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from typing_extensions import override

from openwork.comparison.method import Method, geometric
from openwork.comparison.task import Task
from openwork.optim import RAMDA, RMDA, ProxAdamW, ProximalOptimizer, ProxSGD, regularize, strength_max
from openwork.penalties import GroupLasso
from openwork.training import Run, supervised

Kind = Literal["ramda", "rmda", "proxsgd", "proxadamw"]


@dataclass(frozen=True)
class Proximal(Method):
    """An optimizer for loss plus penalty.

    Args:
        kind: Which.
        lr: Learning rate.
        averaging: Fraction moved towards the prox point at each step, in (0, 1]; ProxAdamW has none.
    """

    kind: Kind
    lr: float
    averaging: float = 0.1

    def _optimizer(self, groups: list[dict[str, Any]]) -> ProximalOptimizer:
        match self.kind:
            case "ramda":
                return RAMDA(groups, lr=self.lr, averaging=self.averaging)
            case "rmda":
                return RMDA(groups, lr=self.lr, averaging=self.averaging)
            case "proxsgd":
                return ProxSGD(groups, lr=self.lr, averaging=self.averaging)
            case "proxadamw":
                return ProxAdamW(groups, lr=self.lr)

    @override
    def strengths(self, task: Task, count: int) -> list[float]:
        data = task.data(0)
        batch = data.train.inputs[:1024], data.train.targets[:1024]
        optimizer: Callable[[list[dict[str, Any]]], ProximalOptimizer] = self._optimizer
        largest = strength_max(task.model(0), task.loss, batch, GroupLasso(1.0), optimizer=optimizer)
        return geometric(largest / 300, largest / 3, count)

    @override
    def run(self, task: Task, strength: float, epochs: int, seed: int) -> Run:
        model = task.model(seed)
        optimizer = self._optimizer(regularize(model, GroupLasso(strength)))
        return supervised(
            model,
            task.loss,
            optimizer,
            data=task.data(seed),
            epochs=epochs,
            batch_size=task.batch_size,
            milestones=sorted({max(1, epochs // 2), max(1, 3 * epochs // 4)}),
            augment=task.augment,
            seed=seed,
        )

    @override
    def choices(self) -> Mapping[str, Sequence[float]]:
        return {"lr": [self.lr * factor for factor in (0.1, 0.3, 1.0, 3.0)]}


__all__ = ["Proximal"]
