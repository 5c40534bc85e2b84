"""The entries of a model that a draw keeps, side by side in one vector."""

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from openwork.sketches.families import Units
from openwork.sketches.key import Key
from openwork.sketches.module import SketchedModule
from openwork.sketches.sketch import Diagonal, Draw
from openwork.wiring import parameter_names

# For each parameter the flat positions of its kept entries in rising order; None stands for all of them.
Kept = dict[str, Tensor | None]


def trainable(sketched: SketchedModule) -> dict[str, nn.Parameter]:
    """Parameters that learn, each once, by name.

    Args:
        sketched: The model.
    """
    return {names[0]: p for p, names in parameter_names(sketched.module).items() if p.requires_grad}


def mask(draws: Sequence[Draw], name: str) -> Tensor:
    """What draws that act one after the other keep; booleans that broadcast to the parameter.

    Args:
        draws: Of one parameter.
        name: Its name, for the message.

    Raises:
        ValueError: If one is not diagonal.
    """
    return reduce(torch.logical_and, [_diagonal(draw, name).kept for draw in draws])


def scale(draws: Sequence[Draw], name: str) -> Tensor:
    """What draws that act one after the other multiply by, float64, broadcasting to the parameter.

    Args:
        draws: Of one parameter.
        name: Its name, for the message.

    Raises:
        ValueError: If one is not diagonal.
    """
    return reduce(torch.mul, [_diagonal(draw, name).weights for draw in draws])


def _diagonal(draw: Draw, name: str) -> Diagonal:
    if not isinstance(draw, Diagonal):
        raise ValueError(
            f"{name!r}: its sketch is a {type(draw).__name__}, which keeps no entries to send; "
            "take a diagonal sketch, or ReduceAggregator"
        )
    return draw


def kept(sketched: SketchedModule, key: Key) -> Kept:
    """Where gradients are that a draw lets through.

    What writes a unit gets none either, if all that reads it was multiplied by zero.

    Args:
        sketched: The model.
        key: What names the draw.

    Raises:
        ValueError: If a sketch is not diagonal.
    """
    masks = {name: mask(draws, name) for name, draws in sketched.sample(key).items()}
    for name, alive in _silent(sketched, key):
        masks[name] = masks[name] & alive if name in masks else alive
    return {
        name: masks[name].expand(p.shape).flatten().nonzero().flatten() if name in masks else None
        for name, p in trainable(sketched).items()
    }


def _silent(sketched: SketchedModule, key: Key) -> Iterator[tuple[str, Tensor]]:
    shifts = sketched.shifts
    for family in sketched.families:
        # A mean over units sees those that nothing else reads.
        if not isinstance(family, Units) or any(remark.kind == "mean" for remark in family.coupling.remarks):
            continue
        # A unit that keeps the weights of the shift is still read.
        shift = [shifts[part.name] for part in family.coupling.consumers]
        if not any(v is not None and bool(v.any()) for v in shift):
            for part in family.coupling.producers:
                device = sketched.module.get_parameter(part.name).device
                yield part.name, part.along(family.weights(key, device) != 0, True)


def packed(tensors: Mapping[str, Tensor], kept: Kept) -> Tensor:
    """Kept entries of tensors, one after the other.

    Args:
        tensors: Of one type, by the name of the parameter.
        kept: Of the parameters.
    """
    return torch.cat([_picked(tensor.flatten(), kept[name]) for name, tensor in tensors.items()])


def sizes(tensors: Mapping[str, Tensor], kept: Kept) -> list[int]:
    """How many entries of each tensor are kept.

    Args:
        tensors: By the name of the parameter.
        kept: Of the parameters.
    """
    return [t.numel() if (at := kept[name]) is None else len(at) for name, t in tensors.items()]


def add_(tensors: Mapping[str, Tensor], kept: Kept, values: Tensor) -> None:
    """Add numbers to kept entries.

    Args:
        tensors: Contiguous, by the name of the parameter.
        kept: Of the parameters.
        values: As ``packed`` orders them.
    """
    for (name, tensor), part in zip(tensors.items(), values.split(sizes(tensors, kept)), strict=True):
        at = kept[name]
        flat = tensor.view(-1)
        if at is None:
            flat += part
        else:
            flat.index_add_(0, at, part)


def put_(tensors: Mapping[str, Tensor], kept: Kept, values: Tensor) -> None:
    """Overwrite kept entries.

    Args:
        tensors: By the name of the parameter.
        kept: Of the parameters.
        values: As ``packed`` orders them.
    """
    for (name, tensor), part in zip(tensors.items(), values.split(sizes(tensors, kept)), strict=True):
        at = kept[name]
        if at is None:
            tensor.copy_(part.view_as(tensor))
        else:
            flat = tensor.flatten()  # a copy where the tensor is not contiguous
            flat[at] = part
            tensor.copy_(flat.view_as(tensor))


def zeros(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous zeros like tensors.

    Args:
        tensors: By the name of the parameter.
    """
    return {name: torch.zeros_like(t, memory_format=torch.contiguous_format) for name, t in tensors.items()}


def _picked(flat: Tensor, at: Tensor | None) -> Tensor:
    return flat if at is None else flat[at]


def by_type(parameters: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Parameters of one type and device together, which can share a vector.

    Args:
        parameters: By name.
    """
    found: dict[tuple[torch.dtype, torch.device], dict[str, Tensor]] = {}
    for name, p in parameters.items():
        found.setdefault((p.dtype, p.device), {})[name] = p
    return list(found.values())


__all__ = ["Kept", "add_", "by_type", "kept", "mask", "packed", "put_", "scale", "sizes", "trainable", "zeros"]
