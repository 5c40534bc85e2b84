"""Units of layers, each layer by itself: neurons and filters, input features, heads, recurrent units."""

from collections.abc import Iterator
from typing import Literal, cast

import torch
from torch import Tensor, nn

from openwork.factorizations.forms import Request
from openwork.wiring import AxisSlices, Coupling, role_of

Units = Literal["output", "input", "heads"]


def units_of_layers(model: nn.Module, request: Request, units: Units) -> Iterator[Coupling]:
    """The groups of each weight by itself: units that need not be removable.

    Args:
        model: Not changed.
        request: What may be factorized.
        units: See ``Gated``.

    Yields:
        Couplings that have producers only: slices of the weight, and of what is zero with it where units are recurrent
        or heads. Where a weight has no such units, the coupling is blocked, and says why.
    """
    done: set[nn.Parameter] = set()
    firsts = {parameter: its_names[0] for parameter, its_names in request.names.items()}
    for name, parameter in request.chosen.items():
        if parameter in done:
            continue
        path, _, local = name.rpartition(".")
        layer = model.get_submodule(path)
        found, why = _groups_of(layer, local, units)
        slices: list[AxisSlices] = []
        for one, dim, numbers in found:
            member = layer.get_parameter(one)
            done.add(member)
            slices.append(AxisSlices(firsts[member], dim, tuple(member.shape), numbers))
        width = max((int(part.units.max()) for part in slices), default=-1) + 1
        # Only to name what has no groups.
        unknown = AxisSlices(name, 0, tuple(parameter.shape), torch.full(parameter.shape[:1], -1))
        yield Coupling(width, tuple(slices) or (unknown,), (), reasons=(why,) if why else ())


def _groups_of(layer: nn.Module, local: str, units: Units) -> tuple[list[tuple[str, int, Tensor]], str]:
    """What is grouped with a weight: local names, axes and units; and why it has no groups, if so."""
    role, shape, kind = role_of(layer, local), layer.get_parameter(local).shape, type(layer).__name__
    if units == "heads":
        if not isinstance(layer, nn.MultiheadAttention):
            return [], f"{kind} has no heads that are known without example_inputs"
        return _heads(layer, local)
    dim = None if role is None else (role.output if units == "output" else role.input)
    if role is None or dim is None:
        return [], f"parameter of {kind}, whose {units} is not known"
    if role.conv_groups > 1 and dim == 1:
        if shape[1] > 1:
            return [], f"the {units} channels of {role.conv_groups} convolutions side by side are no slices of it"
        # Depthwise: one channel, one filter.
        dim = 0
    dim %= len(shape)
    if (
        units == "output"
        and isinstance(layer, (nn.RNNBase, nn.RNNCellBase))
        and local[:9] in ("weight_ih", "weight_hh")
    ):
        known = {name for name, _ in layer.named_parameters(recurse=False)}
        together = [f"{part}{local[9:]}" for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        rows = torch.arange(shape[0] // role.stacked).repeat(role.stacked)
        return [(name, 0, rows) for name in together if name in known], ""
    return [(local, dim, torch.arange(shape[dim]))], ""


def _heads(layer: nn.MultiheadAttention, local: str) -> tuple[list[tuple[str, int, Tensor]], str]:
    """The values of each head: rows of weight and bias, and one more value if there is one."""
    if local not in ("in_proj_weight", "v_proj_weight"):
        return [], "it makes no values"
    count, features = cast("int", layer.num_heads), cast("int", layer.embed_dim)
    heads = torch.arange(count).repeat_interleave(features // count)
    # Queries and keys come before the values.
    values = torch.cat([torch.full((2 * features,), -1), heads])
    found = [(local, 0, values if local == "in_proj_weight" else heads)]
    known = {name for name, _ in layer.named_parameters(recurse=False)}
    more = [("in_proj_bias", 0, values), ("bias_v", 2, heads)]
    return found + [one for one in more if one[0] in known], ""


__all__ = ["Units", "units_of_layers"]
