"""One sweep over the blocks, and what happens when it raises the objective."""

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from openwork.altmin.balancing import balance
from openwork.altmin.blocks import PLAIN, Blocks
from openwork.altmin.couplings import Coupling
from openwork.altmin.inertia import Inertia, Iterate
from openwork.altmin.losses import OutputLoss
from openwork.altmin.network import Network
from openwork.altmin.orders import Visit
from openwork.altmin.saving import check_layers, load_layer, saved_layer
from openwork.altmin.state import Layer, Problem, sum_of_squares
from openwork.altmin.weight_block import WeightSolver, bias_step
from openwork.files import State


class WholeBlocks(Blocks):
    """The blocks of a problem whose samples are all in memory at once, each of which can be moved.

    Args:
        problem: Layers and data.
        coupling: Between codes and activations.
        weights: How weights are updated.
        visits: Blocks of a sweep, in order.
    """

    def __init__(self, problem: Problem, coupling: Coupling, weights: WeightSolver, visits: Sequence[Visit]) -> None:
        super().__init__(problem, coupling, weights)
        self.visits = visits

    @classmethod
    def start(
        cls,
        network: Network,
        samples: tuple[Tensor, Tensor],
        loss: OutputLoss,
        mu: float,
        coupling: Coupling,
        weights: WeightSolver,
        visits: Sequence[Visit],
        multiplier: bool,
    ) -> Self:
        """Initialize every block by a forward pass from the model's weights.

        Args:
            network: The model.
            samples: Inputs and targets.
            loss: Of the outputs.
            mu: Weight of ``mu/2 ||W||^2``.
            coupling: Between codes and activations.
            weights: How weights are updated.
            visits: Blocks of a sweep, in order.
            multiplier: Whether the link of the output has one.
        """
        x, y = samples
        layers: list[Layer] = []
        a = x
        for index, link in enumerate(network.links):
            link.refresh(a)
            target = link.bias_add(link.forward(a))
            z = target if index == len(network.activations) else network.activations[index].project(target)
            curvature = link.weight_curvature(a, 50 if index == 0 else 4)
            layer = network.layer(index, z, target - z, curvature, mu, len(x))
            layers.append(layer)
            if layer.a is not None:
                coupling.prepare(layer)
                a = layer.a.now
        if multiplier:
            layers[-1].dual = torch.zeros_like(layers[-1].residual)
        return cls(Problem(x, y, loss, layers), coupling, weights, visits)

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

    @override
    def sweep(self, inertia: Inertia) -> None:
        # Nobody waits for a device.
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

    @override
    def squares(self) -> list[Tensor]:
        return [sum_of_squares(layer.residual) for layer in self.problem.layers]

    @override
    def surrogate_loss(self) -> Tensor:
        return self.problem.surrogate_loss()

    @override
    def mean_square(self, index: int) -> float:
        layer = self.problem.layers[index]
        return float((layer.residual + layer.z.now).square().mean())

    @override
    def forget(self) -> None:
        self.problem.forget()

    @override
    def balance(self) -> None:
        balance(self.problem)
        self.coupling.settle(self.problem)

    @override
    def project(self) -> None:
        self.problem.project()
        self.coupling.settle(self.problem)

    @override
    def recompute(self) -> None:
        self.problem.recompute()

    @override
    def select(self) -> bool:
        return self.problem.select()

    @override
    def saved(self) -> list[dict[str, State]]:
        return [saved_layer(layer) for layer in self.problem.layers]

    @override
    def check_saved(self, place: str, state: Sequence[Mapping[str, object]]) -> None:
        check_layers(place, self.problem.layers, state)

    @override
    def load(self, state: Sequence[Mapping[str, object]]) -> None:
        for layer, one in zip(self.problem.layers, state, strict=True):
            load_layer(layer, one)


def output_point(
    loss: OutputLoss, y: Tensor, z: Iterate, target: Tensor, rho: float, inertia: Inertia, dual: Tensor | None = None
) -> Tensor:
    """Where the block z of the output layer goes: the proximal point of the loss.

    Args:
        loss: Of the outputs.
        y: Targets.
        z: The block.
        target: ``W a + b``.
        rho: Weight of the link.
        inertia: Of this sweep.
        dual: Multiplier of the link over ``rho``; None for none.
    """
    wanted = target if dual is None else target - dual
    return inertia.relaxed(loss.prox(z.shifted(wanted, inertia.shift), y, rho, z.now), z.now)


def output_step(problem: Problem, inertia: Inertia) -> None:
    """Move the block z of the output layer: the proximal point of the loss.

    Args:
        problem: Layers and data.
        inertia: Of this sweep.
    """
    layer = problem.layers[-1]
    z, target = layer.z, layer.residual + layer.z.now
    point = output_point(problem.loss, problem.y, z, target, layer.rho, inertia, layer.dual)
    layer.residual = target - point
    layer.z = z.move(point)
