"""Which parameters of a model are meant."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import cast

from torch import nn

Selection = str | type[nn.Module] | Sequence[str | type[nn.Module]]


@dataclass(frozen=True)
class Selected:
    """What ``include`` and ``exclude`` mean in a model.

    Args:
        included: Names of parameters; None for all.
        excluded: Names of parameters; they have the last word.
        named: Names that are written in full in ``include``, which insists on them.
    """

    included: frozenset[str] | None
    excluded: frozenset[str]
    named: frozenset[str]

    def why_not(self, names: Sequence[str]) -> str:
        """Why a parameter is left out, given all its names; empty if it is not."""
        if not self.excluded.isdisjoint(names):
            return "in exclude"
        if self.included is not None and self.included.isdisjoint(names):
            return "not in include"
        return ""

    def insists(self, names: Sequence[str]) -> str:
        """The name by which ``include`` insists on a parameter; empty if it does not."""
        return next((name for name in names if name in self.named), "")


def selected(model: nn.Module, include: Selection | None, exclude: Selection | None, owner: str) -> Selected:
    """What ``include`` and ``exclude`` mean in a model.

    Args:
        model: Any module.
        include: Names of parameters or modules, in which ``*``, ``?`` and ``[...]`` are wildcards, or module types;
            None for all.
        exclude: Not these, written the same way; None for none.
        owner: Who asks, for messages.

    Returns:
        The names.

    Raises:
        ValueError: If an item matches nothing.
    """
    return Selected(
        None if include is None else select(model, include, f"{owner}: include"),
        frozenset[str]() if exclude is None else select(model, exclude, f"{owner}: exclude"),
        frozenset(item for item in _items(include or ()) if isinstance(item, str)),
    )


def parameter_names(model: nn.Module) -> dict[nn.Parameter, list[str]]:
    """All names of every parameter, in the order of the model."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return names


def select(model: nn.Module, selection: Selection, argument: str) -> frozenset[str]:
    """Names of the parameters that a selection means.

    Args:
        model: Any module.
        selection: As in ``selected``.
        argument: What to call it in a message, such as ``"regularize: include"``.

    Returns:
        All names; a shared parameter has several, and not all of them need be there.

    Raises:
        ValueError: If an item of it matches nothing.
    """
    parameters = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    modules: dict[str, nn.Module] = dict(
        cast("Iterable[tuple[str, nn.Module]]", model.named_modules(remove_duplicate=False))
    )
    meant: set[str] = set()
    for item in _items(selection):
        if isinstance(item, str):
            found = [name for name in parameters if fnmatchcase(name, item) or fnmatchcase(name, f"{item}.*")]
        else:
            owners: tuple[str, ...] = tuple(
                f"{name}." if name else "" for name, module in modules.items() if isinstance(module, item)
            )
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
                f"{argument} {wanted!r} matches no parameter of {type(model).__name__}; nearest are {nearest}"
            )
        meant.update(found)
    return frozenset(meant)


def _items(selection: Selection) -> Sequence[str | type[nn.Module]]:
    return [selection] if isinstance(selection, str | type) else selection


__all__ = ["Selected", "Selection", "parameter_names", "select", "selected"]
