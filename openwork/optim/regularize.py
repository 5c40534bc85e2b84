"""Which parameter of a model gets which groups."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from openwork.partitions import Elements, Partition, Slices
from openwork.penalties import Penalty, Zero
from openwork.structure import Rank
from openwork.wiring import Role, role_of

Selection = str | type[nn.Module] | Sequence[str | type[nn.Module]]


@dataclass(frozen=True)
class Choice:
    """What was decided about one parameter.

    Args:
        name: Its name in the model; the first one, if it is shared.
        parameter: The parameter.
        penalty: What it is penalized with, ``Zero()`` if it is free; None if it is in no param group.
        why: The reason.
    """

    name: str
    parameter: nn.Parameter
    penalty: Penalty | None
    why: str

    def groups(self) -> tuple[str, str]:
        """Partition, and number x size of its groups, in words."""
        if self.penalty is None:
            return "left out", ""
        if isinstance(self.penalty, Zero):
            return "free", ""
        # Which structure the penalty makes, read without solving: what is kept does not matter here.
        structure = self.penalty.read(self.parameter.new_zeros(0, dtype=torch.bool))
        if isinstance(structure, Rank):
            return "one matrix", ""
        shape = self.parameter.shape
        return str(structure.groups), f"{prod(structure.groups.grid(shape))} x {structure.groups.size(shape)}"


class ParamGroups(list[dict[str, Any]]):
    """Param groups for an optimizer: one for each partition, and one for the free parameters.

    Each is a dictionary with ``"params"``, ``"names"`` (one for each parameter) and ``"penalty"``, as ``torch.optim``
    and its ``add_param_group`` take it.

    Args:
        choices: What was decided, one for each parameter of the model.
    """

    def __init__(self, choices: Sequence[Choice]) -> None:
        super().__init__()
        self.choices = tuple(choices)
        members: dict[Penalty, list[Choice]] = {}
        for choice in self.choices:
            if choice.penalty is not None:
                members.setdefault(choice.penalty, []).append(choice)
        # Sorting is stable: free parameters last, all else in the order of the model.
        for penalty, chosen in sorted(members.items(), key=lambda item: isinstance(item[0], Zero)):
            params, names = [c.parameter for c in chosen], [c.name for c in chosen]
            self.append({"params": params, "names": names, "penalty": penalty})

    def describe(self) -> str:
        """Which parameter got which groups and why, as a table."""
        rows = [("parameter", "shape", "groups", "number x size", "why")]
        rows += [(c.name, " x ".join(map(str, c.parameter.shape)), *c.groups(), c.why) for c in self.choices]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def regularize(
    model: nn.Module, penalty: Penalty, *, include: Selection | None = None, exclude: Selection | None = None
) -> ParamGroups:
    """Give every weight of a model the papers' groups: the entries that read one input feature are one group.

    Biases, normalizations, embeddings and parameters of unknown layers stay free. ``print(regularize(...).describe())``
    says which parameter got which groups and why.

    Args:
        model: Any module. A shared parameter is taken once, and stays free if any of its layers would leave it free.
        penalty: Copied with the groups of each layer in place of its own; used as it is if it has none.
        include: Only these: names of parameters or modules, in which ``*``, ``?`` and ``[...]`` are wildcards, or
            module types. The full name of a parameter insists on it, whatever its layer: it gets the input slices of
            its layer; of an unknown layer ``Slices(1)``, or ``Elements()`` if it has fewer than two dimensions.
        exclude: Not these, written the same way; it has the last word.

    Returns:
        Param groups that hold each trainable parameter once, penalized ones first, in the order of the model.

    Raises:
        TypeError: If ``penalty`` is not a penalty.
        ValueError: If a selection matches nothing, a parameter named in full is frozen, a parameter has no shape yet,
            or no parameter is left to penalize.

    References:
        Huang & Lee, RAMDA (NeurIPS 2024), arXiv:2403.14398: input slices as groups; biases, norms, embeddings free.
    """
    if not isinstance(penalty, Penalty):
        raise TypeError(f"regularize: penalty must be a penalty such as GroupLasso(1e-4), got {penalty!r}")
    included = None if include is None else _select(model, include, "include")
    excluded = frozenset[str]() if exclude is None else _select(model, exclude, "exclude")
    insisted = frozenset(wanted for wanted in _items(include or ()) if isinstance(wanted, str))

    choices: list[Choice] = []
    chosen = False
    for parameter, names in _names(model).items():
        named = [name for name in names if name in insisted]
        _check(parameter, names, named)
        groups = None
        if not parameter.requires_grad:
            why = "frozen"
        elif not excluded.isdisjoint(names):
            why = "in exclude"
        elif included is not None and included.isdisjoint(names):
            why = "not in include"
        else:
            groups, why = _input_slices(model, parameter, names)
            if groups is None and named:
                groups, why = _own_slices(model, parameter, named[0]), f"named in include ({why})"
        chosen = chosen or groups is not None
        free = Zero() if parameter.requires_grad else None
        choices.append(Choice(names[0], parameter, free if groups is None else penalty.regroup(groups), why))
    if not chosen:
        reasons = ", ".join(f"{choice.name} ({choice.why})" for choice in choices[:4])
        more = ", ..." if len(choices) > 4 else ""
        raise ValueError(
            f"regularize: {type(model).__name__} has no parameter left to penalize: {reasons or 'it has none'}{more}; "
            "give the full name of one in include to insist on it"
        )
    return ParamGroups(choices)


def _names(model: nn.Module) -> dict[nn.Parameter, list[str]]:
    """All names of every parameter, in the order of the model."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return names


def _check(parameter: nn.Parameter, names: Sequence[str], named: Sequence[str]) -> None:
    """Refuse a parameter that can have no groups.

    Raises:
        ValueError: If it has no shape yet, or is named in full and does not train.
    """
    if is_lazy(parameter):
        raise ValueError(
            f"regularize: {names[0]!r} has no shape yet; call the model on one batch before giving it groups"
        )
    if named and not parameter.requires_grad:
        raise ValueError(
            f"regularize: include names {named[0]!r}, which does not train (requires_grad is False, "
            f"dtype {parameter.dtype}); let it train or take it out of include"
        )


def _items(selection: Selection) -> Sequence[str | type[nn.Module]]:
    return [selection] if isinstance(selection, str | type) else selection


def _select(model: nn.Module, selection: Selection, argument: str) -> frozenset[str]:
    """Names of the parameters that a selection means.

    Raises:
        ValueError: If an item of it matches nothing.
    """
    parameters = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    modules = dict(model.named_modules(remove_duplicate=False))
    selected: set[str] = set()
    for item in _items(selection):
        if isinstance(item, str):
            found = [name for name in parameters if fnmatchcase(name, item) or fnmatchcase(name, f"{item}.*")]
        else:
            owners = tuple(f"{name}." if name else "" for name, module in modules.items() if isinstance(module, item))
            found = [name for name in parameters if name.startswith(owners)]
        if not found:
            # The nearest names, or the types that there are.
            known = (
                [*parameters, *filter(None, modules)]
                if isinstance(item, str)
                else {type(m).__name__ for m in modules.values()}
            )
            wanted = item if isinstance(item, str) else item.__name__
            nearest = ", ".join(get_close_matches(wanted, known, cutoff=0.0))
            raise ValueError(
                f"regularize: {argument} {wanted!r} matches no parameter of {type(model).__name__}; "
                f"nearest are {nearest}"
            )
        selected.update(found)
    return frozenset(selected)


def _layer_and_role(model: nn.Module, name: str) -> tuple[str, Role | None]:
    """Type of the layer that holds a parameter, and what the parameter means there."""
    owner, _, local = name.rpartition(".")
    layer = model.get_submodule(owner)
    return type(layer).__name__, role_of(layer, local)


def _input_slices(model: nn.Module, parameter: nn.Parameter, names: Sequence[str]) -> tuple[Partition | None, str]:
    """The groups on which all layers of a parameter agree, or None if it stays free; and the reason."""
    shared = f", shared with {' and '.join(names[1:])}" if len(names) > 1 else ""
    found: set[Partition | None] = set()
    why = ""
    for name in names:
        layer, role = _layer_and_role(model, name)
        if role is None:
            return None, f"parameter of {layer}, whose input is not known{shared}"
        why = f"{role.kind} of {layer}{shared}"
        if role.kind != "weight":
            return None, why
        found.add(role.input_slices(parameter.shape))
    if len(found) > 1:
        return None, f"layers do not agree on its input{shared}"
    return found.pop(), why


def _own_slices(model: nn.Module, parameter: nn.Parameter, name: str) -> Partition:
    """The groups of a parameter that stays free unless somebody insists."""
    _, role = _layer_and_role(model, name)
    slices = None if role is None else role.input_slices(parameter.shape)
    if slices is not None:
        return slices
    return Slices(1) if parameter.ndim > 1 else Elements()
