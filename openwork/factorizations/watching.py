"""Optimizers that would train a factorized model wrongly say so at their first step."""

import weakref
from collections.abc import Mapping
from math import isclose
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from openwork.factorizations.factorization import parts_of

# Key of a param group that says that decoupled decay is meant.
DECOUPLED = "decoupled"
_ALWAYS_DECOUPLED = tuple(
    kind for name in ("AdamW", "Adafactor", "Muon") if (kind := getattr(torch.optim, name, None)) is not None
)

# What is not in a model any more, by its id: the parameter itself, its name, and what took it away.
_Replaced = dict[int, tuple["weakref.ref[nn.Parameter]", str, str]]
_models: "weakref.WeakKeyDictionary[nn.Module, _Replaced]" = weakref.WeakKeyDictionary()
_seen: "weakref.WeakKeyDictionary[Optimizer, int]" = weakref.WeakKeyDictionary()
_hooks: list[Any] = []


def watch(model: nn.Module, replaced: Mapping[str, nn.Parameter], by: str) -> None:
    """From now on, look at every optimizer at its first step.

    An optimizer that was built before the model was factorized would train parameters that are not in the model any
    more, and nothing would show it.

    Args:
        model: Factorized, or plain again.
        replaced: The parameters that are not in it any more, by name.
        by: The function that took them away.
    """
    found = _models.setdefault(model, {})
    found |= {id(parameter): (weakref.ref(parameter), name, by) for name, parameter in replaced.items()}
    _seen.clear()
    if not _hooks:
        _hooks.append(register_optimizer_step_pre_hook(_look))


def _look(optimizer: Optimizer, args: object, kwargs: object) -> None:
    """Refuse the first step of an optimizer that would train a factorized model wrongly.

    Raises:
        ValueError: If it would.
    """
    if _seen.get(optimizer) == len(optimizer.param_groups):
        return
    decays = {
        id(factor): (part.name, part.factorization.decay, part.factorization.depth)
        for model in _models
        for part in parts_of(model)
        for factor in part.penalized
    }
    replaced = {key: entry for model in _models.values() for key, entry in model.items()}
    me = type(optimizer).__name__
    for group in optimizer.param_groups:
        for param in group["params"]:
            reference, name, by = replaced.get(id(param), (None, "", ""))
            if reference is not None and reference() is param:
                raise ValueError(
                    f"{me}: this optimizer was built before {by}(), and its {name} is not in the model any more; build "
                    f"the optimizer after {by}(){', over handle.param_groups()' if by == 'factorize' else ''}"
                )
            if id(param) in decays:
                _check_decay(me, optimizer, group, *decays[id(param)])
    _seen[optimizer] = len(optimizer.param_groups)


def _check_decay(me: str, optimizer: Optimizer, group: dict[str, Any], name: str, decay: float, depth: int) -> None:
    """Refuse weight decay that is not the L2 that the strength stands for.

    Raises:
        ValueError: If it is not.
    """
    if not decay:
        return
    if group.get("weight_decay") is None or not isclose(group["weight_decay"], decay):
        raise ValueError(
            f"{me}: the weight decay of the factors of {name} is {group.get('weight_decay')}, and lam asks for "
            f"2 lam / depth = {decay:g} (depth {depth}); build the optimizer over handle.param_groups()"
        )
    decoupled = isinstance(optimizer, _ALWAYS_DECOUPLED) or group.get("decoupled_weight_decay", False)
    if decoupled and not group.get(DECOUPLED):
        raise ValueError(
            f"{me}: decoupled weight decay is not the L2 that makes {name} sparse: it is another penalty, whose "
            "strength differs from weight to weight; take torch.optim.Adam, or say handle.param_groups(decoupled=True)"
        )


__all__ = ["DECOUPLED", "watch"]
