"""Whether one module may take the place of another."""

from collections.abc import Mapping

import torch
from torch import nn

from openwork.forward_pass import arguments
from openwork.wiring import prepared


def replaceable(model: nn.Module, others: Mapping[str, nn.Module], example_inputs: object) -> list[str]:
    """Modules in whose place others run: not where code outside looks at what only the old one has, such as its weight.

    Args:
        model: As before afterwards.
        others: What would take the place of a module, by its path; each takes the same inputs.
        example_inputs: As for ``wiring.trace``.

    Returns:
        The paths of those that may go, in order.
    """
    if not others or _runs(model, others, example_inputs):
        return list(others)
    return [path for path, other in others.items() if _runs(model, {path: other}, example_inputs)]


def put_(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module in every place of another one.

    Args:
        model: Changed in place.
        old: The other one.
        new: The module.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is old:
                setattr(parent, name, new)


def _runs(model: nn.Module, others: Mapping[str, nn.Module], example_inputs: object) -> bool:
    args, kwargs = arguments("shrink", example_inputs)
    old = {path: model.get_submodule(path) for path in others}
    try:
        for path, other in others.items():
            model.set_submodule(path, other)
        with prepared(model), torch.no_grad():
            model(*args, **kwargs)
    except Exception:
        return False
    finally:
        for path, module in old.items():
            model.set_submodule(path, module)
    return True


__all__ = ["put_", "replaceable"]
