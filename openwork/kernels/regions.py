"""Where the groups of a penalty lie in memory, in the one form that fused kernels read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, product
from math import prod
from typing import Literal

# Groups of entries; single entries, each a group of its own; or no groups, where nothing is kept or dropped.
Kind = Literal["groups", "entries", "free"]

# Axes that do not fit three loops become several regions, up to so many for one weight.
MOST_REGIONS = 64


@dataclass(frozen=True)
class Region:
    """Entries of one tensor as three nested axes: entry (o, g, i) belongs to group g.

    It lies ``offset + o strides[0] + g strides[1] + i strides[2]`` entries after the first of the tensor. Rows of a
    matrix are ``(1, rows, columns)``, its columns ``(rows, columns, 1)``, and the input channels of a convolution
    ``(outputs, inputs, height * width)``. All lists of one step (weights, gradients, state) share it.

    Args:
        tensor: Place of the tensor in the lists.
        offset: Of the first entry.
        lengths: Of the three axes: members outside, groups, members inside.
        strides: Of the three axes, in entries; 0 for an axis of length one.
    """

    tensor: int
    offset: int
    lengths: tuple[int, int, int]
    strides: tuple[int, int, int]

    @property
    def entries(self) -> int:
        """Number of entries."""
        return prod(self.lengths)


@dataclass(frozen=True)
class Term:
    """A part of a penalty, ``lasso ||x||_1 + norm sum_g ||x_g||``, where group g is what regions have at index g.

    Args:
        kind: ``"entries"`` and ``"free"`` have one dense region ``(1, entries, 1)``, and ``norm`` is 0 there.
        regions: Disjoint, with equally many groups each; none where there are no entries.
        lasso: Strength of the lasso, >= 0.
        norm: Strength of every group's norm, >= 0.
        grid: Shape of what says which groups are kept; for entries that of the weight, whose strides it also has.
    """

    kind: Kind
    regions: tuple[Region, ...]
    lasso: float = 0.0
    norm: float = 0.0
    grid: tuple[int, ...] = (0,)

    @property
    def groups(self) -> int:
        """Number of groups."""
        return prod(self.grid)

    @property
    def roots(self) -> int:
        """Numbers that Newton's method keeps: one for each group."""
        return self.groups if self.kind == "groups" and self.regions else 0

    @property
    def size(self) -> int:
        """Entries of one group."""
        return sum(region.lengths[0] * region.lengths[2] for region in self.regions)


def dense(tensor: int, shape: Sequence[int], strides: Sequence[int]) -> Region | None:
    """All entries of a tensor in the order of its memory, or None if that has gaps."""
    if prod(shape) == 0:
        return Region(tensor, 0, (1, 0, 1), (0, 1, 0))
    axes = _merged([(stride, length, False) for length, stride in zip(shape, strides, strict=True)])
    match axes:
        case []:
            return Region(tensor, 0, (1, prod(shape), 1), (0, 1, 0))
        case [(1, length, _)]:
            return Region(tensor, 0, (1, length, 1), (0, 1, 0))
        case _:
            return None


def regions(
    tensor: int, offset: int, shape: Sequence[int], strides: Sequence[int], members: Sequence[int]
) -> tuple[Region, ...] | None:
    """A view of a tensor, whose axes number groups or members, as regions.

    Args:
        tensor: Place of the tensor in its list.
        offset: Of the view's first entry from the tensor's.
        shape: Of the view.
        strides: Of the view.
        members: Axes that run inside a group; the others number the groups, in order.

    Returns:
        Regions that hold every entry once, each with all groups; None if there is no such form.
    """
    if prod(shape) == 0:
        return ()
    axes = [
        (stride, length, axis not in members) for axis, (length, stride) in enumerate(zip(shape, strides, strict=True))
    ]
    numbering = [stride for stride, length, of_groups in axes if of_groups and length > 1]
    if numbering != sorted(numbering, reverse=True) or any(stride < 0 for stride, _, _ in axes):
        return None
    axes = _merged(axes)
    if sum(of_groups for _, _, of_groups in axes) > 1:
        return None
    # The innermost axis of members, and the longest of those outside of the groups, stay loops.
    place = next((i for i, axis in enumerate(axes) if axis[2]), len(axes))
    outside, inside = axes[:place], axes[place + 1 :]
    group = (axes[place][1], axes[place][0]) if place < len(axes) else (1, 0)
    inner = (inside[-1][1], inside[-1][0]) if inside else (1, 0)
    outer = max(((length, stride) for stride, length, _ in outside), default=(1, 0))
    others = [(length, stride) for stride, length, _ in inside[:-1]]
    others += [axis for axis in ((length, stride) for stride, length, _ in outside) if axis != outer]
    if prod([length for length, _ in others]) > MOST_REGIONS:
        return None
    lengths, steps = zip(outer, group, inner, strict=True)
    return tuple(Region(tensor, offset + start, lengths, steps) for start in _starts(others))


def _starts(axes: Sequence[tuple[int, int]]) -> Iterator[int]:
    for indices in product(*(range(length) for length, _ in axes)):
        yield sum(index * stride for index, (_, stride) in zip(indices, axes, strict=True))


def _merged(axes: Sequence[tuple[int, int, bool]]) -> list[tuple[int, int, bool]]:
    """Axes as (stride, length, whether it numbers groups), outermost in memory first, neighbors of a kind as one."""
    found: list[tuple[int, int, bool]] = []
    for stride, length, of_groups in sorted((axis for axis in axes if axis[1] != 1), key=lambda axis: -axis[0]):
        if found and found[-1][2] == of_groups and found[-1][0] == stride * length:
            found[-1] = (stride, found[-1][1] * length, of_groups)
        else:
            found.append((stride, length, of_groups))
    return found


@dataclass(frozen=True, eq=False)
class Plan:
    """The terms of a penalty over a list of tensors, made once, so that kernels can remember what they make of it.

    Args:
        terms: They cover every entry once.
    """

    terms: tuple[Term, ...]

    @cached_property
    def kept(self) -> list[int]:
        """Number of the first group of each term, counted over all terms; and how many groups there are."""
        return list(accumulate((term.groups for term in self.terms), initial=0))

    @cached_property
    def homes(self) -> tuple[list[tuple[int, int]], dict[int, int]]:
        """Where the roots of each term lie: behind one another in vectors that belong to tensors.

        Returns:
            For each term, the tensor and the place of its first root in that tensor's vector; and how long the vectors
            of tensors are that have one.
        """
        places: list[tuple[int, int]] = []
        lengths: dict[int, int] = {}
        for term in self.terms:
            tensor = term.regions[0].tensor if term.regions else 0
            places.append((tensor, lengths.get(tensor, 0)))
            if term.roots:
                lengths[tensor] = lengths.get(tensor, 0) + term.roots
        return places, lengths
