"""One forward pass of a model on example inputs: how they are unpacked, and the state in which a model is looked at."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree


def check_module(place: str, model: object) -> None:
    """Refuse what is no module.

    Args:
        place: The function that the user called, for the message.
        model: What they passed.

    Raises:
        TypeError: If it is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"{place}: model must be a torch.nn.Module, got {type(model).__name__}")


def arguments(place: str, example_inputs: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of ``model(...)``.

    Args:
        place: The function that the user called, for the message.
        example_inputs: A tensor; a tuple or list of positional arguments; or a dictionary of keyword arguments.
            Arguments may be nested containers.

    Raises:
        ValueError: If there are none.
    """
    empty = isinstance(example_inputs, (Mapping, Sequence)) and not example_inputs
    if example_inputs is None or empty:
        raise ValueError(
            f"{place}: example_inputs is empty, and the operations of a model show only when it runs; "
            "pass a tensor, a tuple of arguments or a dictionary of keyword arguments"
        )
    if isinstance(example_inputs, Mapping):
        return (), {str(name): value for name, value in cast("Mapping[object, Any]", example_inputs).items()}
    if isinstance(example_inputs, (tuple, list)):
        return tuple(cast("Sequence[Any]", example_inputs)), {}
    return (cast("Any", example_inputs),), {}


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Evaluation mode inside; afterwards every module is in the mode it was in, and random numbers go on as before."""
    modes = [(module, module.training) for module in model.modules()]
    # Torch would take all devices, and warn if there are several.
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers()) if tensor.is_cuda}
    try:
        with torch.random.fork_rng(devices):  # pyright: ignore[reportUnknownMemberType]
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training


def run(place: str, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    """Run the model as it is.

    Args:
        place: The function that the user called, for the message.
        model: Any module.
        args: Positional arguments.
        kwargs: Keyword arguments.

    Raises:
        ValueError: If it does not run.
    """
    try:
        return model(*args, **kwargs)
    except Exception as error:
        given = ", ".join([*map(_words, args), *(f"{name}={_words(value)}" for name, value in kwargs.items())])
        raise ValueError(
            f"{place}: {type(model).__name__} does not run on example_inputs ({given}): {first_line(error)}; "
            "pass inputs that model(...) accepts"
        ) from error


def tensors(value: object) -> list[Tensor]:
    """All tensors in nested containers, in order.

    Args:
        value: What a model takes or gives.
    """
    leaves = pytree.tree_leaves(dict(cast("Mapping[object, object]", value)) if isinstance(value, Mapping) else value)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _words(value: object) -> str:
    return f"tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def first_line(error: Exception) -> str:
    """First line of an error's message without its full stop, or the name of its class if it has none."""
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__)


__all__ = ["arguments", "check_module", "evaluating", "first_line", "run", "tensors"]
