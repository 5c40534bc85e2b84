"""The work of a fused step on a device as tables of numbers, which its kernels read.

A tile is a block of entries of groups that one program takes: rows of up to ``COLUMNS`` entries. Either each group has
a few columns of it, or all entries belong to one group. What a program sums up it writes to slots of its own, and
whoever needs the sums of a group adds up its slots in order: the result does not depend on who comes first.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from openwork.kernels.regions import Plan, Region, Term

# Columns and rows of a tile, at most.
COLUMNS, ROWS = 64, 64
# Groups of a block, which one program solves.
GROUPS = 64
# Entries without a group that one program takes, at most.
ENTRIES = 1024


class Tile(NamedTuple):
    """Entry (r, c) lies ``base + r row_stride + (c // inner) group_stride + (c % inner) inner_stride`` after the first.

    It belongs to the group ``group + c // inner``. ``inner`` is ``COLUMNS`` where there is one group.

    Args:
        term: Of the plan.
        tensor: Place in the lists.
        base: See above.
        columns: Of the tile.
        limit: There are entries where ``r COLUMNS + c`` is below it.
        row_stride: See above.
        inner: Columns of a group.
        group_stride: See above.
        inner_stride: See above.
        group: First group, counted within the term.
        number: First group, counted over all terms.
        slot: Where the sums of the first column go.
    """

    term: int
    tensor: int
    base: int
    columns: int
    limit: int
    row_stride: int
    inner: int
    group_stride: int
    inner_stride: int
    group: int
    number: int
    slot: int


class Block(NamedTuple):
    """Groups of one term that are solved by one program.

    Args:
        term: Of the plan.
        group: First group, counted within the term.
        number: First group, counted over all terms.
        groups: How many.
        begin: First place of the term.
        end: The one after its last.
        kept: Where it says which groups are kept.
    """

    term: int
    group: int
    number: int
    groups: int
    begin: int
    end: int
    kept: int


class Place(NamedTuple):
    """A region, and the slots of its tiles: group g has ``inner`` of ``width`` slots in each of ``chunks`` rows.

    Args:
        tensor: Place in the lists.
        offset: Of the first entry.
        outer: Members outside.
        members: Members inside.
        outer_stride: Of these axes.
        group_stride: Of these axes.
        inner_stride: Of these axes.
        slot: The first.
        chunks: See above.
        width: See above.
        inner: See above.
    """

    tensor: int
    offset: int
    outer: int
    members: int
    outer_stride: int
    group_stride: int
    inner_stride: int
    slot: int
    chunks: int
    width: int
    inner: int


class Run(NamedTuple):
    """Consecutive entries without a group.

    Args:
        term: Of the plan.
        tensor: Place in the lists.
        base: First entry.
        length: Entries.
        kept: Where it says which entries are kept; -1 where nobody asks.
    """

    term: int
    tensor: int
    base: int
    length: int
    kept: int


@dataclass
class DeviceTables:
    """Tables of a plan.

    Args:
        tiles: Of groups.
        blocks: Of groups.
        places: Of groups.
        runs: Of entries without a group.
        strengths: Lasso and norm of each term.
        kept: Where the booleans of each term begin, and the end.
        groups: Number of groups of all terms.
        slots: Number of slots.
    """

    tiles: list[Tile] = field(default_factory=list[Tile])
    blocks: list[Block] = field(default_factory=list[Block])
    places: list[Place] = field(default_factory=list[Place])
    runs: list[Run] = field(default_factory=list[Run])
    strengths: list[float] = field(default_factory=list[float])
    kept: list[int] = field(default_factory=lambda: [0])
    groups: int = 0
    slots: int = 0

    def add(self, number: int, term: Term) -> None:
        """Append a term."""
        self.strengths.extend((term.lasso, term.norm))
        kept = self.kept[-1]
        self.kept.append(kept + term.groups)
        if term.kind != "groups":
            (region,) = term.regions
            for start in range(0, region.entries, ENTRIES):
                told = kept + start if term.kind == "entries" else -1
                length = min(ENTRIES, region.entries - start)
                self.runs.append(Run(number, region.tensor, region.offset + start, length, told))
            return
        if not term.regions:
            return
        begin = len(self.places)
        for region in term.regions:
            self._add_region(number, region)
        for group in range(0, term.groups, GROUPS):
            some = min(GROUPS, term.groups - group)
            self.blocks.append(
                Block(number, group, self.groups + group, some, begin, len(self.places), kept + group),
            )
        self.groups += term.groups

    def _add_region(self, number: int, region: Region) -> None:
        (outer, groups, members), strides = region.lengths, region.strides
        _, group_stride, inner_stride = strides
        panels = list(_panels(region))
        across = max(1, COLUMNS // members)
        inner = members if members < COLUMNS else COLUMNS
        # The sums of one group that fills a tile are one number.
        slots = members if members < COLUMNS else 1
        width = groups * slots
        place = region.tensor, region.offset, outer, members, *strides, self.slots, len(panels), width, slots
        self.places.append(Place(*place))
        for chunk, (start, columns, limit, row_stride) in enumerate(panels):
            for group in range(0, groups, across):
                self.tiles.append(
                    Tile(
                        number,
                        region.tensor,
                        region.offset + start + group * group_stride,
                        min(across, groups - group) * members if members < COLUMNS else columns,
                        limit,
                        row_stride,
                        inner,
                        group_stride,
                        inner_stride,
                        group,
                        self.groups + group,
                        self.slots + chunk * width + group * slots,
                    )
                )
        self.slots += len(panels) * width


def device_tables(plan: Plan) -> DeviceTables:
    """The tables of a plan."""
    found = DeviceTables()
    for number, term in enumerate(plan.terms):
        found.add(number, term)
    return found


def _panels(region: Region) -> Iterator[tuple[int, int, int, int]]:
    """The first group of a region (or the first few) as panels: first entry, columns, limit, stride of rows."""
    (outer, _, members), (outer_stride, _, inner_stride) = region.lengths, region.strides
    if members < COLUMNS or outer * COLUMNS >= members:
        # Rows are members outside.
        for column in range(0, members, COLUMNS):
            for row in range(0, outer, ROWS):
                start = row * outer_stride + column * inner_stride
                yield start, min(COLUMNS, members - column), min(ROWS, outer - row) * COLUMNS, outer_stride
        return
    for row in range(outer):
        # A long run, folded.
        for column in range(0, members, ROWS * COLUMNS):
            start = row * outer_stride + column * inner_stride
            yield start, COLUMNS, min(ROWS * COLUMNS, members - column), COLUMNS * inner_stride
