"""Parts of several weights, solved as one vector whose groups have entries in other processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Scalar
from openwork.partitions import Joined, stretch
from openwork.penalties.base import DropsGroups, GroupPenalty, Solution
from openwork.penalties.coupled import Coupled, unit_numbers
from openwork.penalties.wrapper import Together
from openwork.penalties.zero import Zero
from openwork.reductions import Joint, Stretch
from openwork.sharding import Division, shares


@dataclass(frozen=True, eq=False)
class Lane:
    """How the part of one weight enters the vector, and which of the numbers of all groups are its own.

    Args:
        shape: Of the part.
        groups: Its groups among those of all.
        told: Those of which it tells the residual: a coupling is told once.
        grid: Shape of its ``kept``; None for one axis.
        dim: The axis along which not all indices enter; None if all do.
        rows: Those that do.
    """

    shape: tuple[int, ...]
    groups: tuple[slice, ...]
    told: tuple[slice, ...]
    grid: tuple[int, ...] | None = None
    dim: int | None = None
    rows: Tensor | None = None

    @property
    def taken(self) -> tuple[int, ...]:
        """Shape of what enters."""
        if self.dim is None or self.rows is None:
            return self.shape
        return (*self.shape[: self.dim], len(self.rows), *self.shape[self.dim + 1 :])

    def take(self, x: Tensor) -> Tensor:
        """What enters, as a vector."""
        if self.dim is not None and self.rows is not None:
            x = x.index_select(self.dim, self.rows.to(x.device))
        return x.reshape(-1)

    def read(self, solution: Solution, values: Tensor, b: Tensor, d: Tensor | None) -> Solution:
        """The solution for this weight.

        Args:
            solution: For the vector.
            values: What entered, solved.
            b: The part, of which the rest is free.
            d: Its metric; None for that of the prox.
        """
        x = values.view(self.taken)
        if self.dim is not None and self.rows is not None:
            x = (b if d is None else Zero().solve(b, d, 1.0).x).index_copy(self.dim, self.rows.to(x.device), x)
        kept = _those(solution.kept, self.groups)
        residual = _those(solution.residual, self.told) if solution.residual.ndim else solution.residual
        return Solution(x, kept if self.grid is None else kept.view(self.grid), residual)


def _those(numbers: Tensor, slices: Sequence[slice]) -> Tensor:
    parts = [numbers[each] for each in slices]
    return parts[0] if len(parts) == 1 else torch.cat([numbers[:0], *parts])


@dataclass(frozen=True, eq=False)
class Jointly(Together, DropsGroups):
    """A penalty of several weights, of whose groups this process has some of the entries.

    All weights are solved as one vector, so that a step of the solver exchanges two numbers per group with the other
    processes, for all of them at once.

    Args:
        penalty: On the groups of the vector.
        lanes: How the weights enter it.
    """

    penalty: GroupPenalty  # pyright: ignore[reportIncompatibleVariableOverride]
    lanes: tuple[Lane, ...]

    @property
    @override
    def joins(self) -> bool:
        return True

    @override
    def prox_list(self, xs: Sequence[Tensor], step: Scalar) -> list[Solution]:
        return self._read(self.penalty._prox_solution(self._vector(xs), step), list(xs), None)

    @override
    def solve_(
        self, b: list[Tensor], d: list[Tensor], weight: Scalar, start: list[Tensor] | None = None
    ) -> list[Solution]:
        return self._read(self.penalty.solve(self._vector(b), self._vector(d), weight), b, d)

    @override
    def criticals(self, b: list[Tensor], d: list[Tensor]) -> list[Tensor]:
        return [self.penalty.critical(self._vector(b), self._vector(d))]

    def _vector(self, xs: Sequence[Tensor]) -> Tensor:
        return torch.cat([lane.take(x) for lane, x in zip(self.lanes, xs, strict=True)])

    def _read(self, solution: Solution, b: list[Tensor], d: list[Tensor] | None) -> list[Solution]:
        values = torch.split(solution.x, [prod(lane.taken) for lane in self.lanes])
        return [
            lane.read(solution, own, b[i], None if d is None else d[i])
            for i, (lane, own) in enumerate(zip(self.lanes, values, strict=True))
        ]


def joined_weights(penalty: GroupPenalty, divisions: Sequence[Division]) -> Jointly:
    """A penalty of weights whose groups are divided among the same processes.

    Args:
        penalty: With the partition of each weight.
        divisions: Of the weights.

    Returns:
        The penalty for the list of their parts.
    """
    groups = penalty.groups
    grids = [groups.grid(how.shape) for how in divisions]
    firsts = [0, *accumulate(map(prod, grids))]
    stretches = tuple(stretch(groups, how, first) for how, first in zip(divisions, firsts, strict=False))
    sizes = [torch.full((prod(grid),), groups.size(how.shape)) for how, grid in zip(divisions, grids, strict=True)]
    device = divisions[0].device
    owns = [(slice(first, first + prod(grid)),) for first, grid in zip(firsts, grids, strict=False)]
    lanes = (Lane(how.local_shape, own, own, grid) for how, own, grid in zip(divisions, owns, grids, strict=True))
    joint = Joint(stretches, firsts[-1], divisions[0].ranks)
    return Jointly(penalty.regroup(Joined(joint, torch.cat(sizes).to(device, divisions[0].dtype))), tuple(lanes))


def joined_couplings(penalty: Coupled, divisions: Sequence[Division | None]) -> Jointly:
    """A penalty of couplings, with all weights together.

    Args:
        penalty: Of the whole weights.
        divisions: Of the weights, all among the same processes; None for a weight that every process has.

    Returns:
        The penalty for the list of the parts. Where every process has whole units, its own are the groups.
    """
    ranks = next(how.ranks for how in divisions if how is not None)
    apart = units_are_whole(penalty, divisions)
    widths = [members[0].width for members in penalty.couplings]
    ranges = [shares(width, ranks.number)[ranks.here] if apart else (0, width) for width in widths]
    firsts = [0, *accumulate(stop - start for start, stop in ranges)]
    device, dtype = next((how.device, how.dtype) for how in divisions if how is not None)
    sizes = torch.zeros(firsts[-1], dtype=torch.float64)
    numbers = [torch.full((shape[here[0].dim],), -1) for shape, here in penalty.weights]
    owns, told = ([list[slice]() for _ in divisions] for _ in range(2))
    for members, (start, stop), first in zip(penalty.couplings, ranges, firsts, strict=False):
        own = slice(first, first + stop - start)
        sizes[own] = members[0].counts_as or penalty.entries(members) / members[0].width
        told[members[0].position].append(own)
        for units in members:
            i = units.position
            owns[i].append(own)
            place = unit_numbers(units, len(numbers[i]))
            numbers[i] = torch.where((place >= start) & (place < stop), place - start + first, numbers[i])
    stretches: list[Stretch] = []
    lanes: list[Lane] = []
    for i, (how, (shape, here)) in enumerate(zip(divisions, penalty.weights, strict=True)):
        part, dim, place = shape if how is None else how.local_shape, here[0].dim, numbers[i]
        if how is not None and how.dim == dim:
            place = place[slice(*how.bounds()[ranks.here])]
        rows = (place >= 0).nonzero().flatten()
        partly = len(rows) < len(place)
        lane = Lane(
            part, tuple(owns[i]), tuple(told[i]), None, dim if partly else None, rows.to(device) if partly else None
        )
        members = tuple(axis for axis in range(len(part)) if axis != dim)
        grid = tuple(firsts[-1] if axis == dim else 1 for axis in range(len(part)))
        counts = how is not None or ranks.here == 0
        stretches.append(Stretch(lane.taken, members, dim, place[rows].to(device), grid, 0, counts))
        lanes.append(lane)
    inside = penalty.penalty
    if any(members[0].counts_as for members in penalty.couplings):
        inside = inside.counting_as(None)
    joint = Joint(tuple(stretches), firsts[-1], None if apart else ranks)
    return Jointly(inside.regroup(Joined(joint, sizes.to(device, dtype))), tuple(lanes))


def units_are_whole(penalty: Coupled, divisions: Sequence[Division | None]) -> bool:
    """Whether every process has all entries of the units it has any of, and these are its share of each coupling.

    Args:
        penalty: Of the whole weights.
        divisions: Of the weights.
    """
    for how, (shape, here) in zip(divisions, penalty.weights, strict=True):
        if how is None or len(here) != 1 or how.dim != here[0].dim:
            return False
        place = unit_numbers(here[0], shape[how.dim])
        own_units = shares(here[0].width, how.ranks.number)
        for (start, stop), (first, last) in zip(how.bounds(), own_units, strict=True):
            own = place[start:stop]
            if not bool(((own < 0) | ((own >= first) & (own < last))).all()):
                return False
    return True


__all__ = ["Jointly", "joined_couplings", "joined_weights", "units_are_whole"]
