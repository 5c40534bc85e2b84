"""From units to couplings: units that live on the same axes belong to one."""

from collections import defaultdict
from typing import get_args

import torch
from torch import Tensor

from openwork.wiring.atoms import Atoms, Part, distinct
from openwork.wiring.coupling import AxisSlices, Coupling


def couplings(atoms: Atoms) -> list[Coupling]:
    """Group units that live on the same axes into couplings."""
    unit = atoms.units()
    marked = {part: _flags(atoms.parts[part], unit.numel()) for part in get_args(Part)}
    # A fingerprint of where a unit lives and what is said about it: the sum of a random number for each.
    generator = torch.Generator().manual_seed(0)
    fingerprint = torch.zeros_like(unit)

    def add_random(to: Tensor) -> None:
        number = torch.randint(2**62, (1,), generator=generator)
        fingerprint.index_add_(0, to, number.expand(to.numel()))

    for flags in marked.values():
        for axis in atoms.axes:
            here = flags[axis.start : axis.start + axis.size]
            add_random(unit[axis.start : axis.start + axis.size][here])
    said = [(distinct(unit[ids]), words) for ids, words in (*atoms.blocked, *atoms.remarks)]
    for units, _ in said:
        add_random(units)

    roots = _present(unit[marked["producer"] | marked["consumer"]], unit.numel())
    group = torch.searchsorted(distinct(fingerprint[roots]), fingerprint[roots])
    # Number of a unit within its coupling.
    order = torch.argsort(group, stable=True)
    sizes = group.bincount()
    starts = sizes.cumsum(0) - sizes
    number = torch.full_like(unit, -1)
    number[roots[order]] = torch.arange(roots.numel()) - starts[group[order]]
    group_of = torch.full_like(unit, -1)
    group_of[roots] = group

    parts: defaultdict[tuple[int, Part], list[AxisSlices]] = defaultdict(list)
    for axis in atoms.axes:
        units = unit[axis.start : axis.start + axis.size]
        for part, flags in marked.items():
            here = flags[axis.start : axis.start + axis.size]
            groups = torch.where(here, group_of[units], -1)
            for which in map(int, _present(groups, sizes.numel())):
                numbers = torch.where(groups == which, number[units], -1)
                parts[which, part].append(AxisSlices(axis.name, axis.dim, axis.shape, numbers))
    # All units of a coupling have the same said about them.
    words_of: defaultdict[tuple[int, bool], list[str]] = defaultdict(list)
    for at, (units, words) in enumerate(said):
        for which in map(int, _present(group_of[units], sizes.numel())):
            words_of[which, at < len(atoms.blocked)].append(words)
    firsts = torch.zeros_like(sizes).scatter_reduce(0, group, roots, "amin", include_self=False)
    return [
        _coupling(int(sizes[which]), parts, which, words_of[which, True], words_of[which, False])
        for which in map(int, firsts.argsort())
    ]


def _present(numbers: Tensor, size: int) -> Tensor:
    """The numbers that occur, in order, each once; what is below 0 is none."""
    return _flags([numbers[numbers >= 0]], size).nonzero().flatten()


def _flags(marks: list[Tensor], size: int) -> Tensor:
    flags = torch.zeros(size, dtype=torch.bool)
    for ids in marks:
        flags[ids] = True
    return flags


def _coupling(
    width: int,
    parts: dict[tuple[int, Part], list[AxisSlices]],
    which: int,
    reasons: list[str],
    remarks: list[str],
) -> Coupling:
    producers, consumers, statistics = (tuple(parts.get((which, part), ())) for part in get_args(Part))
    reasons = list(dict.fromkeys(reasons))
    if not producers and not reasons:
        reasons.append("no parameter makes it zero")
    for side in (producers, consumers):
        names = [part.name for part in side]
        for name in {name for name in names if names.count(name) > 1}:
            reasons.append(f"{name} is cut along two of its dimensions on the same side")
    return Coupling(width, producers, consumers, statistics, tuple(reasons), tuple(dict.fromkeys(remarks)))


__all__ = ["couplings"]
