"""Which couplings of a model become groups."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from openwork.optim.choices import Choice, CouplingChoice, ParamGroups
from openwork.penalties import Coupled, GroupPenalty, Penalty, Target, Zero
from openwork.wiring import AxisSlices, Coupling, Selected, Side, inspect, parameter_names


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
    selection = _Selection(model, side, selected)
    choices = [selection.choose(coupling) for coupling in inspect(model, example_inputs).couplings]
    if not selection.taken:
        reasons = ", ".join(f"{choice.coupling.name} ({choice.why})" for choice in choices[:4])
        more = ", ..." if len(choices) > 4 else ""
        raise ValueError(
            f"regularize: {type(model).__name__} has no coupling left to penalize: {reasons or 'it has none'}{more}; "
            "leave example_inputs out to give the weights groups that need not be removable"
        )
    shapes = {
        name: tuple(parameter.shape) for name, parameter in selection.parameters.items() if name in selection.taken
    }
    coupled = _couple(penalty, [choice.coupling.side(side) for choice in choices if choice.taken], shapes)
    parameters: list[Choice] = []
    for name, parameter in selection.parameters.items():
        if name in selection.taken:
            of = ", ".join(dict.fromkeys(coupling.name for coupling in selection.taken[name]))
            parameters.append(Choice(name, parameter, coupled, f"{side} of {of}"))
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


class _Selection:
    """Takes couplings one after the other.

    Args:
        model: The model.
        side: Which slices of a coupling form its groups.
        selected: What to include and to exclude.
    """

    def __init__(self, model: nn.Module, side: Side, selected: Selected) -> None:
        names = parameter_names(model)
        self.parameters = {its_names[0]: parameter for parameter, its_names in names.items()}
        self.names = {its_names[0]: its_names for its_names in names.values()}
        self.side: Side = side
        self.selected = selected
        #: The couplings that were taken, by name of a parameter that they divide; and the axis that they divide.
        self.taken: dict[str, list[Coupling]] = {}
        self.axes: dict[str, int] = {}

    def choose(self, coupling: Coupling) -> CouplingChoice:
        """Take a coupling, or say why not."""
        parts = coupling.side(self.side)
        why = next(iter(coupling.reasons), "") or self._why_not(parts)
        if not why:
            for part in parts:
                self.taken.setdefault(part.name, []).append(coupling)
                self.axes[part.name] = part.dim
        return CouplingChoice(coupling, self.side, not why, why)

    def _why_not(self, parts: Sequence[AxisSlices]) -> str:
        if not parts:
            return f"it has no {self.side}"
        for part in parts:
            name = part.name
            if name not in self.parameters or not self.parameters[name].requires_grad:
                return f"{name} is frozen"
            if why := self.selected.why_not(self.names[name]):
                return f"{name} is {why}"
            if self.axes.get(name, part.dim) != part.dim:
                return f"{name} is already divided along its axis {self.axes[name]}"
        parameters = [self.parameters[part.name] for part in parts]
        if len({p.device for p in parameters}) > 1:
            return "its parameters are on several devices"
        # The state of half precision is in single.
        if len({torch.promote_types(p.dtype, torch.float32) for p in parameters}) > 1:
            return "its parameters are in single and in double precision"
        return ""
