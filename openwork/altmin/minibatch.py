"""Alternating minimization on mini-batches: ours, and not part of any of the papers that full-batch methods follow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openwork.altmin.couplings import Coupling, Exact
from openwork.altmin.homotopy import SignHomotopy
from openwork.altmin.links import Link
from openwork.altmin.losses import OutputLoss
from openwork.altmin.network import Network
from openwork.altmin.rho import FixedRho, RhoPolicy
from openwork.altmin.state import FLOOR
from openwork.altmin.weight_block import check_linear
from openwork.files import State
from openwork.penalties import Zero

__all__ = ["MiniBatch"]


@dataclass(frozen=True)
class MiniBatch:
    """Numbers of the method that ``AMTrainer.partial_fit`` describes.

    Args:
        passes: Passes over the codes of a batch, >= 1.
        damping: Added to the mean of squares of the inputs, > 0.
        momentum: Fraction of the last step that is added to a step, in [0, 1).

    Raises:
        ValueError: If a number is out of range.
    """

    passes: int = 3
    damping: float = 1.0
    momentum: float = 0.0

    def __post_init__(self) -> None:
        if self.passes < 1:
            raise ValueError(f"MiniBatch: passes must be >= 1, got {self.passes}")
        if not 0 < self.damping < float("inf"):
            raise ValueError(f"MiniBatch: damping must be > 0 and finite, got {self.damping}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"MiniBatch: momentum must be in [0, 1), got {self.momentum}")


@dataclass(frozen=True)
class Batch:
    """A batch with its codes.

    Args:
        codes: Block z of every layer.
        inputs: What every layer reads.
        y: Targets.
    """

    codes: list[Tensor]
    inputs: list[Tensor]
    y: Tensor


class MiniBatches:
    """Mini-batches that train a network one after the other.

    Args:
        network: The model, with linear layers only.
        loss: Of its outputs.
        rho: Weight of the links; penalties are weighed against a mean over samples.
        numbers: Of the method.
    """

    def __init__(self, network: Network, loss: OutputLoss, rho: float, numbers: MiniBatch) -> None:
        self.network, self.loss, self.rho, self.numbers = network, loss, rho, numbers
        #: The last step of every layer, ``[dW, db]``; None before the first.
        self.steps: list[Tensor | None] = [None for _ in network.links]

    def train(self, x: Tensor, y: Tensor) -> None:
        """Train on one batch.

        Args:
            x: Inputs.
            y: Targets.
        """
        batch = self.begin(x, y)
        for _ in range(self.numbers.passes):
            self.move_codes(batch)
        self.move_weights(batch)

    def begin(self, x: Tensor, y: Tensor) -> Batch:
        """A batch whose codes are those of the network; arguments as in ``train``."""
        network = self.network
        batch = Batch([], [x], y)
        for index, link in enumerate(network.links):
            link.refresh(batch.inputs[-1])
            z = link.bias_add(link.forward(batch.inputs[-1]))
            if index < len(network.activations):
                z = network.activations[index].project(z)
                batch.inputs.append(network.activations[index].forward(z))
            batch.codes.append(z)
        return batch

    def move_codes(self, batch: Batch) -> None:
        """Move the codes of every layer once, from the output to the input.

        Args:
            batch: Written.
        """
        network, rho = self.network, self.rho
        codes, inputs = batch.codes, batch.inputs
        last = len(codes) - 1
        for index in range(last, -1, -1):
            link = network.links[index]
            target = link.bias_add(link.forward(inputs[index]))
            if index == last:
                codes[index] = self.loss.prox(target, batch.y, rho, codes[index])
                continue
            following, activation = network.links[index + 1], network.activations[index]
            a = inputs[index + 1]
            # Twice the estimate from below, which power iterations approach from batch to batch.
            curvature = following.input_curvature().mul(2).clamp(min=FLOOR)
            residual = following.bias_add(following.forward(a)) - codes[index + 1]
            wanted = a - following.adjoint(residual).div_(curvature)
            codes[index] = activation.solve(target, wanted, rho, curvature * rho, codes[index])
            inputs[index + 1] = activation.forward(codes[index])

    def move_weights(self, batch: Batch) -> None:
        """Take a step with the weights of every layer towards its codes: a damped ridge step, or a proximal one.

        A penalized weight has no ridge solution and takes the step of a majorizer, whose curvature is the largest of
        the ridge problem.

        Args:
            batch: With its codes.
        """
        network, numbers = self.network, self.numbers
        taken: list[Tensor | None] = []
        for link, penalty, z, a, before in zip(
            network.links, network.penalties, batch.codes, batch.inputs, self.steps, strict=True
        ):
            flat = link.reading(a)
            width, size = flat.shape[1], len(flat)
            read = flat if link.bias is None else torch.cat([flat, flat.new_ones(size, 1)], 1)
            residual = z - link.bias_add(link.forward(a))
            gram = torch.mm(read.T, read).div_(size)
            gram.diagonal().add_(numbers.damping)
            wanted = torch.mm(read.T, residual).div_(size)
            if isinstance(penalty, Zero):
                step = _onward(torch.cholesky_solve(wanted, torch.linalg.cholesky(gram)).T, before, numbers.momentum)
                link.weight.add_(step[:, :width])
            else:
                curvature = torch.linalg.eigvalsh(gram)[-1]
                step = _onward(wanted.T / curvature, before, numbers.momentum)
                point = penalty.prox(link.weight + step[:, :width], 1 / (curvature * self.rho))
                step = torch.cat([point - link.weight, step[:, width:]], 1)
                link.weight.copy_(point)
            if link.bias is not None:
                link.bias.add_(step[:, -1])
            taken.append(step)
        self.steps = taken

    def saved(self) -> dict[str, State]:
        """What goes from batch to batch besides the weights; references."""
        return {"steps": list(self.steps), "probes": [link.probes[1] for link in self.network.links]}

    def load(self, state: Mapping[str, Sequence[Tensor | None]]) -> None:
        """Go on where ``saved`` was called.

        Args:
            state: From there.
        """
        device = self.network.device
        steps, probes = (
            [None if t is None else t.detach().to(device, copy=True) for t in state[name]]
            for name in ("steps", "probes")
        )
        self.steps = steps
        for link, probe in zip(self.network.links, probes, strict=True):
            link.probes = link.probes[0], probe


def check_batches(
    place: str,
    links: Sequence[Link],
    rho: RhoPolicy,
    coupling: Coupling,
    multiplier: bool,
    homotopy: SignHomotopy | None,
) -> None:
    """Refuse what mini-batches cannot do.

    Args:
        place: For the message.
        links: Of the model.
        rho: Rule for the weight of the links.
        coupling: Between codes and activations.
        multiplier: Whether the link of the output has one.
        homotopy: Of sign layers.

    Raises:
        TypeError: If the model has other layers.
        ValueError: If an option does not go with mini-batches.
    """
    check_linear(place, "training on mini-batches", links)
    if not isinstance(rho, FixedRho):
        raise ValueError(f"{place}: rho must be a number, since there are no sweeps to adapt it by, got {rho}")
    if not isinstance(coupling, Exact) or multiplier or homotopy is not None:
        raise ValueError(
            f"{place}: mini-batches need coupling=Exact() without multiplier and homotopy, got coupling {coupling}, "
            f"multiplier {multiplier} and homotopy {homotopy}"
        )


def _onward(step: Tensor, before: Tensor | None, momentum: float) -> Tensor:
    return step if before is None else step.add(before, alpha=momentum)
