"""Which channels of a model can go, what blocks the rest and why: before training."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import nn

from openwork.wiring.coupling import AxisSlices, Coupling
from openwork.wiring.grouping import couplings
from openwork.wiring.layers import rms_eps
from openwork.wiring.propagation import propagate
from openwork.wiring.tracing import trace

# How many names or reasons a line or a coupling of the table shows.
_SHOWN = 3


@dataclass(frozen=True)
class Wiring:
    """The couplings of a model.

    Args:
        couplings: In the order of the model's parameters.
        total: Number of parameters of the model.
    """

    couplings: tuple[Coupling, ...]
    total: int

    @property
    def removable(self) -> tuple[Coupling, ...]:
        """Couplings whose units can be removed."""
        return tuple(coupling for coupling in self.couplings if not coupling.blocked)

    @property
    def blocked(self) -> tuple[Coupling, ...]:
        """Couplings whose units cannot be removed; each says why."""
        return tuple(coupling for coupling in self.couplings if coupling.blocked)

    def __str__(self) -> str:
        rows = [("width", "saves", "producers", "consumers")]
        rows += [(str(c.width), f"{c.saving:,}", _list(c.producers), _list(c.consumers)) for c in self.removable]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        lines.insert(0, f"{_count(self.removable)} can lose units ({self.total:,} parameters)")
        if self.blocked:
            lines.append(f"{len(self.blocked)} {'is' if len(self.blocked) == 1 else 'are'} blocked")
        for coupling in self.blocked:
            lines.append(f"{coupling.name} ({coupling.width} units)")
            lines += [f"    {why}" for why in coupling.reasons[:_SHOWN]]
            if len(coupling.reasons) > _SHOWN:
                lines.append(f"    and {len(coupling.reasons) - _SHOWN} more reasons")
        return "\n".join(lines)


def _count(couplings: tuple[Coupling, ...]) -> str:
    return f"{len(couplings)} coupling{'' if len(couplings) == 1 else 's'}"


def _list(parts: Iterable[AxisSlices]) -> str:
    """Names of weights, with what belongs to one unit where that is more than one index."""
    words = [part.name + (f" (x {part.multiplicity})" if part.multiplicity > 1 else "") for part in parts]
    return ", ".join(words[:_SHOWN]) + (f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else "")


def inspect(model: nn.Module, example_inputs: object) -> Wiring:
    """Find the couplings of a model.

    ``print(inspect(model, x))`` says which units can go, what that saves, and what blocks the rest.

    Args:
        model: Any module that ``trace`` can trace; it is not changed.
        example_inputs: A tensor; a tuple or list of positional arguments; or a dictionary of keyword arguments.

    Returns:
        All couplings, blocked ones included.

    Raises:
        TypeError: If ``model`` is no module.
        ValueError: If there are no example inputs, the model does not run on them, or it cannot be traced.
    """
    found = couplings(propagate(trace(model, example_inputs)))
    total = sum(parameter.numel() for parameter in model.parameters())
    return Wiring(tuple(with_means(model, found.couplings)), total)


def with_means(model: nn.Module, found: Iterable[Coupling]) -> list[Coupling]:
    """Couplings of which those with a mean that nothing can make up for are blocked.

    Args:
        model: The model they are of.
        found: Its couplings.

    Returns:
        The couplings, in the same order.
    """
    result: list[Coupling] = []
    for coupling in found:
        means = [remark for remark in coupling.remarks if remark.kind == "mean"]
        lost = [remark.text for remark in means if rms_eps(model.get_submodule(remark.module)) is None]
        result.append(replace(coupling, reasons=(*coupling.reasons, *lost)))
    return result


__all__ = ["Wiring", "inspect"]
