"""Which parameters of a model are meant."""

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

Selection = str | type[nn.Module] | Sequence[str | type[nn.Module]]


def parameter_names(model: nn.Module) -> dict[nn.Parameter, list[str]]:
    """All names of every parameter, in the order of the model."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return names


def items(selection: Selection) -> Sequence[str | type[nn.Module]]:
    """What a selection lists."""
    return [selection] if isinstance(selection, str | type) else selection


def select(model: nn.Module, selection: Selection, argument: str) -> frozenset[str]:
    """Names of the parameters that a selection means.

    Raises:
        ValueError: If an item of it matches nothing.
    """
    parameters = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    modules = dict(model.named_modules(remove_duplicate=False))
    selected: set[str] = set()
    for item in items(selection):
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
