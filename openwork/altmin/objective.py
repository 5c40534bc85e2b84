"""The objective of alternating minimization, from what the blocks already know."""

from collections.abc import Sequence

import torch
from torch import Tensor

from openwork.altmin.couplings import Coupling
from openwork.altmin.state import Layer, dot, sum_of_squares


def total_objective(layers: Sequence[Layer], coupling: Coupling, loss: Tensor, squares: Sequence[Tensor]) -> Tensor:
    """The loss of the outputs plus the terms of all links, weights and couplings; no product is formed.

    With a multiplier it is the augmented Lagrangian. Losses and links are sums over samples.

    Args:
        layers: All of them.
        coupling: Between codes and activations.
        loss: Of the block z of the output layer, a sum over samples.
        squares: Of all residuals, ``||R||^2``.

    Returns:
        A 0-dim tensor in double precision.
    """
    value = loss
    for layer, square in zip(layers, squares, strict=True):
        value = value + link_term(layer, square) + weight_term(layer)
    for layer in layers[:-1]:
        value = value + coupling.value(layer)
    return value


def link_term(layer: Layer, square: Tensor) -> Tensor:
    """The term ``rho/2 ||R||^2 - rho <dual, R>`` of one link, R its residual and ``square`` its square."""
    value = square * (layer.rho / 2)
    return value if layer.dual is None else value - dot(layer.dual, layer.residual) * layer.rho


def weight_term(layer: Layer) -> Tensor:
    """What ``mu`` and the penalty of one layer add."""
    weight = layer.weight.now
    value = weight.new_zeros((), dtype=torch.float64)
    if layer.mu:
        value = value + sum_of_squares(weight) * (layer.mu / 2)
    if layer.penalized:
        value = value + layer.penalty.value(weight).to(torch.float64) * layer.penalty_weight
    return value
