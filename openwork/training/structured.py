"""Where the exact zeros of a run are before they are the model's."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from torch import nn
from typing_extensions import override

from openwork.optim import StructuredOptimizer
from openwork.penalties import Zero
from openwork.structure import Structure
from openwork.training.run import Metrics


class Structured(ABC):
    """The exactly structured weights of a model in training."""

    @abstractmethod
    def held(self) -> AbstractContextManager[nn.Module]:
        """A module that holds them, inside the ``with``; nothing has changed after it."""

    @abstractmethod
    def structures(self, module: nn.Module) -> dict[str, Structure]:
        """Structure of every weight that has one, by name.

        Args:
            module: What ``held`` gives, or the model after ``finish_``.
        """

    @abstractmethod
    def numbers(self) -> Metrics:
        """Numbers of the last step."""

    @abstractmethod
    def settle_(self) -> None:
        """Make them the model's weights, for good; training can go on."""

    @abstractmethod
    def free_(self) -> None:
        """Give the penalty no strength from now on."""

    def finish_(self) -> None:
        """Make them the model's weights, and the model a plain one."""
        self.settle_()


class InOptimizer(Structured):
    """Those that one of this package's optimizers holds.

    Args:
        model: In training.
        optimizer: Over its parameters.
    """

    def __init__(self, model: nn.Module, optimizer: StructuredOptimizer) -> None:
        self.model, self.optimizer = model, optimizer

    @override
    @contextmanager
    def held(self) -> Iterator[nn.Module]:
        with self.optimizer.structured():
            yield self.model

    @override
    def structures(self, module: nn.Module) -> dict[str, Structure]:
        found = self.optimizer.structures()
        return {name: found[param] for name, param in module.named_parameters() if param in found}

    @override
    def numbers(self) -> Metrics:
        averaging = float(self.optimizer.averaging_now(self.optimizer.param_groups[0]))
        return {"averaging": averaging, **vars(self.optimizer.read_out())}

    @override
    def settle_(self) -> None:
        self.optimizer.settle_()

    @override
    def free_(self) -> None:
        for group in self.optimizer.param_groups:
            if not isinstance(group.get("penalty", Zero()), Zero) or group.get("depth", 1) > 1:
                group["penalty_scale"] = 0.0


__all__ = ["InOptimizer", "Structured"]
