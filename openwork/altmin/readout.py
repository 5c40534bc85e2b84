"""Refit of the last layer on the true features of the network: a convex problem."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from openwork.altmin.links import Link
from openwork.altmin.losses import OutputLoss
from openwork.altmin.network import Network
from openwork.altmin.state import Problem
from openwork.penalties import Penalty, Zero
from openwork.structure import Rank

# Steps at most, and the gradient (of the mean over samples) at which they end.
STEPS = 100
TOLERANCE = 1e-7


def refit(network: Network, problem: Problem, held: tuple[Tensor, Tensor] | None) -> None:
    """Refit the last layer of a network to its training samples, unless that raises the loss of others.

    Args:
        network: With the weights that it has in the end.
        problem: Holds the samples.
        held: Inputs and targets to judge by; None for the training samples alone.
    """
    loss, output = problem.loss, problem.layers[-1]
    before = [tensor.clone() for tensor in network.parameters()]
    judged = None if held is None else network.loss(loss, *held)
    refit_readout(output.link, network.features(problem.x, problem.y), loss, output.mu, output.penalty)
    if held is not None and judged is not None and not network.loss(loss, *held) <= judged:
        network.write(before)


def refit_readout(
    link: Link, samples: Sequence[tuple[Tensor, Tensor]], loss: OutputLoss, mu: float, penalty: Penalty
) -> bool:
    """Minimize ``R(W a + b; y) + mu/2 ||W||^2`` over the last layer by L-BFGS.

    The gradient of this one layer is in closed form; no graph is made. The layer changes only if the loss of the
    network on these samples falls.

    Args:
        link: The last layer.
        samples: What it reads when the network runs, and targets, in one or more parts, wherever they lie.
        loss: A sum over samples.
        mu: Weight of the quadratic term, >= 0.
        penalty: Of the weight, whose structure stays: its exact zeros, its rank (the bias alone is refitted then), and
            what it forbids (nothing is, if the refit goes there).

    Returns:
        Whether the layer changed.
    """
    size = sum(len(y) for _, y in samples)
    weight = link.weight.clone()
    bias = None if link.bias is None else link.bias.clone()
    alive = free(penalty, weight)
    parameters = [weight] if bias is None else [weight, bias]

    def parts() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Features, outputs and targets of one part after the other, where the weight is."""
        for features, y in samples:
            here = features.to(weight.device, non_blocking=True)
            mapped = link.map_with(weight, here)
            yield here, mapped if bias is None else mapped + bias, y.to(weight.device, non_blocking=True)

    def value() -> float:
        return float(sum(loss.value(z, y) for _, z, y in parts()))

    def closure() -> float:
        with torch.no_grad():
            weight.grad = weight * (mu / size) * alive
            total = weight.square().sum() * (mu / 2)
            if bias is not None:
                bias.grad = torch.zeros_like(bias)
            for features, z, y in parts():
                pull = loss.gradient(z, y).div_(size)
                weight.grad += link.weight_grad(features, pull) * alive
                if bias is not None and bias.grad is not None:
                    bias.grad += pull.sum(0)
                total = total + loss.value(z, y)
            return float(total / size)

    before = value()
    solver = torch.optim.LBFGS(
        parameters, max_iter=STEPS, tolerance_grad=TOLERANCE, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )
    solver.step(closure)
    after = value()
    if not after < before or not penalty.value(weight).isfinite():
        return False
    link.weight.copy_(weight)
    if bias is not None and link.bias is not None:
        link.bias.copy_(bias)
    return True


def free(penalty: Penalty, weight: Tensor) -> Tensor:
    """Which entries of a weight may change without a change of its structure.

    Args:
        penalty: That made the structure.
        weight: As it is.
    """
    if isinstance(penalty, Zero):
        return torch.ones_like(weight, dtype=torch.bool)
    return torch.zeros_like(weight, dtype=torch.bool) if isinstance(penalty.structure(weight), Rank) else weight != 0
