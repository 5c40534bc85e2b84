"""What was decided about the parameters of a model, and the param groups that follow."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import nn

from openwork.penalties import Penalty, Zero
from openwork.structure import Rank
from openwork.wiring import CouplingChoice


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
        if self.penalty.joins:
            return "coupled", ""
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
        couplings: What was decided about its couplings, if they were asked for.
    """

    def __init__(self, choices: Sequence[Choice], couplings: Sequence[CouplingChoice] = ()) -> None:
        super().__init__()
        self.choices = tuple(choices)
        self.couplings = tuple(couplings)
        members: dict[Penalty, list[Choice]] = {}
        for choice in self.choices:
            if choice.penalty is not None:
                members.setdefault(choice.penalty, []).append(choice)
        # Sorting is stable: free parameters last, all else in the order of the model.
        for penalty, chosen in sorted(members.items(), key=lambda item: isinstance(item[0], Zero)):
            params, names = [c.parameter for c in chosen], [c.name for c in chosen]
            self.append({"params": params, "names": names, "penalty": penalty})

    def onto(self, model: nn.Module) -> "ParamGroups":
        """The same groups over the parameters that a model has now, by their names.

        ``fully_shard`` gives a model new parameters, and one that is sharded cannot be traced: ask for groups before,
        and move them onto the model after.

        Args:
            model: With parameters of the same names and shapes.

        Returns:
            New param groups.

        Raises:
            ValueError: If a parameter is not there, or has another shape.
        """
        present = dict(model.named_parameters(remove_duplicate=False))
        moved: list[Choice] = []
        for choice in self.choices:
            parameter = present.get(choice.name)
            if parameter is None or parameter.shape != choice.parameter.shape:
                found = "does not have it" if parameter is None else f"has one of shape {tuple(parameter.shape)}"
                raise ValueError(
                    f"ParamGroups.onto: these groups have a parameter {choice.name!r} of shape "
                    f"{tuple(choice.parameter.shape)}, and this {type(model).__name__} {found}; pass the model they "
                    "were made for"
                )
            moved.append(replace(choice, parameter=parameter))
        return ParamGroups(moved, self.couplings)

    def describe(self) -> str:
        """Which parameter got which groups and why, as a table; and which couplings did, as another, if there are."""
        rows = [("parameter", "shape", "groups", "number x size", "why")]
        rows += [(c.name, " x ".join(map(str, c.parameter.shape)), *c.groups(), c.why) for c in self.choices]
        if not self.couplings:
            return _table(rows)
        coupled = [("coupling", "groups", "number x size", "parameters", "why")]
        coupled += [(c.coupling.name, *c.groups(), c.parameters(), c.why) for c in self.couplings]
        return f"{_table(coupled)}\n\n{_table(rows)}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
