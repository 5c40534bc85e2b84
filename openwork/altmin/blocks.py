"""The blocks of a problem as a trainer sees them, wherever their codes lie."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from typing import NamedTuple

from torch import Tensor

from openwork.altmin.couplings import Coupling
from openwork.altmin.inertia import Inertia, Iterate
from openwork.altmin.objective import total_objective
from openwork.altmin.rho import weigh
from openwork.altmin.state import Layer, Problem
from openwork.altmin.weight_block import WeightSolver
from openwork.files import State

PLAIN = Inertia()


class Snapshot(NamedTuple):
    """One layer at one time.

    Args:
        layer: A copy of the object, whose tensors nobody writes into.
        probes: Where its power methods were.
        codes: Block z of all chunks, where the layer itself has none.
    """

    layer: Layer
    probes: tuple[Tensor | None, Tensor | None]
    codes: tuple[Iterate, ...] = ()


class Blocks(ABC):
    """Blocks that are moved by sweeps and watched by numbers.

    Args:
        problem: Layers and data.
        coupling: Between codes and activations.
        weights: How weights are updated.
    """

    def __init__(self, problem: Problem, coupling: Coupling, weights: WeightSolver) -> None:
        self.problem, self.coupling, self.weights = problem, coupling, weights

    @abstractmethod
    def sweep(self, inertia: Inertia) -> None:
        """Move every block once.

        Args:
            inertia: Of this sweep.
        """

    # -- numbers ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def squares(self) -> list[Tensor]:
        """Of all residuals, ``||W a + b - z||^2`` of every layer, 0-dim in double precision."""

    @abstractmethod
    def surrogate_loss(self) -> Tensor:
        """Loss of the block z of the output layer, a sum over samples."""

    @abstractmethod
    def mean_square(self, index: int) -> float:
        """Mean square of ``W a + b`` of one layer; waits for a device.

        Args:
            index: Of the layer.
        """

    def objective(self) -> Tensor:
        """The present objective, 0-dim."""
        return total_objective(self.problem.layers, self.coupling, self.surrogate_loss(), self.squares())

    # -- changes between sweeps -------------------------------------------------------------------------------------

    @abstractmethod
    def forget(self) -> None:
        """Clear the history of every block."""

    @abstractmethod
    def balance(self) -> None:
        """Make incoming and outgoing weights of units equally long."""

    @abstractmethod
    def project(self) -> None:
        """Move every hidden block z to where its activation allows it, after that changed; histories are cleared."""

    @abstractmethod
    def recompute(self) -> None:
        """Remove the rounding errors of many updates."""

    def select(self) -> bool:
        """Let max-pooling select anew; whether there is any, so that objectives are not comparable."""
        return False

    def weigh(self, growth: float) -> None:
        """Multiply ``rho`` and what is weighed against it.

        Args:
            growth: Factor.
        """
        weigh(self.problem.layers, growth)

    # -- back to an earlier state -----------------------------------------------------------------------------------

    def snapshot(self) -> list[Snapshot]:
        """All layers as they are; only references are copied."""
        return [Snapshot(copy(layer), layer.link.probes) for layer in self.problem.layers]

    def restore(self, snapshots: Sequence[Snapshot]) -> None:
        """Go back to a snapshot, bit for bit."""
        for layer, saved in zip(self.problem.layers, snapshots, strict=True):
            layer.__dict__.update(saved.layer.__dict__)
            layer.link.probes = saved.probes
            layer.write_back()

    @abstractmethod
    def saved(self) -> list[dict[str, State]]:
        """Every layer as tensors under string keys; references, no copies."""

    @abstractmethod
    def check_saved(self, place: str, state: Sequence[Mapping[str, object]]) -> None:
        """Refuse the state of other blocks.

        Args:
            place: Where it is loaded.
            state: From ``saved``.

        Raises:
            ValueError: If a number or a shape does not match.
        """

    @abstractmethod
    def load(self, state: Sequence[Mapping[str, object]]) -> None:
        """Go on where ``saved`` was called.

        Args:
            state: Checked.
        """
