"""What a comparison knows of a method: how to run it, and which strengths to try."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from openwork.comparison.task import Task
from openwork.training import Run


@dataclass(frozen=True)
class Method(ABC):
    """One way to make networks sparse. Its fields are its hyper-parameters; plain values, so that they can be recorded.

    A strength is whatever makes this method's networks sparser the larger it is: the strength of a penalty, or how many
    times fewer weights a pruner leaves.
    """

    #: Whether reports show it as a baseline.
    baseline: ClassVar[bool] = False
    #: Smallest strength that there is: at it, nothing is removed. 0 where any strength above 0 removes something.
    least: ClassVar[float] = 0.0

    @abstractmethod
    def strengths(self, task: Task, count: int) -> list[float]:
        """Strengths to try, increasing, as far as the method is of use on the task.

        Args:
            task: What is learned.
            count: How many, >= 1.
        """

    @abstractmethod
    def run(self, task: Task, strength: float, epochs: int, seed: int) -> Run:
        """A run with this method.

        Args:
            task: What is learned.
            strength: How sparse.
            epochs: The budget: passes over the training samples, whatever they are spent on.
            seed: Of everything that is random.
        """

    def about(self) -> str:
        """One sentence on the method as it is configured, for reports."""
        return (type(self).__doc__ or "").partition("\n")[0]

    def strength_at(self, task: Task, density: float) -> float | None:
        """The strength that leaves this fraction of the parameters nonzero, if the method knows it.

        Args:
            task: What is learned.
            density: In (0, 1).
        """
        return None

    def ranges(self) -> Mapping[str, tuple[float, float]]:
        """Lowest and highest values of fields to search, by name of the field; nothing if there is nothing to tune."""
        return {}


def geometric(first: float, last: float, count: int) -> list[float]:
    """Numbers from ``first`` to ``last``, each the same multiple of the one before.

    Args:
        first: Above 0.
        last: Above 0.
        count: How many, >= 1; a single one is the geometric mean.
    """
    if count == 1:
        return [(first * last) ** 0.5]
    return [first * (last / first) ** (k / (count - 1)) for k in range(count)]


__all__ = ["Method", "geometric"]
