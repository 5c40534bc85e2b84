"""The strength of a penalty at which everything vanishes, on a task."""

from functools import partial

from openwork.comparison.task import Task
from openwork.optim import RMDA, strength_max
from openwork.penalties import Penalty

# Samples whose gradient is looked at: enough for a scale, and few enough for large networks.
LOOKED_AT = 512
# A step so long that the gradient alone decides, whatever the weights are at the start. At the learning rates that
# train, a single step says more of these weights than of the strengths that are right after thousands of steps.
LONG = 1e6


def largest_strength(task: Task, penalty: Penalty) -> float:
    """The ``strength_max`` of a task's network with seed 0, on its first training samples: what its gradient can bear.

    It is the same for all methods, since what is zero stays zero where the gradient of a group is below its strength,
    whatever the optimizer is.

    Args:
        task: What is learned.
        penalty: Its kind and options; its strength is not looked at.

    Returns:
        That strength, above 0.

    Raises:
        ValueError: If the network has nothing to penalize, or no gradient.
    """
    samples = task.data(0).train
    batch = samples.inputs[:LOOKED_AT], samples.targets[:LOOKED_AT]
    largest = strength_max(task.model(0), task.loss, batch, penalty, optimizer=partial(RMDA, lr=LONG))
    if largest == 0:
        raise ValueError(
            f"the network of task {task.name} has no gradient at its start, so nothing says how strong a penalty may "
            "be; start it from other weights"
        )
    return largest


__all__ = ["largest_strength"]
