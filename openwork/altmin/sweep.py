"""One sweep over the blocks, and what happens when it raises the objective."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from openwork.altmin.couplings import Coupling
from openwork.altmin.inertia import Inertia
from openwork.altmin.objective import objective
from openwork.altmin.orders import Visit
from openwork.altmin.state import Layer, Problem
from openwork.altmin.weight_block import WeightSolver, bias_step

PLAIN = Inertia()


class Snapshot(NamedTuple):
    """One layer at one time.

    Args:
        layer: A copy of the object, whose tensors nobody writes into.
        probes: Where its power methods were.
    """

    layer: Layer
    probes: tuple[Tensor | None, Tensor | None]


@dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks of a problem, each of which can be moved.

    Args:
        problem: Layers and data.
        coupling: Between codes and activations.
        weights: How weights are updated.
        visits: Blocks of a sweep, in order.
    """

    problem: Problem
    coupling: Coupling
    weights: WeightSolver
    visits: Sequence[Visit]

    def move(self, visit: Visit, inertia: Inertia) -> None:
        """Move one block.

        Args:
            visit: Which.
            inertia: Of this sweep.
        """
        layers, index = self.problem.layers, visit.layer
        layer = layers[index]
        match visit.block:
            case "W":
                self.weights.step(layer, self.problem.input_of(index), inertia, constant=index == 0)
            case "b":
                bias_step(layer, inertia)
            case "z" if layer.activation is None:
                output_step(self.problem, inertia)
            case "z":
                self.coupling.z_step(layer, layers[index + 1], inertia)
            case "a":
                self.coupling.a_step(layer, layers[index + 1], inertia)

    def sweep(self, inertia: Inertia) -> None:
        """Move every block once, in order; nobody waits for a device."""
        for visit in self.visits:
            self.move(visit, inertia)

    def guarded_sweep(self, inertia: Inertia, slack: float) -> int:
        """Move every block once, each again without inertia if it raised the objective; waits after every block.

        Args:
            inertia: Of this sweep.
            slack: Relative rise that is rounding.

        Returns:
            How many blocks were moved again.
        """
        repeated = 0
        before = float(self.objective())
        for visit in self.visits:
            saved = self.snapshot()
            self.move(visit, inertia)
            after = float(self.objective())
            if not after <= before + slack * abs(before) and not inertia.none:
                self.restore(saved)
                self.move(visit, PLAIN)
                after = float(self.objective())
                repeated += 1
            before = after
        return repeated

    def objective(self) -> Tensor:
        """The present objective, 0-dim."""
        return objective(self.problem, self.coupling)

    def snapshot(self) -> list[Snapshot]:
        """All layers as they are; only references are copied."""
        return [Snapshot(copy(layer), layer.link.probes) for layer in self.problem.layers]

    def restore(self, snapshots: Sequence[Snapshot]) -> None:
        """Go back to a snapshot, bit for bit."""
        for layer, saved in zip(self.problem.layers, snapshots, strict=True):
            layer.__dict__.update(saved.layer.__dict__)
            layer.link.probes = saved.probes
            layer.write_back()


def output_step(problem: Problem, inertia: Inertia) -> None:
    """Move the block z of the output layer: the proximal point of the loss.

    Args:
        problem: Layers and data.
        inertia: Of this sweep.
    """
    layer = problem.layers[-1]
    z, target = layer.z, layer.residual + layer.z.now
    wanted = target if layer.dual is None else target - layer.dual
    point = problem.loss.prox(z.shifted(wanted, inertia.shift), problem.y, layer.rho, z.now)
    point = inertia.relaxed(point, z.now)
    layer.residual = target - point
    layer.z = z.move(point)
