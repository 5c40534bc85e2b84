"""From units to couplings: units that live on the same axes belong to one."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from openwork.wiring.atoms import Atoms, Part, distinct
from openwork.wiring.coupling import AxisSlices, Coupling, Remark


@dataclass(frozen=True, eq=False)
class Length:
    """A length that a module is told as a number, and what it depends on.

    Args:
        module: Path of the module.
        dim: Dimension of which it is the length.
        coupling: For every entry of a tensor the number of its coupling, -1 where it has none.
        unit: For every entry the number of its unit.
        derived: Whether the module leaves it to torch to work the number out.
    """

    module: str
    dim: int
    coupling: Tensor
    unit: Tensor
    derived: bool

    def after(self, kept: Sequence[Tensor]) -> int:
        """The length when only some units are kept.

        Args:
            kept: Booleans ``(width,)`` for each coupling.
        """
        alive = torch.ones_like(self.coupling, dtype=torch.bool)
        for which in map(int, distinct(self.coupling)):
            if which >= 0:
                here = self.coupling == which
                alive[here] = kept[which][self.unit[here]]
        others = [dim for dim in range(alive.ndim) if dim != self.dim]
        return int((alive.any(dim=others) if others else alive).sum())


@dataclass(frozen=True, eq=False)
class Grouping:
    """Couplings, and what ties their widths to each other and to the code.

    Args:
        couplings: In the order of the parameters.
        lengths: Numbers that modules are told.
        equal: Numbers of couplings that must keep equally many units.
    """

    couplings: list[Coupling]
    lengths: list[Length]
    equal: list[list[int]]


def couplings(atoms: Atoms) -> Grouping:
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
    blocked = [(distinct(unit[ids]), why) for ids, why in atoms.blocked]
    remarked = [(distinct(unit[ids]), remark) for ids, remark in atoms.remarks]
    for units, _ in (*blocked, *remarked):
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
    reasons: defaultdict[int, list[str]] = defaultdict(list)
    remarks: defaultdict[int, list[Remark]] = defaultdict(list)
    for units, why in blocked:
        for which in map(int, _present(group_of[units], sizes.numel())):
            reasons[which].append(why)
    for units, remark in remarked:
        for which in map(int, _present(group_of[units], sizes.numel())):
            remarks[which].append(remark)
    read = atoms.is_read(unit) if atoms.weighed else None
    in_order = torch.zeros_like(sizes).scatter_reduce(0, group, roots, "amin", include_self=False).argsort()
    found = [
        _coupling(
            int(sizes[which]),
            parts,
            which,
            reasons[which],
            remarks[which],
            None if read is None else read[roots[order][starts[which] : starts[which] + sizes[which]]],
        )
        for which in map(int, in_order)
    ]
    place = torch.full((sizes.numel() + 1,), -1)
    place[in_order] = torch.arange(len(in_order))

    def coupling_of(ids: Tensor) -> Tensor:
        return torch.where(ids < 0, -1, place[group_of[unit[ids]]])

    lengths = [Length(x.module, x.dim, coupling_of(x.ids), number[unit[x.ids]], x.derived) for x in atoms.sizes]
    equal = [[int(which) for ids in groups for which in distinct(coupling_of(ids))] for groups in atoms.balanced]
    return Grouping(found, lengths, equal)


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
    remarks: list[Remark],
    read: Tensor | None,
) -> Coupling:
    producers, consumers, statistics = (tuple(parts.get((which, part), ())) for part in get_args(Part))
    reasons = list(dict.fromkeys(reasons))
    if not producers and not reasons:
        reasons.append("no parameter makes it zero")
    for side in (producers, consumers):
        names = [part.name for part in side]
        for name in {name for name in names if names.count(name) > 1}:
            reasons.append(f"{name} is cut along two of its dimensions on the same side")
    return Coupling(width, producers, consumers, statistics, tuple(reasons), tuple(dict.fromkeys(remarks)), read)


__all__ = ["Grouping", "Length", "couplings"]
