"""Penalties of weights of which every process holds a part."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Scalar
from openwork.partitions import divided_grid
from openwork.penalties.base import DiagonalProx, DropsGroups, GroupPenalty, Part, Penalty, Solution
from openwork.penalties.coupled import Coupled
from openwork.penalties.gathered import Gathered
from openwork.penalties.jointly import joined_couplings, joined_weights, units_are_whole
from openwork.penalties.pieces import Piece, pack
from openwork.penalties.wrapper import Together
from openwork.sharding import Division, Ranks, shares, sharing

# Entries of a process that are solved together, with one exchange for each step of the solver; what is needed meanwhile
# takes about eight times their memory.
ENTRIES_TOGETHER = 1 << 26


class KeptPlace(NamedTuple):
    """How the ``kept`` of a weight's solution is divided, among processes that have groups of their own.

    Args:
        shape: Of the whole.
        dim: The axis along which it is divided.
    """

    shape: tuple[int, ...]
    dim: int


@dataclass(frozen=True)
class _Section:
    """Weights that are solved in the same way.

    Args:
        penalty: For the list of their parts.
        positions: Of the weights.
        kept: For each weight how its ``kept`` is divided; None where all processes have the same.
    """

    penalty: Penalty
    positions: tuple[int, ...]
    kept: tuple[KeptPlace | None, ...]

    def of(self, xs: Sequence[Tensor]) -> list[Tensor]:
        return [xs[i] for i in self.positions]


@dataclass(frozen=True, eq=False)
class Sharded(Together, DropsGroups):
    """A penalty of weights of which every process holds a part, such as those of a model after ``fully_shard``.

    It takes the parts and solves for the whole weights, in all processes at once. Groups of which a process has all
    entries need no exchange. All others are solved as one vector, so that a step of the solver exchanges two numbers
    per group, for all weights at once; where a process has more than ``ENTRIES_TOGETHER`` of their entries, as several
    such vectors, one after the other. For penalties without groups (``NuclearNorm``, ``ProximalGradient``, those of
    others) every process collects each weight, one after the other, and solves for the whole.

    Args:
        penalty: Of the whole weights.
        divisions: Of the weights; None for one that every process has as a whole, though not for all.
        shapes: Of the whole weights.

    Raises:
        ValueError: If weights that share groups are divided among different processes.
    """

    divisions: tuple[Division | None, ...]
    shapes: tuple[tuple[int, ...], ...]

    _sections: tuple[_Section, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_sections", tuple(self._divided()))

    @property
    def ranks(self) -> list[Ranks]:
        """The processes among which weights are divided, the fewest first."""
        return sharing(self.divisions)

    @property
    def kept(self) -> list[KeptPlace | None]:
        """For each weight how ``Solution.kept`` is divided; None where all processes have the same."""
        found = {
            i: place for section in self._sections for i, place in zip(section.positions, section.kept, strict=True)
        }
        return [found[i] for i in range(len(self.shapes))]

    @override
    def prox_list(self, xs: Sequence[Tensor], step: Scalar) -> list[Solution]:
        return self._all([section.penalty.prox_list(section.of(xs), step) for section in self._sections])

    @override
    def solve_(
        self, b: list[Tensor], d: list[Tensor], weight: Scalar, start: list[Tensor] | None = None
    ) -> list[Solution]:
        return self._all(
            [
                _solving(s.penalty).solve_(s.of(b), s.of(d), weight, None if start is None else s.of(start))
                for s in self._sections
            ]
        )

    @override
    def metrics(self, d: list[Tensor]) -> list[Tensor]:
        found = [zip(s.positions, _solving(s.penalty).metrics(s.of(d)), strict=True) for s in self._sections]
        by_position = dict(pair for pairs in found for pair in pairs)
        return [by_position[i] for i in range(len(d))]

    @override
    def criticals(self, b: list[Tensor], d: list[Tensor]) -> list[Tensor]:
        """The weights at which groups become zero, those of all processes.

        Args:
            b: The part of each weight.
            d: Metrics.

        Returns:
            Numbers >= 0, one per group.

        Raises:
            TypeError: If the penalty does not drop groups.
        """
        found: list[Tensor] = []
        for section in self._sections:
            if not isinstance(section.penalty, DropsGroups):
                raise TypeError(f"Sharded: {self.penalty!r} does not drop groups")
            own = torch.cat([c.flatten() for c in section.penalty.criticals(section.of(b), section.of(d))])
            places = [place for place in section.kept if place is not None]
            how = self.divisions[section.positions[0]]
            if places and how is not None:
                own = how.ranks.gather(own, self._lengths(section, how.ranks.number))
            found.append(own)
        return found

    @override
    def split(self, shapes: Sequence[Sequence[int]], limit: int | None) -> Iterator[Part]:
        for section in self._sections:
            if section.penalty is not self.penalty:
                yield Part(section.penalty, tuple(Piece(i) for i in section.positions))
                continue
            for part in section.penalty.split([shapes[i] for i in section.positions], limit):
                moved = (replace(piece, position=section.positions[piece.position]) for piece in part.pieces)
                yield Part(part.penalty, tuple(moved))

    # -- how --------------------------------------------------------------------------------------------------------

    def _divided(self) -> Iterator[_Section]:
        """The sections, each with weights that are divided among the same processes."""
        penalty, every = self.penalty, tuple(range(len(self.shapes)))
        if isinstance(penalty, Coupled):
            self._check_one_mesh()
            widths = [here[0].width for _, here in penalty.weights]
            whole = units_are_whole(penalty, self.divisions)
            kept = tuple(KeptPlace((width,), 0) if whole else None for width in widths)
            yield _Section(joined_couplings(penalty, self.divisions), every, kept)
        elif isinstance(penalty, GroupPenalty):
            yield from self._grouped(penalty)
        elif penalty.joins or not penalty.separable:
            yield _Section(Gathered(penalty, self.divisions), every, (None,) * len(every))
        else:
            for i, how in enumerate(self.divisions):
                yield _Section(penalty if how is None else Gathered(penalty, (how,)), (i,), (None,))

    def _grouped(self, penalty: GroupPenalty) -> Iterator[_Section]:
        everywhere = [i for i, how in enumerate(self.divisions) if how is None]
        if everywhere:
            yield _Section(penalty, tuple(everywhere), (None,) * len(everywhere))
        alike: dict[tuple[Ranks, torch.dtype], list[tuple[int, Division]]] = {}
        for i, how in enumerate(self.divisions):
            if how is not None:
                alike.setdefault((how.ranks, how.dtype), []).append((i, how))
        for here in alike.values():
            dims = [divided_grid(penalty.groups, how) for _, how in here]
            whole = [(i, how, dim) for (i, how), dim in zip(here, dims, strict=True) if dim is not None]
            if whole:
                places = tuple(KeptPlace(penalty.groups.grid(how.shape), dim) for _, how, dim in whole)
                yield _Section(penalty, tuple(i for i, _, _ in whole), places)
            parts = (pair for pair, dim in zip(here, dims, strict=True) if dim is None)
            # Equally in all processes: by the part of the first, which is the largest.
            for packed in pack(((pair, prod(pair[1].shape_of(0))) for pair in parts), ENTRIES_TOGETHER):
                jointly = joined_weights(penalty, [how for _, how in packed])
                yield _Section(jointly, tuple(i for i, _ in packed), (None,) * len(packed))

    def _check_one_mesh(self) -> None:
        if len(self.ranks) > 1:
            sizes = " and ".join(str(ranks.number) for ranks in self.ranks)
            raise ValueError(
                f"Coupled: the weights of its couplings are divided among different processes ({sizes}), so no process "
                "group has all entries of a unit; apply fully_shard to all of them with one mesh, or exclude some"
            )

    def _lengths(self, section: _Section, number: int) -> tuple[int, ...]:
        """Numbers of groups that each process has in a section."""
        if isinstance(self.penalty, Coupled):
            widths = [members[0].width for members in self.penalty.couplings]
            each = [shares(width, number) for width in widths]
            return tuple(sum(stop - start for start, stop in own) for own in zip(*each, strict=True))
        places = [place for place in section.kept if place is not None]
        return tuple(
            sum(
                prod(place.shape) // place.shape[place.dim] * (stop - start)
                for place in places
                for start, stop in [shares(place.shape[place.dim], number)[rank]]
            )
            for rank in range(number)
        )

    def _all(self, found: list[list[Solution]]) -> list[Solution]:
        solutions = {
            i: solution
            for section, own in zip(self._sections, found, strict=True)
            for i, solution in zip(section.positions, own, strict=True)
        }
        return [solutions[i] for i in range(len(self.shapes))]


def _solving(penalty: Penalty) -> DiagonalProx:
    """The penalty, if it solves under a diagonal metric.

    Raises:
        TypeError: If not.
    """
    if not isinstance(penalty, DiagonalProx):
        raise TypeError(f"Sharded: {penalty!r} has only a Euclidean prox; wrap it as ProximalGradient(...)")
    return penalty


__all__ = ["KeptPlace", "Sharded"]
