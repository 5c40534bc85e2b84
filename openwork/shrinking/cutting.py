"""Narrower models, whatever numbers are in them: their tensors, and what their modules are told of the widths."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from openwork.forward_pass import arguments, run
from openwork.shrinking.attributes import Attributes, of_layers, set_attributes, told
from openwork.shrinking.plan import Replacement
from openwork.shrinking.verification import coarsest
from openwork.wiring import Coupling, Grouping, couplings, prepared, propagate, trace

Cuts = Mapping[str, Mapping[int, Tensor]]


def with_free_widths(model: nn.Module, *, split_recurrent: bool = False) -> tuple[nn.Module, list[Replacement]]:
    """Put modules whose widths are free in place of those that tie them to other widths.

    Args:
        model: Not changed.
        split_recurrent: Whether each layer and direction of an LSTM or GRU becomes a module of its own.

    Returns:
        A copy, or the model itself if there is nothing to replace, and what was replaced.
    """
    wanted = [Replacement(path, "attention") for path, m in model.named_modules() if _is_attention(m)]
    if split_recurrent:
        wanted += [Replacement(path, "recurrent") for path, m in model.named_modules() if _is_stack(m)]
    free = deepcopy(model) if wanted else model
    for replacement in wanted:
        replacement.make_(free)
    return free, wanted


def sliced(x: Tensor, dims: Mapping[int, Tensor]) -> Tensor:
    """What stays of a tensor; differentiable.

    Args:
        x: Any tensor.
        dims: Indices that stay, by dimension; others stay whole.
    """
    for dim, indices in dims.items():
        x = x.index_select(dim, indices.to(x.device))
    return x


def with_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a model with other tensors, which may have other shapes; its own are not copied, and ties survive.

    Args:
        model: Not changed.
        tensors: Its parameters and buffers, by first name.
    """
    memo: dict[int, Any] = {id(x): tensors[name] for name, x in (*model.named_parameters(), *model.named_buffers())}
    return deepcopy(model, memo)


@dataclass(frozen=True, eq=False)
class Blueprint:
    """A model without its numbers, from which narrower ones are made.

    Args:
        template: The model with free widths, on the device "meta".
        grouping: Its couplings, and the lengths that its modules are told.
        dtype: The least precise floating type in which it computes, as far as it is known.
    """

    template: nn.Module
    grouping: Grouping
    dtype: torch.dtype | None

    @classmethod
    def of(cls, model: nn.Module, example_inputs: object) -> "Blueprint":
        """Draw up a model.

        The modules of one that cannot be traced are told what their own tensors say, and no more.

        Args:
            model: Not changed.
            example_inputs: As for ``wiring.trace``.

        Raises:
            ValueError: If the model does not run on ``example_inputs``.
        """
        free, _ = with_free_widths(model)
        try:
            traced = trace(free, example_inputs)
        except ValueError:
            args, kwargs = arguments("trace", example_inputs)
            with prepared(free), torch.no_grad():
                run("trace", free, args, kwargs)
            grouping, dtype = Grouping([], [], []), None
        else:
            grouping, dtype = couplings(propagate(traced)), coarsest(traced)
        empty = {name: _empty(x, {}) for name, x in (*free.named_parameters(), *free.named_buffers())}
        return cls(with_tensors(free, empty), grouping, dtype)

    def narrower(self, stays: Cuts, attributes: Attributes) -> nn.Module:
        """The model without all but some indices. Nothing says yet that it computes anything: compare outputs.

        Args:
            stays: Indices that stay of each tensor, by name and dimension; only where some go.
            attributes: Values that nobody can find out, by path of the module and name of the attribute.

        Returns:
            A module on the device "meta".
        """
        kept = [_kept(coupling, stays) for coupling in self.grouping.couplings]
        found = told(self.template, self.grouping, kept)
        named = (*self.template.named_parameters(), *self.template.named_buffers())
        tensors = {name: _empty(x, stays.get(name, {})) for name, x in named}
        for values_by_path in (of_layers(self.template, tensors, stays), attributes):
            for path, values in values_by_path.items():
                found.setdefault(path, {}).update(values)
        small = with_tensors(self.template, tensors)
        set_attributes(small, found)
        return small


def _empty(x: Tensor, dims: Mapping[int, Tensor]) -> Tensor:
    """What is like a tensor of which only some indices stay, without numbers."""
    shape = [dims[dim].numel() if dim in dims else length for dim, length in enumerate(x.shape)]
    empty = torch.empty(shape, dtype=x.dtype, device="meta")
    return nn.Parameter(empty, x.requires_grad) if isinstance(x, nn.Parameter) else empty


def _kept(coupling: Coupling, stays: Cuts) -> Tensor:
    """Units of which something stays, booleans ``(width,)``; all if nothing is cut along them."""
    cut = [
        (part.units, stays[part.name][part.dim]) for part in coupling.slices() if part.dim in stays.get(part.name, {})
    ]
    kept = torch.full((coupling.width,), not cut)
    for units, indices in cut:
        left = units[indices.to(units.device)]
        kept[left[left >= 0]] = True
    return kept


def _is_attention(module: nn.Module) -> bool:
    return isinstance(module, nn.MultiheadAttention) and type(module).forward is nn.MultiheadAttention.forward


def _is_stack(module: nn.Module) -> bool:
    """Whether a recurrent module has several layers or directions to split."""
    kinds = [
        kind for kind in (nn.LSTM, nn.GRU, nn.RNN) if isinstance(module, kind) and type(module).forward is kind.forward
    ]
    return bool(kinds) and isinstance(module, nn.RNNBase) and (module.num_layers > 1 or module.bidirectional)


__all__ = ["Blueprint", "Cuts", "sliced", "with_free_widths", "with_tensors"]
