"""The strength of a penalty at which everything vanishes, on a task."""

from collections.abc import Callable
from typing import Any

from openwork.comparison.task import Task
from openwork.optim import RMDA, ProximalOptimizer, strength_max
from openwork.penalties import Penalty

# Samples whose gradient is looked at: enough for a scale, and few enough for large networks.
LOOKED_AT = 512


def largest_strength(
    task: Task, penalty: Penalty, optimizer: Callable[[list[dict[str, Any]]], ProximalOptimizer] = RMDA
) -> float:
    """The ``strength_max`` of a task's network with seed 0, on its first training samples.

    Args:
        task: What is learned.
        penalty: Its kind and options; its strength is not looked at.
        optimizer: Builds the optimizer from param groups.

    Returns:
        That strength, above 0.

    Raises:
        ValueError: If the network has nothing to penalize, or no gradient.
    """
    samples = task.data(0).train
    batch = samples.inputs[:LOOKED_AT], samples.targets[:LOOKED_AT]
    largest = strength_max(task.model(0), task.loss, batch, penalty, optimizer=optimizer)
    if largest == 0:
        raise ValueError(
            f"the network of task {task.name} has no gradient at its start, so nothing says how strong a penalty may "
            "be; start it from other weights"
        )
    return largest


__all__ = ["largest_strength"]
