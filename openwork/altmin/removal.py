"""Hidden units that no longer matter are taken out of the network while it trains."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor, nn

from openwork.altmin.inertia import Iterate
from openwork.altmin.links import LinearLink
from openwork.altmin.piecewise import SignSteps
from openwork.altmin.state import Layer
from openwork.penalties import Penalty


class Removal(NamedTuple):
    """What a removal left.

    Args:
        units: How many went.
        kept: Those that stayed of every layer, indices; None where all did.
    """

    units: int
    kept: list[Tensor | None]


def remove_dead(model: nn.Module, layers: Sequence[Layer]) -> Removal:
    """Make linear layers narrower by the units that are constant or that nobody reads.

    A layer keeps at least one unit, and all of them where something between it and the next layer has numbers per unit
    or a penalty does not fit a narrower weight. Residuals have to be computed from scratch afterwards, and histories
    to be cleared.

    Args:
        model: That holds the layers.
        layers: As they are written in the model.
    """
    modules = list(model.modules())
    candidates = [index for index, pair in enumerate(pairwise(layers)) if can_shrink(modules, *pair)]
    kept: list[Tensor | None] = [None for _ in layers]
    units, going = 0, True
    while going:  # a unit that goes may have been the only one that another one reads, or that reads it
        going = False
        for index in candidates:
            width = len(layers[index].weight.now)
            stay = remove_between(layers[index], layers[index + 1])
            if stay is not None:
                before = kept[index]
                kept[index] = stay if before is None else before[stay]
                units += width - len(stay)
                going = True
    return Removal(units, kept)


def can_shrink(modules: list[nn.Module], layer: Layer, following: Layer) -> bool:
    """Whether units can go between two layers: both linear, and nothing per unit between them."""
    if not (isinstance(layer.link, LinearLink) and isinstance(following.link, LinearLink)) or following.link.fronts:
        return False
    between = modules[modules.index(layer.link.layer) + 1 : modules.index(following.link.layer)]
    return all(tensor.numel() <= 1 for module in between for tensor in (*module.parameters(), *module.buffers()))


def remove_between(layer: Layer, following: Layer) -> Tensor | None:
    """Take out what is dead among the units of one hidden layer.

    Args:
        layer: The hidden layer.
        following: The layer that reads its codes.

    Returns:
        The units that stay, indices; None if all do.
    """
    activation, _ = layer.hidden
    columns = following.weight.now
    unread = ~columns.any(0)
    start = columns.new_zeros(1, len(unread)) if layer.bias is None else layer.bias.now[None]
    constant = activation.forward(start)[0]
    # A constant can go where a bias takes it over, and where it is not about to change with the slope of a ramp.
    ramp = isinstance(activation, SignSteps) and activation.slope < inf
    folds = constant == 0 if following.bias is None else torch.full_like(unread, not ramp)
    dead = unread | (~layer.weight.now.any(1) & folds)
    dead[0] &= not bool(dead.all())
    if not bool(dead.any()):
        return None
    kept = (~dead).nonzero()[:, 0]
    if not (fits(layer.penalty, layer.weight.now[kept]) and fits(following.penalty, columns[:, kept])):
        return None
    if following.bias is not None:
        moved = torch.where(dead & ~unread, constant, 0.0)
        following.bias = Iterate(following.bias.now + columns @ moved)
    cut_outputs(layer, kept)
    cut_inputs(following, kept)
    return kept


def fits(penalty: Penalty, weight: Tensor) -> bool:
    """Whether a penalty can be applied to a weight."""
    try:
        penalty.check(weight)
    except ValueError:
        return False
    return True


def cut_outputs(layer: Layer, kept: Tensor) -> None:
    """Keep some units of a layer, with their codes; histories go.

    Args:
        layer: A hidden layer.
        kept: Indices.
    """
    module = layer.link.layer
    layer.weight = cut(layer.weight, lambda w: w[kept])
    layer.bias = None if layer.bias is None else cut(layer.bias, lambda b: b[kept])
    layer.z = cut(layer.z, lambda z: z[:, kept])
    layer.a = None if layer.a is None else cut(layer.a, lambda a: a[:, kept])
    layer.residual = layer.residual[:, kept]
    layer.weight_push = None
    if isinstance(module, nn.Linear):
        module.out_features = len(kept)
    put(layer)


def cut_inputs(layer: Layer, kept: Tensor) -> None:
    """Let a layer read some units only; histories go.

    Args:
        layer: That reads a hidden layer.
        kept: Indices.
    """
    module = layer.link.layer
    layer.weight = cut(layer.weight, lambda w: w[:, kept])
    layer.weight_push = layer.input_push = layer.factor = None
    # Power iterations go on from where they were.
    first, second = (None if probe is None else probe[..., kept] for probe in layer.link.probes)
    layer.link.probes = first, second
    if isinstance(module, nn.Linear):
        module.in_features = len(kept)
    put(layer)


def put(layer: Layer) -> None:
    """Give the module parameters of the shapes of the blocks."""
    module = layer.link.layer
    module.weight = nn.Parameter(layer.weight.now.clone(), module.weight.requires_grad)
    if layer.bias is not None and module.bias is not None:
        module.bias = nn.Parameter(layer.bias.now.clone(), module.bias.requires_grad)


def cut(iterate: Iterate, part: Callable[[Tensor], Tensor]) -> Iterate:
    """A part of a block, without its history, in memory of its own."""
    return Iterate(part(iterate.now).contiguous())
