"""A task and methods that take next to no time, for this process and for those that tests start."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from typing_extensions import override

from openwork.comparison import Method, Task
from openwork.data import Data, Split
from openwork.models import mlp
from openwork.training import Run, supervised

# A file in which every training that is begun leaves a line.
LOG = "TINY_LOG"


def samples(seed: int) -> Data:
    """Three classes in six features, the classes apart."""
    generator = torch.Generator().manual_seed(1)
    targets = torch.arange(100) % 3
    inputs = torch.randn(100, 6, generator=generator) + 3 * nn.functional.one_hot(targets, 6)
    split = Split(inputs, targets)
    parts = [split.take(torch.arange(*rows)) for rows in ((0, 60), (60, 80), (80, 100))]
    del seed
    return Data("tiny", train=parts[0], valid=parts[1], test=parts[2], classes=3)


def task(loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy) -> Task:
    return Task("tiny", lambda seed: mlp((6, 8, 3), seed=seed), samples, epochs=2, batch_size=20, loss=loss)


def held() -> Task:
    """Training stands still in the middle while a file named ``hold`` is there."""
    steps = count()

    def waiting(outputs: Tensor, targets: Tensor) -> Tensor:
        if next(steps) >= 12:
            while Path("hold").exists():
                time.sleep(0.02)
        return cross_entropy(outputs, targets)

    return replace(task(waiting), name="held", epochs=6)


@dataclass(frozen=True)
class Largest(Method):
    """SGD, then the largest entries of the weights: one in ``strength`` of them, if ``faithful``.

    Args:
        lr: Learning rate.
        diverges: Strength from which on training fails.
    """

    lr: float = 0.1
    diverges: float = 1e9

    @override
    def strengths(self, task: Task, count: int) -> list[float]:
        return [2.0 ** (k + 1) for k in range(count)]

    @override
    def run(self, task: Task, strength: float, epochs: int, seed: int) -> Run:
        if log := os.environ.get(LOG):
            with Path(log).open("a", encoding="utf-8") as file:
                file.write(f"{strength:g} {seed}\n")
        model = task.model(seed)
        optimizer = torch.optim.SGD(model.parameters(), lr=self.lr)
        data = task.data(seed)
        run = supervised(model, task.loss, optimizer, data=data, epochs=epochs, batch_size=task.batch_size, seed=seed)

        def finish() -> nn.Module:
            if strength >= self.diverges:
                raise FloatingPointError("training diverged: the test says so")
            finished = run.finish()
            with torch.no_grad():
                weights = [p for p in finished.parameters() if p.ndim > 1]
                sizes = torch.cat([w.abs().flatten() for w in weights])
                kept = round(len(sizes) / strength)
                bound = sizes.sort(descending=True)[0][kept - 1] if kept else torch.inf
                for weight in weights:
                    weight.mul_(weight.abs() >= bound)
            return finished

        return replace(run, finish=finish)

    @override
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        return {"lr": (1e-6, 0.3)}


@dataclass(frozen=True)
class Plain(Method):
    """SGD, nothing removed."""

    baseline: ClassVar[bool] = True

    lr: float = 0.1

    @override
    def strengths(self, task: Task, count: int) -> list[float]:
        return [0.0]

    @override
    def run(self, task: Task, strength: float, epochs: int, seed: int) -> Run:
        return replace(Largest(self.lr).run(task, 1.0, epochs, seed))


def largest() -> Largest:
    """The default."""
    return Largest()


def plain() -> Plain:
    """The default."""
    return Plain()


def number() -> int:
    """No method, and no task."""
    return 3
