"""How many units stay: what nothing reads goes, less what widths have to agree on."""

import re
from collections.abc import Sequence
from math import ceil, gcd, lcm

import torch
from torch import Tensor

from openwork.shrinking.finding import Finding
from openwork.wiring import Coupling


def choose(finding: Finding, *, round_to: int, uniform: bool) -> list[Tensor]:
    """Choose the units that stay, for each coupling.

    At least one unit stays. Where more have to stay than are read, the first ones do that nothing reads.

    Args:
        finding: What can go.
        round_to: Every cut axis of every tensor keeps a multiple of this length, or its own where that is shorter.
        uniform: Whether couplings of equal kind keep equally many: those of layers that differ by a number in the name.

    Returns:
        Booleans ``(width,)``, True for what stays.
    """
    couplings = finding.grouping.couplings
    counts = [max(1, int((~dead).sum())) for dead in finding.dead]
    together = [*finding.grouping.equal, *(kinds(couplings) if uniform else [])]
    while True:
        before = list(counts)
        for which, coupling in enumerate(couplings):
            counts[which] = min(coupling.width, _rounded(coupling, counts[which], round_to))
        for members in together:
            most = max((counts[which] for which in members), default=0)
            for which in members:
                counts[which] = most
        if counts == before:
            return [_kept(dead, count) for dead, count in zip(finding.dead, counts, strict=True)]


def kinds(couplings: Sequence[Coupling]) -> list[list[int]]:
    """Numbers of the couplings of each kind: those of layers that differ by a number in the name."""
    found: dict[tuple[object, ...], list[int]] = {}
    for which, coupling in enumerate(couplings):
        names = {(re.sub(r"\d+", "*", part.name), part.dim) for part in coupling.slices()}
        found.setdefault((coupling.width, frozenset(names)), []).append(which)
    return list(found.values())


def _rounded(coupling: Coupling, count: int, round_to: int) -> int:
    """The next number of units at which all axes are multiples."""
    if count == coupling.width:
        return count
    # An axis with several entries for each unit is a multiple already if those are.
    step = lcm(*(round_to // gcd(round_to, part.multiplicity) for part in coupling.slices()))
    return ceil(count / step) * step


def _kept(dead: Tensor, count: int) -> Tensor:
    kept = ~dead
    spare = count - int(kept.sum())
    if spare > 0:
        kept = kept.clone()
        kept[dead.nonzero().flatten()[:spare]] = True
    return kept


def cuts(couplings: Sequence[Coupling], kept: Sequence[Tensor]) -> dict[str, dict[int, Tensor]]:
    """What stays of each tensor.

    Args:
        couplings: All of the model.
        kept: Units that stay, for each.

    Returns:
        Indices that stay, by name of the tensor and dimension; only where some go.
    """
    stays: dict[tuple[str, int], Tensor] = {}
    for coupling, units in zip(couplings, kept, strict=True):
        if bool(units.all()):
            continue
        for part in coupling.slices():
            here = part.along(units, True).flatten()
            stays[part.name, part.dim] = stays.get((part.name, part.dim), torch.ones_like(here)) & here
    found: dict[str, dict[int, Tensor]] = {}
    for (name, dim), here in stays.items():
        found.setdefault(name, {})[dim] = here.nonzero().flatten()
    return found


__all__ = ["choose", "cuts", "kinds"]
