"""Scales moved between layers, which leaves the network as it is and keeps the objective honest."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from openwork.altmin.inertia import Iterate
from openwork.altmin.state import Layer, Problem, per_feature


def balance(problem: Problem) -> list[Tensor | None]:
    """Rescale every hidden unit behind which ``h(s z) = s h(z)``, its outgoing weights by ``1/s``.

    ``s^2 = ||out|| / ||in||`` makes the incoming and the outgoing weights of a unit equally long, which is where the
    sum of their squares is smallest. Histories are rescaled as well, so that inertia goes on. Units without incoming
    or outgoing weights stay as they are.

    Args:
        problem: All layers; the objective before and after is not comparable.

    Returns:
        The scales of the units of every hidden layer; None where they stay as they are.
    """
    scales: list[Tensor | None] = []
    for layer, following in zip(problem.layers, problem.layers[1:], strict=False):
        activation, a = layer.hidden
        units, reading = layer.weight.now.shape[0], following.weight.now.shape[1]
        # A convolution with groups reads fewer channels than there are; its units stay as they are.
        if not activation.homogeneous or reading % units:
            scales.append(None)
            continue
        incoming = layer.weight.now.flatten(1).norm(dim=1)
        outgoing = by_unit(following.weight.now, units).norm(dim=(0, 2))
        scale = torch.where((incoming > 0) & (outgoing > 0), (outgoing / incoming).sqrt(), 1.0)
        scale = torch.where(scale.isfinite(), scale, 1.0)
        rescale_unit(layer, scale)
        layer.a = each(a, partial(times, scale=scale))
        following.weight = each(following.weight, partial(divided, scale=scale))
        layer.write_back()
        following.write_back()
        scales.append(scale)
    return scales


def rescale_unit(layer: Layer, scale: Tensor) -> None:
    """Multiply everything in front of a hidden layer's activation by one number per unit."""
    layer.weight = each(layer.weight, lambda w: w * scale.view(-1, *([1] * (w.ndim - 1))))
    if layer.bias is not None:
        layer.bias = each(layer.bias, lambda b: b * scale)
    layer.z = each(layer.z, lambda z: times(z, scale))
    layer.residual = times(layer.residual, scale)
    layer.weight_push = None if layer.weight_push is None else times(layer.weight_push, scale)


def times(x: Tensor, scale: Tensor) -> Tensor:
    """Samples with features multiplied by one number each."""
    return x * per_feature(scale, x)


def each(iterate: Iterate, change: Callable[[Tensor], Tensor]) -> Iterate:
    """A change applied to a block and to its history."""
    return Iterate(change(iterate.now), None if iterate.before is None else change(iterate.before))


def divided(weight: Tensor, scale: Tensor) -> Tensor:
    """A weight whose entries that read a unit are divided by the unit's number."""
    return (by_unit(weight, len(scale)) / scale.view(1, -1, 1)).reshape(weight.shape)


def by_unit(weight: Tensor, units: int) -> Tensor:
    """A weight as (outputs, units it reads, entries per unit)."""
    return weight.reshape(weight.shape[0], units, -1)
