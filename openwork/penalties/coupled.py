"""Groups whose entries lie in several weights."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, takewhile
from math import prod

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Region, Scalar, Term, regions
from openwork.partitions import Slices
from openwork.penalties.base import DiagonalProx, DropsGroups, GroupPenalty, Part, Solution
from openwork.penalties.pieces import Piece, Scattered, Strip, Units, pack
from openwork.penalties.wrapper import Together
from openwork.penalties.zero import Zero
from openwork.structure import Structure, Support
from openwork.wiring import AxisSlices

# Solves with one penalty for what a solver takes: a list of points, or one of duals and one of metrics.
Solve = Callable[[DiagonalProx, list[list[Tensor]]], list[Solution]]


@dataclass(frozen=True)
class Coupled(Together, DropsGroups):
    """A penalty whose groups are the units of couplings, so that a group has entries in several weights.

    ``f(x_1, ..., x_n) = sum_u g(x_u)``, where ``x_u`` are all entries of unit u, side by side, and g is the penalty
    inside for that one group. Entries of no unit are free. The weights come together, as one list, in their order.

    Args:
        penalty: What a group costs; its own partition is not looked at.
        couplings: For each coupling where its units are, as many in each weight. Within a weight all couplings divide
            the same axis, and no index belongs to two.
        shapes: Of the weights.

    Raises:
        TypeError: If ``penalty`` does not drop groups, or always the same ones, as ``L1`` does.
    """

    penalty: GroupPenalty  # pyright: ignore[reportIncompatibleVariableOverride]
    couplings: tuple[tuple[Units, ...], ...]
    shapes: tuple[tuple[int, ...], ...]

    # Derived: each coupling; the units of each weight, in the order of the couplings; weights that have entries of no
    # unit; and what ``split`` said before, since an optimizer asks at every step.
    _joints: tuple["_Joint", ...] = field(init=False, repr=False, compare=False)
    _on_weight: tuple[tuple[Units, ...], ...] = field(init=False, repr=False, compare=False)
    _partly_free: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _parts: dict[int | None, tuple[Part, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.penalty, GroupPenalty) or self._on(0).groups != Slices(0):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"Coupled: penalty must drop groups that can be chosen, as GroupLasso does, got {self.penalty!r}; "
                "take another, or leave example_inputs out"
            )
        on_weight: list[list[Units]] = [[] for _ in self.shapes]
        for members in self.couplings:
            for units in members:
                on_weight[units.position].append(units)
        partly_free = (
            position
            for position, (shape, here) in enumerate(zip(self.shapes, on_weight, strict=True))
            if sum(units.indices for units in here) < shape[here[0].dim]
        )
        object.__setattr__(self, "_joints", tuple(_Joint(members) for members in self.couplings))
        object.__setattr__(self, "_on_weight", tuple(map(tuple, on_weight)))
        object.__setattr__(self, "_partly_free", tuple(partly_free))
        object.__setattr__(self, "_parts", {})

    @classmethod
    def of(
        cls, penalty: GroupPenalty, sides: Sequence[Sequence[AxisSlices]], shapes: Mapping[str, tuple[int, ...]]
    ) -> "Coupled":
        """Couple the slices that were found in a model.

        Args:
            penalty: What a group costs.
            sides: For each coupling the slices of one side.
            shapes: Of all weights, by name, in their order.

        Returns:
            The penalty.
        """
        positions = {name: position for position, name in enumerate(shapes)}
        couplings = tuple(tuple(_units(part, positions[part.name]) for part in side) for side in sides)
        return cls(penalty, couplings, tuple(tuple(shape) for shape in shapes.values()))

    def after_cut(self, shapes: Sequence[tuple[int, ...]], stays: Sequence[Mapping[int, Tensor]]) -> "Coupled":
        """The penalty of what is left of the weights, in which every unit that is left costs what it did.

        Args:
            shapes: Of the weights that are left.
            stays: For each weight the indices that stay, by dimension.

        Returns:
            The penalty.
        """
        couplings: list[tuple[Units, ...]] = []
        for members in self.couplings:
            size = members[0].counts_as or self.entries(members) // members[0].width
            left = [_left(u, self.shapes[u.position], stays[u.position]) for u in members]
            found = [
                replace(_units(AxisSlices("", u.dim, shapes[u.position], numbers), u.position), counts_as=size)
                for u, numbers in zip(members, left, strict=True)
                if bool((numbers >= 0).any())
            ]
            if found:
                couplings.append(tuple(found))
        return Coupled(self.penalty, tuple(couplings), tuple(shapes))

    @property
    def weights(self) -> list[tuple[tuple[int, ...], tuple[Units, ...]]]:
        """Shape of each weight, and the units in it, in the order of the couplings."""
        return list(zip(self.shapes, self._on_weight, strict=True))

    def entries(self, members: Sequence[Units]) -> int:
        """Number of entries of a coupling."""
        return sum(prod(self.shapes[u.position]) // self.shapes[u.position][u.dim] * u.indices for u in members)

    # -- all weights together ---------------------------------------------------------------------------------------

    @property
    @override
    def joins(self) -> bool:
        return True

    def value_list(self, xs: Sequence[Tensor]) -> Tensor:
        """The penalty of all weights, a 0-dim tensor."""
        return torch.stack([self._on(*joint.kind).value(joint.gather(xs)) for joint in self._joints]).sum()

    @override
    def prox_list(self, xs: Sequence[Tensor], step: Scalar) -> list[Solution]:
        return self._solve(lambda penalty, lists: penalty.prox_list(lists[0], step), xs)

    @override
    def solve_(
        self, b: list[Tensor], d: list[Tensor], weight: Scalar, start: list[Tensor] | None = None
    ) -> list[Solution]:
        return self._solve(lambda penalty, lists: penalty.solve_(lists[0], lists[1], weight), b, d)

    @override
    def terms(self, weights: Sequence[Tensor]) -> list[Term] | None:
        if [tuple(weight.shape) for weight in weights] != list(self.shapes):
            return None
        found: list[Term | None] = [self._term(members, weights) for members in self.couplings]
        # Entries of no unit, as groups without a norm.
        for position in self._partly_free:
            found += [self._term((strip,), weights, free=True) for strip in self._rest(position)]
        known = [term for term in found if term is not None]
        return known if len(known) == len(found) else None

    def _term(self, members: tuple[Units, ...], weights: Sequence[Tensor], *, free: bool = False) -> Term | None:
        places: list[Region] = []
        for units in members:
            if not isinstance(units, Strip):
                return None
            weight = weights[units.position].detach()
            piece = units.take(weight)
            offset = int(piece.storage_offset()) - int(weight.storage_offset())
            inside = [axis for axis in range(piece.ndim) if axis != units.axis]
            where = regions(units.position, offset, piece.shape, piece.stride(), inside)
            if where is None:
                return None
            places += where
        size = sum(place.lengths[0] * place.lengths[2] for place in places)
        strengths = (0.0, 0.0) if free else self._on(0, members[0].counts_as).strengths(size)
        if strengths is None:
            return None
        lasso, norm = strengths
        return Term("groups", tuple(places), lasso, float(norm), (members[0].width,))

    @override
    def kept_terms(self, weights: int) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in range(weights)]
        for number, members in enumerate(self.couplings):
            for units in members:
                found[units.position].append(number)
        return found

    @override
    def criticals(self, b: list[Tensor], d: list[Tensor]) -> list[Tensor]:
        return [self._on(*joint.kind).critical(joint.gather(b), joint.gather(d)) for joint in self._joints]

    @override
    def kept_list(self, xs: Sequence[Tensor]) -> list[Tensor]:
        return self._per_weight([Slices(joint.axis).any(joint.gather(xs)) for joint in self._joints])

    @override
    def read_list(self, kept: Sequence[Tensor]) -> list[Structure]:
        structures: list[Structure] = []
        for bits, shape, here in zip(kept, self.shapes, self._on_weight, strict=True):
            dim = here[0].dim if here else 0
            # An index of no unit stays.
            alive = bits.new_ones(shape[dim])
            for units, own in zip(here, torch.split(bits, [units.width for units in here]), strict=True):
                along = replace(units, dim=0)
                piece = along.take(alive)
                row = own.view([-1 if axis == along.axis else 1 for axis in range(piece.ndim)])
                along.put_(alive, row.expand(piece.shape))
            structures.append(Support(Slices(dim), alive))
        return structures

    @override
    def distinct(self, kept: Sequence[Tensor]) -> list[Tensor]:
        pairs = zip(kept, self._on_weight, strict=True)
        coming = [iter(torch.split(bits, [units.width for units in here])) for bits, here in pairs]
        all_of_them = [[next(coming[units.position]) for units in members] for members in self.couplings]
        return [same[0] for same in all_of_them]

    @override
    def split(self, shapes: Sequence[Sequence[int]], limit: int | None) -> Iterator[Part]:
        if [tuple(shape) for shape in shapes] != list(self.shapes):
            raise ValueError(
                f"Coupled: the weights must have the shapes {list(self.shapes)}, got {[tuple(s) for s in shapes]}; "
                "keep the parameters of the param group that regularize made together and in order"
            )
        if limit not in self._parts:
            self._parts[limit] = tuple(self._split(limit))
        yield from self._parts[limit]

    # -- as one weight, if there is only one ------------------------------------------------------------------------

    @override
    def value(self, x: Tensor) -> Tensor:
        return self.value_list([x])

    @override
    def structure(self, x: Tensor) -> Structure:
        return self.read(self.kept_list([x])[0])

    @override
    def read(self, kept: Tensor) -> Structure:
        return self.read_list([kept])[0]

    @override
    def check(self, x: Tensor) -> None:
        if tuple(x.shape) not in self.shapes:
            raise ValueError(
                f"Coupled: no weight of shape {tuple(x.shape)} is among those of {list(self.shapes)}; "
                "use the param groups that regularize made for this model"
            )

    # -- how --------------------------------------------------------------------------------------------------------

    def _on(self, axis: int, counts_as: int | None = None) -> GroupPenalty:
        penalty = self.penalty.regroup(Slices(axis))
        return penalty if counts_as is None else penalty.counting_as(counts_as)

    def _per_weight(self, per_coupling: Sequence[Tensor]) -> list[Tensor]:
        """What is said of the units of each coupling, sorted to the weights."""
        rows = self.kept_terms(len(self.shapes))
        return [per_coupling[row[0]] if len(row) == 1 else torch.cat([per_coupling[i] for i in row]) for row in rows]

    def _solve(self, solve: Solve, *lists: Sequence[Tensor]) -> list[Solution]:
        like = lists[0]
        # Free entries first; what belongs to units is written over them, and not over what was given.
        points = {i: solve(Zero(), [[xs[i]] for xs in lists])[0].x.clone() for i in self._partly_free}
        by_kind: dict[tuple[int, int | None], list[int]] = {}
        for number, joint in enumerate(self._joints):
            by_kind.setdefault(joint.kind, []).append(number)
        solutions: dict[int, Solution] = {}
        for kind, numbers in by_kind.items():
            matrices = [[self._joints[number].gather(xs) for number in numbers] for xs in lists]
            solutions |= zip(numbers, solve(self._on(*kind), matrices), strict=True)
        residuals: dict[int, list[Tensor]] = {}
        for number, joint in enumerate(self._joints):
            for units, values in joint.scatter(solutions[number].x, like):
                i = units.position
                if i not in points and values.shape == like[i].shape:
                    points[i] = values
                else:
                    units.put_(points.setdefault(i, torch.empty_like(like[i])), values)
            # That of a coupling is told once.
            residuals.setdefault(joint.members[0].position, []).append(solutions[number].residual.flatten())
        kept = self._per_weight([solutions[number].kept for number in range(len(self._joints))])
        return [
            Solution(points[i], kept[i], torch.cat(residuals[i]) if i in residuals else x.new_zeros(()))
            for i, x in enumerate(like)
        ]

    def _split(self, limit: int | None) -> Iterator[Part]:
        whole = self._whole()
        staying = [members for members in self.couplings if members[0].position in whole]
        if staying:
            yield self._part(staying, [Piece(position) for position in sorted(whole)])
        cut = (members for members in self.couplings if members[0].position not in whole)
        for packed in pack((chunk for members in cut for chunk in self._chunks(members, limit)), limit):
            yield self._part(packed, [units for members in packed for units in members])
        rest = (self._rest(position) for position in self._partly_free if position not in whole)
        strips = (chunk for strips in rest for strip in strips for chunk in self._chunks((strip,), limit))
        for packed in pack(strips, limit):
            yield Part(Zero(), tuple(strip for (strip,) in packed))

    def _whole(self) -> frozenset[int]:
        """Weights that cannot be cut: those with scattered units, and all that share a coupling with them."""
        found = {u.position for members in self.couplings for u in members if isinstance(u, Scattered)}
        while True:
            touched = (members for members in self.couplings if any(u.position in found for u in members))
            grown = found | {u.position for members in touched for u in members}
            if grown == found:
                return frozenset(found)
            found = grown

    def _chunks(self, members: tuple[Units, ...], limit: int | None) -> Iterator[tuple[tuple[Units, ...], int]]:
        """Some units at a time, with their number of entries."""
        width = members[0].width
        entries = self.entries(members)
        step = max(1, limit * width // entries) if limit else width
        for first in range(0, width, step):
            some = min(step, width - first)
            yield tuple(u.some(first, some) for u in members if isinstance(u, Strip)), entries * some // width

    def _part(self, couplings: Sequence[tuple[Units, ...]], pieces: Sequence[Piece]) -> Part:
        """The penalty of pieces that hold the units of these couplings."""
        shapes = tuple(
            tuple(piece.take(torch.empty(self.shapes[piece.position], device="meta")).shape) for piece in pieces
        )
        place = {piece: position for position, piece in enumerate(pieces)}
        inside = tuple(
            tuple(
                Strip(place[units], units.axis, units.width, counts_as=units.counts_as)
                if units in place
                else replace(units, position=place[Piece(units.position)])
                for units in members
            )
            for members in couplings
        )
        return Part(Coupled(self.penalty, inside, shapes), tuple(pieces))

    def _rest(self, position: int) -> list[Strip]:
        """The indices of a weight that belong to no unit, in runs."""
        here = self._on_weight[position]
        covered = torch.zeros(self.shapes[position][here[0].dim])
        for units in here:
            along = replace(units, dim=0)
            along.put_(covered, torch.ones_like(along.take(covered)))
        runs: list[Strip] = []
        start = 0
        for is_covered, indices in groupby(map(bool, covered)):
            length = len(list(indices))
            if not is_covered:
                runs.append(Strip(position, here[0].dim, length, start))
            start += length
        return runs


class _Joint:
    """The units of one coupling as one matrix, or as one piece if they lie in one weight.

    Args:
        members: Where they are in each weight.
    """

    def __init__(self, members: tuple[Units, ...]) -> None:
        self.members = members
        self.axis = members[0].axis if len(members) == 1 else 0
        # What is solved together: units along one axis that count as equally large.
        self.kind = (self.axis, members[0].counts_as)

    def gather(self, xs: Sequence[Tensor]) -> Tensor:
        """All entries, units along ``axis``."""
        pieces = [units.take(xs[units.position]) for units in self.members]
        if len(pieces) == 1:
            return pieces[0]
        width = self.members[0].width
        matrix = pieces[0].new_empty(width, sum(piece.numel() for piece in pieces) // width)
        for rows, columns in zip(self._rows(pieces), self._columns(matrix, pieces), strict=True):
            columns.copy_(rows)
        return matrix

    def scatter(self, matrix: Tensor, like: Sequence[Tensor]) -> list[tuple[Units, Tensor]]:
        """The piece of each weight, in the layout of ``take``."""
        if len(self.members) == 1:
            return [(self.members[0], matrix)]
        pieces = [units.take(like[units.position]) for units in self.members]
        columns = self._columns(matrix, pieces)
        return [(u, part.movedim(0, u.axis)) for u, part in zip(self.members, columns, strict=True)]

    def _rows(self, pieces: Sequence[Tensor]) -> list[Tensor]:
        return [piece.movedim(units.axis, 0) for units, piece in zip(self.members, pieces, strict=True)]

    def _columns(self, matrix: Tensor, pieces: Sequence[Tensor]) -> list[Tensor]:
        """Columns of the matrix, shaped like the pieces, units first."""
        rows = self._rows(pieces)
        parts = torch.split(matrix, [piece.numel() // len(matrix) for piece in rows], dim=1)
        return [part.view(row.shape) for part, row in zip(parts, rows, strict=True)]


def unit_numbers(units: Units, length: int) -> Tensor:
    """For each index along an axis of this length the number of its unit; -1 for none."""
    along = replace(units, dim=0)
    numbers = torch.full((length,), -1)
    piece = along.take(numbers)
    row = torch.arange(units.width).view([-1 if axis == along.axis else 1 for axis in range(piece.ndim)])
    along.put_(numbers, row.expand(piece.shape))
    return numbers


def _left(units: Units, shape: tuple[int, ...], stays: Mapping[int, Tensor]) -> Tensor:
    """For each index that stays along the axis of units the number of its unit, of those that stay; -1 for none."""
    numbers = unit_numbers(units, shape[units.dim])
    if units.dim in stays:
        numbers = numbers[stays[units.dim].to(numbers.device)]
    present = torch.zeros(units.width, dtype=torch.int64)
    present[numbers[numbers >= 0]] = 1
    return torch.where(numbers < 0, -1, (present.cumsum(0) - 1)[numbers.clamp_min(0)])


def _units(part: AxisSlices, position: int) -> Units:
    """Where the units of a coupling are in a weight.

    Raises:
        ValueError: If not all units have equally many indices.
    """
    known = (part.units >= 0).nonzero().flatten()
    numbers = part.units[known]
    counts = numbers.bincount()
    width, times = counts.numel(), int(counts[0])
    if not bool((counts == times).all()):
        raise ValueError(
            f"Coupled: in {part.name!r} some units have {int(counts.min())} indices along axis {part.dim} and others "
            f"{int(counts.max())}; exclude it"
        )
    indices, found = list(map(int, known)), list(map(int, numbers))
    run = sum(1 for _ in takewhile(lambda number: number == found[0], found))
    repeats, length = times // run, width * run
    start = indices[0]
    period = indices[length] - start if repeats > 1 else length
    strip = [start + time * period + index for time in range(repeats) for index in range(length)]
    in_turn = [unit for _ in range(repeats) for unit in range(width) for _ in range(run)]
    if indices == strip and found == in_turn:
        return Strip(position, part.dim, width, start, run, repeats, period - length)
    return Scattered(
        position, part.dim, width, tuple(sorted(indices, key=dict(zip(indices, found, strict=True)).__getitem__))
    )
