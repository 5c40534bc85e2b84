"""Which parameter of a model gets which groups."""

from collections.abc import Sequence

from torch import nn
from torch.nn.parameter import is_lazy

from openwork.optim.choices import Choice, ParamGroups
from openwork.optim.couplings import coupled_groups
from openwork.partitions import Elements, Partition, Slices
from openwork.penalties import Penalty, Zero
from openwork.sharding import check_undivided
from openwork.wiring import Role, Selection, Side, parameter_names, role_of, selected


def regularize(
    model: nn.Module,
    penalty: Penalty,
    example_inputs: object = None,
    side: Side = "consumers",
    *,
    include: Selection | None = None,
    exclude: Selection | None = None,
) -> ParamGroups:
    """Give the weights of a model groups: those of the papers, or those that can be removed.

    Without ``example_inputs`` every weight has the papers' groups: the entries that read one input feature are one
    group. Biases, normalizations, embeddings and parameters of unknown layers stay free.

    With them, the model is traced, and a group is one unit of one removable coupling (``openwork.wiring.inspect`` lists
    them): on side ``"consumers"`` all that reads the unit, in all weights that do, and on side ``"producers"`` all that
    writes it, biases and scales of normalizations included. A group is zero exactly if its unit can be removed without
    a change. Its size, for penalties that ask, is that of all its entries together. Entries of no removable coupling
    stay free, and so do whole couplings that have a frozen parameter. A parameter that is coupled to others and has no
    gradient in a step moves as if it were zero, provided that any of the coupled ones has a gradient.

    ``print(regularize(...).describe())`` says which parameter got which groups and why.

    Args:
        model: Any module. A shared parameter is taken once, and stays free if any of its layers would leave it free.
        penalty: Copied with the groups of each layer in place of its own; used as it is if it has none.
        example_inputs: A tensor, a tuple of arguments or a dictionary of keyword arguments that ``model`` accepts.
            Only shapes matter. The penalty must have groups then.
        side: Which side of a coupling is a group.
        include: Only these: names of parameters or modules, in which ``*``, ``?`` and ``[...]`` are wildcards, or
            module types. The full name of a parameter insists on it, whatever its layer: it gets the input slices of
            its layer; of an unknown layer ``Slices(1)``, or ``Elements()`` if it has fewer than two dimensions. A
            coupling is taken if all its parameters on that side are included.
        exclude: Not these, written the same way; it has the last word. A coupling is not taken if any of its parameters
            on that side is excluded.

    Returns:
        Param groups that hold each trainable parameter once, penalized ones first, in the order of the model. All
        couplings are one param group.

    Raises:
        TypeError: If ``penalty`` is not a penalty, or has no groups although couplings are asked for.
        ValueError: If a selection matches nothing, a parameter named in full is frozen, a parameter has no shape yet,
            no parameter or coupling is left to penalize, ``side`` is not one of the two or needs ``example_inputs``,
            or the model cannot be traced, as when it is sharded already (see ``ParamGroups.onto``).

    References:
        Huang & Lee, RAMDA (NeurIPS 2024), arXiv:2403.14398: input slices as groups; biases, norms, embeddings free.
    """
    if not isinstance(penalty, Penalty):
        raise TypeError(f"regularize: penalty must be a penalty such as GroupLasso(1e-4), got {penalty!r}")
    if side not in ("producers", "consumers"):
        raise ValueError(f"regularize: side must be 'producers' or 'consumers', got {side!r}")
    if side == "producers" and example_inputs is None:
        raise ValueError(
            "regularize: side='producers' groups the units of couplings, which show only when the model runs; "
            "pass example_inputs"
        )
    choice = selected(model, include, exclude, "regularize")
    names = parameter_names(model)
    for parameter, its_names in names.items():
        _check(parameter, its_names, choice.insists(its_names))
    if example_inputs is not None:
        way_out = "regularize the model before fully_shard, and give the optimizer groups.onto(model) after it"
        check_undivided("regularize", model.named_parameters(), f"such a model cannot be traced: {way_out}")
        return coupled_groups(model, penalty, example_inputs, side, choice)

    choices: list[Choice] = []
    chosen = False
    for parameter, its_names in names.items():
        named, groups = choice.insists(its_names), None
        if not parameter.requires_grad:
            why = "frozen"
        elif not (why := choice.why_not(its_names)):
            groups, why = _input_slices(model, parameter, its_names)
            if groups is None and named:
                groups, why = _own_slices(model, parameter, named), f"named in include ({why})"
        chosen = chosen or groups is not None
        free = Zero() if parameter.requires_grad else None
        choices.append(Choice(its_names[0], parameter, free if groups is None else penalty.regroup(groups), why))
    if not chosen:
        reasons = ", ".join(f"{choice.name} ({choice.why})" for choice in choices[:4])
        more = ", ..." if len(choices) > 4 else ""
        raise ValueError(
            f"regularize: {type(model).__name__} has no parameter left to penalize: {reasons or 'it has none'}{more}; "
            "give the full name of one in include to insist on it"
        )
    return ParamGroups(choices)


def _check(parameter: nn.Parameter, names: Sequence[str], named: str) -> None:
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
            f"regularize: include names {named!r}, which does not train (requires_grad is False, "
            f"dtype {parameter.dtype}); let it train or take it out of include"
        )


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
