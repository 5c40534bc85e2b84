"""Optimizers go on after a model has become smaller: state and penalties are cut along with the parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from openwork.optim import StructuredOptimizer, unwrap
from openwork.partitions import Slices
from openwork.penalties import Coupled, GroupPenalty, Penalty, Zero
from openwork.shrinking.cutting import Cuts
from openwork.wiring import AxisSlices


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
    what is known of groups is dropped, since it is found again at the next step; all else is kept. What is left of a
    group costs what it did, even where the penalty's weights follow its size. The two layers that take the place of one
    of low rank have neither state nor penalty, and no factors.

    Args:
        optimizer: Over the parameters of ``before``; changed in place.
        before: The original.
        after: The smaller model.
        stays: Indices that stay of each parameter of ``before``, by dimension.
    """
    inner = unwrap(optimizer)
    names = {param: name for name, param in before.named_parameters()}
    left = dict(after.named_parameters())
    fresh: list[dict[str, Any]] = []
    for group in inner.param_groups:
        pairs = [(names[param], param) for param in group["params"]]
        kept = [(name, param) for name, param in pairs if name in left]
        new = [left[name] for name, _ in kept]
        cuts = [stays.get(name, {}) for name, _ in kept]
        for (_, param), other, dims in zip(kept, new, cuts, strict=True):
            if state := inner.state.pop(param, {}):
                inner.state[other] = _cut(state, param.shape, dims)
        for _, param in pairs:
            inner.state.pop(param, None)
        if "penalty" in group:
            shapes = [tuple(param.shape) for _, param in kept]
            group["penalty"] = _penalty(group["penalty"], shapes, [tuple(other.shape) for other in new], cuts)
        group["params"] = new
        for key in ("names", "param_names"):
            if key in group:
                group[key] = [name for name, _ in kept]
        if parts := _parts([name for name, _ in pairs if name not in left], left):
            # Torch wants names in the way of the other groups, or in none.
            found = [(part, left[part]) for part in parts] if "param_names" in group else [left[part] for part in parts]
            fresh.append(_options(inner, group) | {"params": found, "names": parts})
    for options in fresh:
        inner.add_param_group(options)


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


def _penalty(
    penalty: Penalty,
    before: Sequence[tuple[int, ...]],
    after: Sequence[tuple[int, ...]],
    cuts: Sequence[Mapping[int, Tensor]],
) -> Penalty:
    """The penalty of what is left of some weights."""
    if not isinstance(penalty, Coupled):
        if not isinstance(penalty, GroupPenalty) or not isinstance(penalty.groups, Slices):
            return penalty
        if penalty.counting_as(1) == penalty or getattr(penalty, "weight", "one") == "one":
            return penalty
        dims = [penalty.groups.dim % len(shape) for shape in before]
        if not any(set(cut) - {dim} for dim, cut in zip(dims, cuts, strict=True)):
            # Whole groups went, and those that are left are as large as before.
            return penalty
        weights = {str(at): shape for at, shape in enumerate(before)}
        sides = [
            [AxisSlices(str(at), dim, shape, torch.arange(shape[dim]))]
            for at, (dim, shape) in enumerate(zip(dims, before, strict=True))
        ]
        penalty = Coupled.of(penalty, sides, weights)
    return penalty.after_cut(after, cuts)


def _parts(lost: Sequence[str], left: Mapping[str, Tensor]) -> list[str]:
    """Parameters of the two layers that took the place of those of one."""
    found: list[str] = []
    for name in lost:
        path, _, local = name.rpartition(".")
        names = [f"{path}.0.weight", f"{path}.1.weight"] if local == "weight" else [f"{path}.1.{local}"]
        found += [part for part in names if part in left]
    return found


def _options(optimizer: Optimizer, group: Mapping[str, Any]) -> dict[str, Any]:
    """Options for parameters that start anew: those of their group, without its counters, penalty and factors."""
    counters = optimizer.counters if isinstance(optimizer, StructuredOptimizer) else ()
    left_out = {"params", "names", "param_names", *counters}
    options = {key: value for key, value in group.items() if key not in left_out}
    none = {"penalty": Zero(), "depth": 1, "lam": 0.0}
    return options | {key: value for key, value in none.items() if key in group}


__all__ = ["check_optimizer", "follow_"]
