"""Pruned models to hand over: plain modules, of which zeros can be taken out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from openwork.sketches.key import Key
from openwork.sketches.masks import (
    RULES,
    Batches,
    MaskRule,
    Masks,
    check_ratio,
    check_rule,
    masks,
    prune_,
    pruned_weights,
)
from openwork.sketches.module import SketchedModule
from openwork.sketches.objective import check_sketched

Rule = Literal["random", "best_of", "magnitude", "nested"]


@dataclass(frozen=True, eq=False)
class Choice:
    """Masks that a rule has chosen.

    Args:
        masks: Diagonals by the names of the families.
        rule: That draws them from ``key``.
        key: Of the draw.
    """

    masks: Masks
    rule: MaskRule
    key: Key


def export_submodel(
    sketched: SketchedModule,
    ratio: float,
    rule: Rule = "random",
    n: int = 16,
    evaluate: Callable[[nn.Module], float] | None = None,
    batches: Batches | None = None,
    key: Key | None = None,
) -> nn.Module:
    """The pruned model at a keep ratio, ``v + S (z - v)`` of the dense weights z, as a plain module.

    With units and the shift ``"zero"``, what reads a dropped unit is exactly zero, so that ``ow.shrink`` takes the unit
    out. Other shifts leave what is dropped at the shift's values: a base model with a sparse change.

    The rules, each with K = ratio * d of the d entries or units of every family, rounded up:

    * ``"random"``: K at random. What is kept is multiplied by d / K, as in training, so that the mean over all masks is
      the dense model.
    * ``"best_of"``: the best of ``n`` random ones, by ``evaluate``.
    * ``"nested"``: the first K, multiplied by ``1 / p_j`` of the ``Nested`` law under which the model was trained, or
      by d / K if it was trained under another.
    * ``"magnitude"``: the K largest ``|z - v|``, or units by the norm of all that reads them. Not multiplied: what is
      dropped is small, no random part of a whole that the rest has to make up for.

    Args:
        sketched: Its shift, granularity and present weights; not changed.
        ratio: That is kept of each family, in (0, 1]; 1 is the dense model.
        rule: Which entries or units are kept.
        n: Masks among which ``"best_of"`` chooses, >= 1.
        evaluate: A number of a plain module in evaluation mode, the larger the better, such as the accuracy on
            validation samples; for ``"best_of"``.
        batches: Inputs and targets with which batch normalization is recalibrated, every candidate's too.
        key: What names the masks; ``Key(0)`` if left out.

    Returns:
        A copy, in evaluation mode.

    Raises:
        TypeError: If ``sketched`` is no ``SketchedModule``.
        ValueError: If ``ratio`` or ``n`` is out of range, there is no such rule, ``"best_of"`` has no ``evaluate``, or
            the law has no masks.
    """
    check_sketched("export_submodel", sketched)
    choice = choose("export_submodel", sketched, ratio, rule, n, evaluate, batches, Key(0) if key is None else key)
    return prune_(sketched.dense(), pruned_weights(sketched, choice.masks), batches)


@torch.no_grad()
def choose(
    place: str,
    sketched: SketchedModule,
    ratio: float,
    rule: Rule,
    n: int,
    evaluate: Callable[[nn.Module], float] | None,
    batches: Batches | None,
    key: Key,
) -> Choice:
    """The masks that a rule chooses; arguments as those of ``export_submodel``.

    Args:
        place: The function that the user called, for the message.
        sketched: What is pruned.
        ratio: That is kept.
        rule: Which entries or units are kept.
        n: Masks among which ``"best_of"`` chooses.
        evaluate: By which it chooses.
        batches: With which batch normalization is recalibrated.
        key: What names the masks.

    Raises:
        ValueError: If an argument is wrong.
    """
    check_ratio(place, ratio)
    check_rule(place, rule, (*RULES, "best_of"))
    if rule != "best_of":
        return Choice(masks(sketched, ratio, rule, key), rule, key)
    if evaluate is None:
        raise ValueError(f"{place}: rule='best_of' needs evaluate, a number of a module by which the best is chosen")
    if n < 1:
        raise ValueError(f"{place}: n must be at least 1 mask, got {n}")
    choices = [Choice(masks(sketched, ratio, "random", k), "random", k) for k in (key.at(draw=at) for at in range(n))]
    # Each on a copy of its own: recalibration must not build on that of another mask.
    scores = [evaluate(prune_(sketched.dense(), pruned_weights(sketched, c.masks), batches)) for c in choices]
    return choices[max(range(n), key=scores.__getitem__)]


__all__ = ["Choice", "Rule", "choose", "export_submodel"]
