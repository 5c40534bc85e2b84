"""Parameter groups: their options, counters, names, and the algorithm they ask for."""

from collections.abc import Callable, Iterable
from functools import cache
from math import inf
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from openwork.kernels import Scalar

Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
Group = dict[str, Any]
P = ParamSpec("P")
R = TypeVar("R")


def named(group: Group) -> list[tuple[str, Tensor]]:
    """Parameters of a group with what to call them in a message."""
    names = group.get("names") or group.get("param_names")
    params: list[Tensor] = group["params"]
    if names is None:
        return [(f"parameter {i} of shape {tuple(p.shape)}", p) for i, p in enumerate(params)]
    return [(f"parameter {name!r}", p) for name, p in zip(names, params, strict=True)]


def check_range(
    owner: str,
    group: Group,
    name: str,
    *,
    low: float = 0.0,
    high: float = inf,
    above: bool = False,
    below: bool = False,
) -> None:
    """Refuse an option outside ``[low, high]``, where ``low`` is left out if ``above``, and ``high`` if ``below``.

    Raises:
        ValueError: If it is outside or not a number.
    """
    try:
        value = float(group[name])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{owner}: {name} must be a number, got {group[name]!r}") from error
    if not (low < value if above else low <= value) or not (value < high if below else value <= high):
        bounds = f"{'above' if above else 'at least'} {low:g}"
        if high < inf:
            bounds += f" and {'below' if below else 'at most'} {high:g}"
        elif below:
            bounds += " and finite"
        raise ValueError(f"{owner}: {name} must be {bounds}, got {value:g}")


def count_(group: Group, key: str, value: Scalar) -> None:
    """Set a counter; in place on a device, so that a captured step goes on counting."""
    if isinstance(group[key], Tensor):
        group[key].copy_(torch.as_tensor(value))
    else:
        group[key] = value


def beside(group: Group, number: Scalar) -> Scalar:
    """A number on the device of the group's parameters; nobody waits, unless these are on the CPU, and it is not."""
    params: list[Tensor] = group["params"]
    return number.to(params[0].device) if isinstance(number, Tensor) and params else number


def rate(group: Group) -> Scalar:
    """The learning rate in double precision, so that a sum of rates is as exact as that of Python numbers."""
    lr = group["lr"]
    if not isinstance(lr, Tensor):
        return lr
    return float(lr) if lr.device.type == "cpu" else beside(group, lr.double())


@cache
def _compiled(function: Callable[P, R]) -> Callable[P, R]:
    # One function serves every param group of every optimizer in a process, and each is compiled for itself.
    # (The overloads of torch 2.13 forget this argument.)
    return torch.compile(function, fullgraph=True, recompile_limit=128)  # pyright: ignore[reportCallIssue]


def algorithm(group: Group, function: Callable[P, R]) -> Callable[P, R]:
    """The algorithm itself, or its compiled twin where the group asks for that."""
    return _compiled(function) if group["compile"] else function
