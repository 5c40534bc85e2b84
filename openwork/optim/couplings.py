"""Which couplings of a model become groups."""

from collections.abc import Mapping, Sequence

from torch import nn

from openwork.optim.choices import Choice, ParamGroups
from openwork.penalties import Coupled, GroupPenalty, Penalty, Target, Zero
from openwork.wiring import AxisSlices, Selected, Side, choose, inspect, parameter_names, reasons


def coupled_groups(
    model: nn.Module,
    penalty: Penalty,
    example_inputs: object,
    side: Side,
    selected: Selected,
) -> ParamGroups:
    """One param group of the removable couplings of a model, and one of what is left; see ``regularize``.

    Args:
        model: Any module that can be traced.
        penalty: One that drops groups.
        example_inputs: What the model accepts.
        side: Which slices of a coupling form its groups.
        selected: What to include and to exclude.

    Returns:
        The param groups.

    Raises:
        TypeError: If ``penalty`` does not drop groups that can be chosen.
        ValueError: If no coupling is left, or the model cannot be traced.
    """
    _couple(penalty, [], {})
    choices = choose(model, inspect(model, example_inputs).couplings, side, selected)
    taken: dict[str, list[str]] = {}
    for choice in choices:
        for part in choice.coupling.side(side) if choice.taken else ():
            taken.setdefault(part.name, []).append(choice.coupling.name)
    if not taken:
        raise ValueError(
            f"regularize: {type(model).__name__} has no coupling left to penalize: {reasons(choices)}; "
            "leave example_inputs out to give the weights groups that need not be removable"
        )
    named = {its_names[0]: parameter for parameter, its_names in parameter_names(model).items()}
    shapes = {name: tuple(parameter.shape) for name, parameter in named.items() if name in taken}
    coupled = _couple(penalty, [choice.coupling.side(side) for choice in choices if choice.taken], shapes)
    parameters: list[Choice] = []
    for name, parameter in named.items():
        if name in taken:
            parameters.append(Choice(name, parameter, coupled, f"{side} of {', '.join(dict.fromkeys(taken[name]))}"))
        elif parameter.requires_grad:
            parameters.append(Choice(name, parameter, Zero(), f"not among the coupled {side}"))
        else:
            parameters.append(Choice(name, parameter, None, "frozen"))
    return ParamGroups(parameters, choices)


def _couple(
    penalty: Penalty, sides: Sequence[Sequence[AxisSlices]], shapes: Mapping[str, tuple[int, ...]]
) -> Target | Coupled:
    """A copy of a penalty whose groups are units of couplings.

    Raises:
        TypeError: If it does not drop groups that can be chosen.
    """
    if isinstance(penalty, Target) and isinstance(penalty.penalty, GroupPenalty):
        # All units of all couplings are ranked together.
        return Target(Coupled.of(penalty.penalty, sides, shapes), penalty.zero_fraction)
    if not isinstance(penalty, GroupPenalty):
        raise TypeError(
            f"regularize: units of couplings need a penalty that drops groups, as GroupLasso does, got {penalty!r}; "
            "take another, or leave example_inputs out"
        )
    return Coupled.of(penalty, sides, shapes)
