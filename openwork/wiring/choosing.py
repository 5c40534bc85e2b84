"""Which couplings of a model become groups."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from openwork.wiring.coupling import AxisSlices, Coupling, Side
from openwork.wiring.selection import Selected, parameter_names

# How many names of parameters, or of couplings with their reasons, a line shows.
_SHOWN, _REASONS = 3, 4


@dataclass(frozen=True)
class CouplingChoice:
    """What was decided about one coupling.

    Args:
        coupling: The coupling.
        side: Which of its slices form the groups.
        taken: Whether its units are groups.
        why: The reason if they are not, else empty.
    """

    coupling: Coupling
    side: Side
    taken: bool
    why: str

    def groups(self) -> tuple[str, str]:
        """Whether units are groups, and number x size of them, in words."""
        if not self.taken:
            return "none", ""
        width = self.coupling.width
        return "units", f"{width} x {sum(part.entries for part in self.coupling.side(self.side)) // width}"

    def parameters(self) -> str:
        """Names of what its groups have entries in."""
        names = [part.name for part in self.coupling.side(self.side)]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return ", ".join(names[:_SHOWN]) + more


def choose(model: nn.Module, couplings: Iterable[Coupling], side: Side, selected: Selected) -> list[CouplingChoice]:
    """Take couplings one after the other: those that can lose units, and whose parameters may all be divided.

    Args:
        model: The model that they are of.
        couplings: Any.
        side: Which slices of a coupling form its groups.
        selected: What to include and to exclude.

    Returns:
        A decision for each. Couplings that were taken divide a parameter along one axis, and no entry twice.
    """
    choosing = _Choosing(model, side, selected)
    return [choosing.choose(coupling) for coupling in couplings]


def reasons(choices: Sequence[CouplingChoice]) -> str:
    """Why the first couplings were not taken, in words."""
    said = ", ".join(f"{choice.coupling.name} ({choice.why})" for choice in choices[:_REASONS])
    return f"{said or 'it has none'}{', ...' if len(choices) > _REASONS else ''}"


class _Choosing:
    """Remembers along which axis parameters are divided."""

    def __init__(self, model: nn.Module, side: Side, selected: Selected) -> None:
        names = parameter_names(model)
        self.parameters = {its_names[0]: parameter for parameter, its_names in names.items()}
        self.names = {its_names[0]: its_names for its_names in names.values()}
        self.side: Side = side
        self.selected = selected
        self.axes: dict[str, int] = {}

    def choose(self, coupling: Coupling) -> CouplingChoice:
        """Take a coupling, or say why not."""
        parts = coupling.side(self.side)
        why = next(iter(coupling.reasons), "") or self._why_not(parts)
        if not why:
            self.axes |= {part.name: part.dim for part in parts}
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


__all__ = ["CouplingChoice", "choose", "reasons"]
