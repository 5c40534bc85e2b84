"""What a sweep is watched by: numbers that the blocks already know, read from a device at once."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from openwork.altmin.blocks import Blocks
from openwork.altmin.objective import total_objective
from openwork.altmin.state import sum_of_squares

# A layer that shrinks this much while the next one grows that much has escaped from its penalty, not learned.
SHRUNK, GROWN = 10.0, 3.0


@dataclass(frozen=True)
class Measurement:
    """Numbers of one state; lists have one entry per layer, ``coupling_gap`` one per hidden layer.

    Args:
        objective: F.
        surrogate_loss: Loss of the block z at the output, a mean over samples.
        link_residual: Root mean square of ``W a + b - z``.
        weight_norm: ``||W||``.
        theta: Curvature of the weight's block.
        tau: Curvature of the block of codes that the layer reads; of no meaning at the first layer.
        coupling_gap: Largest ``|a - h(z)|``.
    """

    objective: float
    surrogate_loss: float
    link_residual: list[float]
    weight_norm: list[float]
    theta: list[float]
    tau: list[float]
    coupling_gap: list[float]


class ForwardGap(NamedTuple):
    """The pair of losses that shows whether the objective still stands for the network; means over samples.

    Args:
        forward: Of the network on its training samples.
        surrogate: Of the block z at the output.
    """

    forward: float
    surrogate: float


def measure(blocks: Blocks) -> Measurement:
    """Measure the present state; waits for a device once.

    Args:
        blocks: Of the problem.
    """
    problem, coupling = blocks.problem, blocks.coupling
    layers = problem.layers
    squares, loss = blocks.squares(), blocks.surrogate_loss()
    numbers: list[Tensor] = [total_objective(layers, coupling, loss, squares), loss, *squares]
    numbers += [sum_of_squares(layer.weight.now) for layer in layers]
    numbers += [layer.weight_curvature * layer.rho + layer.mu for layer in layers]
    numbers += [layer.input_curvature * layer.rho for layer in layers]
    numbers += [coupling.gap(layer) for layer in layers[:-1]]
    first, surrogate, *rest = torch.stack([number.to(torch.float64) for number in numbers]).tolist()
    count = len(layers)
    square, norm, theta, tau = (rest[i * count : (i + 1) * count] for i in range(4))
    entries = [problem.size * prod(layer.z.now.shape[1:]) for layer in layers]
    return Measurement(
        objective=first,
        surrogate_loss=surrogate / problem.size,
        link_residual=[sqrt(s / n) for s, n in zip(square, entries, strict=True)],
        weight_norm=[sqrt(s) for s in norm],
        theta=theta,
        tau=tau,
        coupling_gap=rest[4 * count :],
    )


def escaped(start: Sequence[float], now: Sequence[float]) -> tuple[int, int] | None:
    """A layer that shrank tenfold, and a later one that grew threefold or is the only one left; None if there is none.

    Args:
        start: Norms of all weights at the start.
        now: The same now.
    """
    for index, later in combinations(range(len(start)), 2):
        shrank = now[index] * SHRUNK < start[index]
        if shrank and (now[later] > GROWN * start[later] or (now[index] == 0 and now[later] > start[later])):
            return index, later
    return None


def warn_of_escape(shrunk: int, grown: int, remedy: str) -> None:
    """Say that the objective falls for the wrong reason.

    Args:
        shrunk: Index of the layer that shrank.
        grown: Index of the layer that grew.
        remedy: What to take, in words.

    Warns:
        UserWarning: Always.
    """
    warnings.warn(
        f"AMTrainer: the weight of layer {shrunk + 1} shrank more than tenfold or to zero while that of layer "
        f"{grown + 1} grew, which lowers the objective without training the network; take {remedy}",
        stacklevel=3,
    )
