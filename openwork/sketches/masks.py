"""Masks of any keep ratio for a model that was trained under sketches, and the pruned models they give."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Literal

import torch
from torch import Tensor, nn

from openwork.running_statistics import recalibrate_
from openwork.sketches.families import Family, joined
from openwork.sketches.key import Key
from openwork.sketches.module import SketchedModule
from openwork.sketches.rand_k import RandK

MaskRule = Literal["random", "magnitude", "nested"]
RULES = ("random", "magnitude", "nested")

# Inputs and targets, with which batch normalization is recalibrated: gone through once for every mask.
Batches = Sequence[tuple[Tensor, Tensor]]

# The diagonal of every family, by its name.
Masks = Mapping[str, Tensor]


def check_ratio(place: str, ratio: float) -> None:
    """Refuse what is no keep ratio.

    Args:
        place: The function that the user called, for the message.
        ratio: What they passed.

    Raises:
        ValueError: If it is not in (0, 1].
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"{place}: a keep ratio must be above 0 and at most 1, got {ratio}; 1 keeps everything")


def check_rule(place: str, rule: str, rules: Sequence[str] = RULES) -> None:
    """Refuse what is no rule.

    Args:
        place: The function that the user called, for the message.
        rule: What they passed.
        rules: What there is.

    Raises:
        ValueError: If it is none of them.
    """
    if rule not in rules:
        raise ValueError(f"{place}: rule must be one of {', '.join(map(repr, rules))}, got {rule!r}")


def masks(sketched: SketchedModule, ratio: float, rule: MaskRule, key: Key) -> dict[str, Tensor]:
    """What every family keeps at a ratio.

    Args:
        sketched: What is pruned.
        ratio: Kept entries or units of each family over all, in (0, 1]; rounded up to whole ones.
        rule: Which ones: see ``export_submodel``.
        key: What names a random mask.

    Returns:
        Diagonals by the names of the families: 0 where something is dropped, else its scale.
    """
    device = next(sketched.module.parameters()).device
    moved = _moved(sketched) if rule == "magnitude" else {}
    return {family.name: mask(family, ratio, rule, key, device, moved) for family in sketched.families}


def mask(
    family: Family, ratio: float, rule: MaskRule, key: Key, device: torch.device, moved: Mapping[str, Tensor]
) -> Tensor:
    """What one family keeps at a ratio.

    Args:
        family: Of entries or units.
        ratio: Kept ones over all, in (0, 1]; rounded up to whole ones.
        rule: Which ones.
        key: What names a random mask, without the family's name.
        device: Where.
        moved: By the names of the parameters, ``x - v``; for the magnitudes only.

    Returns:
        The diagonal, float64 ``(size,)``.
    """
    size, law = family.size, RandK(float(ratio))
    k = law.kept(size)
    match rule:
        case "random":
            return law.sample(key.at(family=family.name), size, device).weights
        case "nested":
            return _first(torch.arange(size, device=device), k, size / k)
        case "magnitude":
            # Stable, so that the same weights keep the same units everywhere.
            return _first(family.magnitudes(moved).argsort(descending=True, stable=True), k, 1.0)


def pruned_weights(sketched: SketchedModule, kept: Masks) -> dict[str, Tensor]:
    """``v + S (x - v)`` of every parameter that the masks change.

    Args:
        sketched: What is pruned.
        kept: Of every family.
    """
    # What keeps everything must not even round.
    return sketched.weights(joined([f.maps(kept[f.name]) for f in sketched.families if (kept[f.name] != 1).any()]))


@torch.no_grad()
def prune_(module: nn.Module, weights: Mapping[str, Tensor], batches: Batches | None) -> nn.Module:
    """Give a module other weights, and the running statistics that belong to them.

    Args:
        module: Changed; in evaluation mode afterwards.
        weights: By the names of its parameters.
        batches: With which batch normalization is recalibrated, if given.

    Returns:
        The module.
    """
    for name, weight in weights.items():
        module.get_parameter(name).copy_(weight)
    if batches is not None:
        recalibrate_(module, batches)
    return module.eval()


def dense(sketched: SketchedModule) -> nn.Module:
    """A copy of the model that is not sketched, in evaluation mode.

    Args:
        sketched: What is copied.
    """
    return deepcopy(sketched.module).eval()


def _moved(sketched: SketchedModule) -> dict[str, Tensor]:
    """``x - v``, which is what a mask drops."""
    x = {name: sketched.module.get_parameter(name).detach() for name in sketched.shifts}
    return {name: x[name] if v is None else x[name] - v for name, v in sketched.shifts.items()}


def _first(order: Tensor, k: int, scale: float) -> Tensor:
    weights = torch.zeros(len(order), dtype=torch.float64, device=order.device)
    weights[order[:k]] = scale
    return weights


__all__ = [
    "RULES",
    "Batches",
    "MaskRule",
    "Masks",
    "check_ratio",
    "check_rule",
    "dense",
    "mask",
    "masks",
    "prune_",
    "pruned_weights",
]
