"""When a step is taken by a fused kernel, and what that needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from openwork.kernels import FusedKernels, Method, Plan, fused_kernels
from openwork.optim.groups import Group
from openwork.penalties import Penalty
from openwork.sharding import is_distributed

# Of a parameter and what belongs to it, by name: "param", "weight", "grad" and state.
Row = dict[str, Tensor]


@dataclass(frozen=True)
class FusedStep:
    """A step that a fused kernel can take.

    Args:
        kernels: Of the device.
        plan: The penalty over the parameters.
        rows: The parameters and their state, in order.
    """

    kernels: FusedKernels
    plan: Plan
    rows: Sequence[Row]

    def __getitem__(self, name: str) -> list[Tensor]:
        return [row[name] for row in self.rows]

    def written(self) -> None:
        """Tell autograd that the weights have changed."""
        torch.autograd.graph.increment_version(self["weight"])

    def roots(self, states: Sequence[dict[str, Any]]) -> list[Tensor]:
        """Where Newton's method starts for each term, as views of the state of the term's first parameter.

        Args:
            states: Of the parameters; those that have no ``"root"`` of the right size get one.

        Returns:
            One tensor per term, empty where there are no groups.
        """
        starts: list[tuple[int, int]] = []
        sizes = [0] * len(self.rows)
        for term in self.plan.terms:
            owner = term.regions[0].tensor if term.regions else 0
            starts.append((owner, sizes[owner]))
            sizes[owner] += term.roots
        for row, state, size in zip(self.rows, states, sizes, strict=True):
            held, weight = state.get("root"), row["weight"]
            if size and (held is None or held.numel() != size or held.dtype != weight.dtype):
                state["root"] = weight.new_zeros(size)
        none = torch.empty(0)
        return [
            states[owner]["root"][start : start + term.roots] if term.roots else none
            for term, (owner, start) in zip(self.plan.terms, starts, strict=True)
        ]


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


def fused_step(
    group: Group, method: Method | None, penalty: Penalty, rows: Sequence[Row], known: dict[int, Any]
) -> FusedStep | None:
    """The fused step of parameters, if it can be taken now.

    Args:
        group: Their group.
        method: What the optimizer does; None if no kernel does that.
        penalty: Of the group.
        rows: The parameters; gradients that lie in another order are copied.
        known: Plans that were made before, of which this keeps the last of each penalty.

    Returns:
        The step, or None.
    """
    otherwise = group["compile"] or group["foreach"] is not None
    if method is None or otherwise or not rows or torch.compiler.is_compiling():
        return None
    weights = [row["weight"] for row in rows]
    device, dtype = weights[0].device, weights[0].dtype
    for row in rows:
        weight = row["weight"]
        if row["param"] is not weight:
            return None
        if any(x.dtype != dtype or x.device != device for x in row.values()):
            return None
        if not weight.numel():
            continue
        strides = weight.stride()
        if "grad" in row and row["grad"].stride() != strides:
            row["grad"] = torch.empty_like(weight).copy_(row["grad"])
        if any(x.stride() != strides for x in row.values()):
            return None
    kernels = fused_kernels(device.type)
    if kernels is None:
        return None
    key = [(weight.shape, weight.stride()) for weight in weights]
    held = known.get(id(penalty))
    if held is None or held[:2] != (penalty, key):
        terms = penalty.terms(weights)
        held = known[id(penalty)] = penalty, key, None if terms is None else Plan(tuple(terms))
    plan = held[2]
    if plan is None or kernels.obstacle(method, dtype, plan) is not None:
        return None
    return FusedStep(kernels, plan, rows)
