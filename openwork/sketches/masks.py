"""Masks of any keep ratio for a model that was trained under sketches, and the pruned models they give."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from openwork.running_statistics import recalibrate_
from openwork.sketches.families import Family, joined
from openwork.sketches.key import Key
from openwork.sketches.module import SketchedModule
from openwork.sketches.nested import Nested
from openwork.sketches.rand_k import RandK
from openwork.sketches.sketch import Diagonal, DiagonalSketch

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

    Raises:
        ValueError: If a family has no masks.
    """
    moved = _moved(sketched) if rule == "magnitude" else {}
    device = next(sketched.module.parameters()).device
    return {family.name: mask(family, ratio, rule, key, moved, device) for family in sketched.families}


def mask(
    family: Family, ratio: float, rule: MaskRule, key: Key, moved: Mapping[str, Tensor], device: torch.device
) -> Tensor:
    """What one family keeps at a ratio.

    Args:
        family: Of entries or units.
        ratio: Kept ones over all, in (0, 1]; rounded up to whole ones.
        rule: Which ones.
        key: What names a random mask, without the family's name.
        moved: By the names of the parameters, how far they are from the shift; for the magnitudes only.
        device: Where.

    Returns:
        The diagonal, float64 ``(size,)``.

    Raises:
        ValueError: If the family has no masks.
    """
    if not isinstance(family.law, DiagonalSketch):
        raise ValueError(
            f"{family.name!r} cannot be pruned under {type(family.law).__name__}, which mixes entries and drops none; "
            "wrap the model with a diagonal sketch"
        )
    size, law = family.size, RandK(float(ratio))
    k = law.kept(size)
    match rule:
        case "random":
            return law.sample(key.at(family=family.name), size, device).weights
        case "nested":
            nested = isinstance(family.law, Nested)
            scales = 1 / family.law.inclusion(size) if nested else torch.full((size,), size / k, dtype=torch.float64)
            return _first(torch.arange(size), k, scales).to(device)
        case "magnitude":
            # Stable, so that the same weights keep the same units everywhere.
            order = family.magnitudes(moved).argsort(descending=True, stable=True)
            return _first(order, k, torch.ones(size, dtype=torch.float64, device=device))


def pruned_weights(sketched: SketchedModule, kept: Masks) -> dict[str, Tensor]:
    """``v + S (z - v)`` of every parameter that the masks change, where z are the weights of the dense model.

    Args:
        sketched: What is pruned.
        kept: Of every family.
    """
    shifts, moved = sketched.shifts, _moved(sketched)
    # What keeps everything must not even round.
    changing = [family for family in sketched.families if bool((kept[family.name] != 1).any())]
    found: dict[str, Tensor] = {}
    for name, maps in joined([family.maps(Diagonal(kept[family.name])) for family in changing]).items():
        left = moved[name]
        for one in maps:
            left = one.apply(left)
        v = shifts[name]
        found[name] = left if v is None else v + left
    return found


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


def _moved(sketched: SketchedModule) -> dict[str, Tensor]:
    """How far the dense model is from the shift, which is what masks drop."""
    shifts = sketched.shifts
    return {name: z if (v := shifts[name]) is None else z - v for name, z in sketched.dense_weights().items()}


def _first(order: Tensor, k: int, scales: Tensor) -> Tensor:
    return torch.zeros_like(scales).index_copy(0, order[:k], scales[order[:k]])


__all__ = [
    "RULES",
    "Batches",
    "MaskRule",
    "Masks",
    "check_ratio",
    "check_rule",
    "mask",
    "masks",
    "prune_",
    "pruned_weights",
]
