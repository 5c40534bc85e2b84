"""What every method may spend: passes over the training samples, or time."""

import time
from dataclasses import dataclass

from accelerate.utils import set_seed

from openwork.comparison.method import Method
from openwork.comparison.task import Task


@dataclass(frozen=True)
class Budget:
    """The same for every method.

    Args:
        epochs: Passes over the training samples, >= 1; None if the budget is a time.
        seconds: Of training, > 0; None if the budget is a number of passes.

    Raises:
        ValueError: If both are given, or a number is out of range.
    """

    epochs: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.seconds is None):
            raise ValueError("compare: the budget is either epochs or seconds; leave one of them out")
        if self.epochs is not None and self.epochs < 1:
            raise ValueError(f"compare: epochs must be at least 1, got {self.epochs}")
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"compare: seconds must be above 0, got {self.seconds:g}")

    def __str__(self) -> str:
        return f"{self.seconds:g} s" if self.seconds is not None else f"{self.epochs} epochs"


def seconds_per_epoch(task: Task, method: Method, strength: float) -> float:
    """Measure how long a method takes for a pass over the training samples, its reports included.

    The second pass is timed, since the first one warms up.

    Args:
        task: What is learned.
        method: How.
        strength: Any.
    """
    epochs = max(2, task.epochs)
    set_seed(0)
    run = method.run(task, strength, epochs, 0)
    unit, passed = 0, [0.0]
    for stop in (max(1, run.units // epochs), max(2, 2 * run.units // epochs)):
        while unit < stop:
            step = min(stop - unit, run.period - unit % run.period)
            run.advance(step)
            unit += step
        passed.append(time.perf_counter())
    return passed[-1] - passed[-2]


__all__ = ["Budget", "seconds_per_epoch"]
