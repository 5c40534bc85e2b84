"""When a step is taken by a fused kernel, and what that needs."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import is_not
from typing import Any

import torch
from torch import Tensor

from openwork.kernels import NEWTON, FusedKernels, Method, Plan, fused_kernels
from openwork.optim.groups import Group
from openwork.optim.plans import Pieces, Planned, planned
from openwork.penalties import Penalty
from openwork.sharding import is_distributed

# What parameters have, by name: "param", "weight", "grad" and state; one tensor of each for every parameter.
Columns = Mapping[str, list[Tensor]]


@dataclass(frozen=True)
class FusedStep:
    """A step that a fused kernel can take.

    Args:
        kernels: Of the device.
        method: What the optimizer does.
        plan: The penalty over the parameters.
        planned: What the group remembers of that.
        columns: The parameters and their state.
    """

    kernels: FusedKernels
    method: Method
    plan: Plan
    planned: Planned
    columns: Columns

    def __getitem__(self, name: str) -> list[Tensor]:
        return self.columns[name]

    def written(self) -> None:
        """Tell autograd that the weights have changed."""
        torch.autograd.graph.increment_version(self["weight"])

    def kept(self, states: Sequence[dict[str, Any]]) -> tuple[Pieces, bool]:
        """What the parameters keep; see ``Planned.kept``."""
        return self.planned.kept(self.plan, states, self["weight"])

    def roots(self, states: Sequence[dict[str, Any]]) -> dict[int, Tensor]:
        """Where Newton's method starts, as ``Found`` has it: vectors of the state.

        Args:
            states: Of the parameters; those that have no ``"root"`` of the right size get one.

        Returns:
            By the place of the parameter; nothing if the method needs none.
        """
        if self.method not in NEWTON:
            return {}
        found: dict[int, Tensor] = {}
        for tensor, length in self.plan.homes[1].items():
            state, weight = states[tensor], self["weight"][tensor]
            held = state.get("root")
            if held is None or held.numel() != length or held.dtype != weight.dtype:
                held = state["root"] = weight.new_zeros(length)
            found[tensor] = held
        return found


def obstacle(group: Group, method: Method | None, penalty: Penalty) -> str | None:
    """Why a group has no fused step, as the end of a sentence; None if it has one.

    Args:
        group: A parameter group.
        method: What its optimizer does; None if no kernel does that.
        penalty: Of the group.
    """
    params: list[Tensor] = group["params"]
    if method is None:
        return "with these options"
    if group["compile"] or group["foreach"] is not None:
        return f"beside {'compile=True' if group['compile'] else 'foreach=' + str(group['foreach'])}"
    if not params:
        return None
    if any(map(is_distributed, params)):
        return "for parameters that are divided among processes"
    device, dtype = params[0].device, params[0].dtype
    if any(p.device != device or p.dtype != dtype for p in params):
        return "for parameters of several kinds"
    kernels = fused_kernels(device.type)
    if kernels is None:
        return f"on {device.type}"
    terms = penalty.terms(params)
    if terms is None:
        return f"for {penalty!r}"
    return kernels.obstacle(method, dtype, Plan(tuple(terms)))


def all_finite(tensors: list[Tensor]) -> bool | None:
    """Whether all numbers are finite, by a kernel; None if there is none for them.

    Args:
        tensors: Gradients, at least one.
    """
    kernels = fused_kernels(tensors[0].device.type)
    if kernels is None or any(x.device != tensors[0].device for x in tensors):
        return None
    return kernels.all_finite(tensors)


@cache
def warn_once(text: str) -> None:
    """Warn, unless this was said before in this process.

    Args:
        text: A sentence.
    """
    warnings.warn(text, stacklevel=2)


def fused_step(
    group: Group, method: Method | None, penalty: Penalty, columns: dict[str, list[Tensor]], known: list[Planned]
) -> FusedStep | None:
    """The fused step of parameters, if it can be taken now.

    Args:
        group: Their group.
        method: What the optimizer does; None if no kernel does that.
        penalty: Of the group.
        columns: The parameters and their state; gradients that lie in another order are copied.
        known: The last plans of the group, among which this keeps the new one.

    Returns:
        The step, or None.
    """
    weights = columns["weight"]
    otherwise = group["compile"] or group["foreach"] is not None
    if method is None or otherwise or not weights or torch.compiler.is_compiling():
        return None
    if any(map(is_not, columns["param"], weights)):
        return None
    device, dtype = weights[0].device, weights[0].dtype
    kernels = fused_kernels(device.type)
    if kernels is None:
        return None
    strides = [weight.stride() for weight in weights]
    last = known[0] if known and known[0].strides == strides else None
    for name, tensors in columns.items():
        # Parameters are the weights themselves; of state that has not changed hands the last step has seen this.
        if name == "param" or (last is not None and last.lies(name, tensors, dtype, device)):
            continue
        if any([x.dtype != dtype or x.device != device for x in tensors]):
            return None
        if [x.stride() for x in tensors] == strides:
            continue
        for i, (x, weight) in enumerate(zip(tensors, weights, strict=True)):
            if not weight.numel() or x.stride() == strides[i]:
                continue
            if name != "grad":
                return None
            tensors[i] = torch.empty_like(weight).copy_(x)
            if tensors[i].stride() != strides[i]:
                return None
    found = planned(penalty, weights, known)
    if found.plan is None or kernels.obstacle(method, dtype, found.plan) is not None:
        return None
    found.states = {name: tensors for name, tensors in columns.items() if name not in ("param", "weight", "grad")}
    return FusedStep(kernels, method, found.plan, found, columns)
