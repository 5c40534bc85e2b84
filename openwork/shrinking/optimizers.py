"""Optimizers go on after a model has become smaller: their state is cut along with the parameters."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from openwork.optim import unwrap

Cuts = Mapping[str, Mapping[int, Tensor]]


def check_optimizer(model: nn.Module, optimizer: Optimizer) -> None:
    """Refuse an optimizer of another model.

    Raises:
        ValueError: If it has a parameter that is not the model's.
    """
    own = set(model.parameters())
    for group in unwrap(optimizer).param_groups:
        for at, param in enumerate(group["params"]):
            if param not in own:
                raise ValueError(
                    f"shrink: parameter {at} of a group of the {type(optimizer).__name__}, of shape "
                    f"{tuple(param.shape)}, is not of this model; pass the optimizer that was built over it"
                )


@torch.no_grad()
def follow_(optimizer: Optimizer, before: nn.Module, after: nn.Module, stays: Cuts) -> None:
    """Make an optimizer go on with the parameters of the smaller model.

    State tensors that are shaped like their parameter, or like a stack of such along a first axis, are cut as it is;
    what is known of groups is dropped, since it is found again at the next step; all else is kept. A parameter that has
    become several, in a layer of low rank, takes its options along, and starts with no state.

    Args:
        optimizer: Over the parameters of ``before``; changed in place.
        before: The original.
        after: The smaller model.
        stays: Indices that stay of each parameter of ``before``.
    """
    inner = unwrap(optimizer)
    names = {param: name for name, param in before.named_parameters()}
    new = dict(after.named_parameters())
    for group in inner.param_groups:
        params: list[Tensor] = []
        labels: list[str] = []
        for param in group["params"]:
            name = names[param]
            state = inner.state.pop(param, {})
            if name in new:
                params.append(new[name])
                labels.append(name)
                if state:
                    inner.state[new[name]] = _cut(state, param.shape, stays.get(name, {}))
                continue
            path, _, local = name.rpartition(".")
            parts = [f"{path}.0.weight", f"{path}.1.weight"] if local == "weight" else [f"{path}.1.{local}"]
            params += [new[part] for part in parts if part in new]
            labels += [part for part in parts if part in new]
        group["params"] = params
        for key in ("names", "param_names"):
            if key in group:
                group[key] = labels


def _cut(state: Mapping[str, Any], shape: torch.Size, dims: Mapping[int, Tensor]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in state.items():
        if key == "kept":
            continue
        lead = value.ndim - len(shape) if isinstance(value, Tensor) else -1
        if lead in (0, 1) and value.shape[lead:] == shape and shape:
            for dim, indices in dims.items():
                value = value.index_select(dim + lead, indices.to(value.device))
        found[key] = value
    return found


__all__ = ["check_optimizer", "follow_"]
