"""The work of a fused step on a device as tables of numbers, which its kernels read.

A tile is a block of entries of groups that one program takes: rows of up to ``COLUMNS`` entries. Either each group has
a few columns of it, or all entries belong to one group. What a program sums up it writes to slots of its own, and
whoever needs the sums of a group adds up its slots in order: the result does not depend on who comes first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openwork.kernels.regions import Plan

Table = NDArray[np.int64]
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


@dataclass(frozen=True)
class DeviceTables:
    """Tables of a plan: a row has the columns that the class of its kind names.

    Args:
        tiles: Of groups.
        blocks: Of groups.
        places: Of groups.
        runs: Of entries without a group.
        strengths: Lasso and norm of each term.
        groups: Number of groups of all terms.
        slots: Number of slots.
    """

    tiles: Table
    blocks: Table
    places: Table
    runs: Table
    strengths: list[float]
    groups: int
    slots: int


def device_tables(plan: Plan) -> DeviceTables:
    """The tables of a plan."""
    regions, blocks, runs = (list[tuple[int, ...]]() for _ in range(3))
    groups = 0
    for number, (term, kept) in enumerate(zip(plan.terms, plan.kept[:-1], strict=True)):
        if term.kind != "groups":
            (region,) = term.regions
            told = kept if term.kind == "entries" else -1
            runs.append((number, region.tensor, region.offset, region.entries, told))
        elif term.regions:
            begin = len(regions)
            for region in term.regions:
                regions.append((number, groups, region.tensor, region.offset, *region.lengths, *region.strides))
            blocks.append((number, groups, term.groups, begin, len(regions), kept))
            groups += term.groups
    known = _Regions(*_columns(regions, len(_Regions._fields)))
    own = known.chunks * known.groups * known.inner
    ends = own.cumsum()
    return DeviceTables(
        _tiles(known, ends - own),
        _blocks(blocks),
        _places(known, ends - own),
        _runs(runs),
        [strength for term in plan.terms for strength in (term.lasso, term.norm)],
        groups,
        int(own.sum()),
    )


class _Regions(NamedTuple):
    """All regions of groups, by columns: term, first group counted over all terms, and what ``Region`` says.

    The first group of a region, or the first few that fill a row, are cut into panels: columns times rows of members
    outside; or, folded, members outside times pieces of a run.
    """

    term: Table
    number: Table
    tensor: Table
    offset: Table
    outer: Table
    groups: Table
    members: Table
    outer_stride: Table
    group_stride: Table
    inner_stride: Table

    @property
    def folded(self) -> NDArray[np.bool_]:
        """Whether rows of a tile are pieces of one long run, since there are few members outside."""
        return (self.members >= COLUMNS) & (self.outer * COLUMNS < self.members)

    @property
    def deep(self) -> Table:
        """Panels one after the other, until the next columns or the next member outside."""
        return np.where(self.folded, -(-self.members // (ROWS * COLUMNS)), -(-self.outer // ROWS))

    @property
    def chunks(self) -> Table:
        """Panels."""
        return np.where(self.folded, self.outer, -(-self.members // COLUMNS)) * self.deep

    @property
    def inner(self) -> Table:
        """Slots of a group in a row of slots: one for each column, unless the group fills the tile."""
        return np.where(self.members < COLUMNS, self.members, 1)


def _tiles(regions: _Regions, slots: Table) -> Table:
    across = np.maximum(1, COLUMNS // np.maximum(1, regions.members))
    beside = -(-regions.groups // across)
    owner, at = _numbered(regions.chunks * beside)
    x, across, beside = _Regions(*(column[owner] for column in regions)), across[owner], beside[owner]
    chunk, group = at // beside, at % beside * across
    one, other = np.divmod(chunk, x.deep)
    row, column = np.where(x.folded, one, other * ROWS), np.where(x.folded, other * ROWS, one) * COLUMNS
    wide = np.where(x.folded, COLUMNS, np.minimum(COLUMNS, x.members - column))
    long = np.minimum(ROWS * COLUMNS, x.members - column)
    return _table(
        Tile,
        term=x.term,
        tensor=x.tensor,
        base=x.offset + row * x.outer_stride + column * x.inner_stride + group * x.group_stride,
        columns=np.where(x.members < COLUMNS, np.minimum(across, x.groups - group) * x.members, wide),
        limit=np.where(x.folded, long, np.minimum(ROWS, x.outer - row) * COLUMNS),
        row_stride=np.where(x.folded, COLUMNS * x.inner_stride, x.outer_stride),
        inner=np.minimum(COLUMNS, x.members),
        group_stride=x.group_stride,
        inner_stride=x.inner_stride,
        group=group,
        number=x.number + group,
        slot=slots[owner] + (chunk * x.groups + group) * x.inner,
    )


def _places(x: _Regions, slots: Table) -> Table:
    return _table(
        Place,
        tensor=x.tensor,
        offset=x.offset,
        outer=x.outer,
        members=x.members,
        outer_stride=x.outer_stride,
        group_stride=x.group_stride,
        inner_stride=x.inner_stride,
        slot=slots,
        chunks=x.chunks,
        width=x.groups * x.inner,
        inner=x.inner,
    )


def _blocks(rows: Sequence[tuple[int, ...]]) -> Table:
    term, number, groups, begin, end, kept = _columns(rows, 6)
    owner, at = _numbered(-(-groups // GROUPS))
    group = at * GROUPS
    return _table(
        Block,
        term=term[owner],
        group=group,
        number=number[owner] + group,
        groups=np.minimum(GROUPS, groups[owner] - group),
        begin=begin[owner],
        end=end[owner],
        kept=kept[owner] + group,
    )


def _runs(rows: Sequence[tuple[int, ...]]) -> Table:
    term, tensor, offset, entries, kept = _columns(rows, 5)
    owner, at = _numbered(-(-entries // ENTRIES))
    start = at * ENTRIES
    return _table(
        Run,
        term=term[owner],
        tensor=tensor[owner],
        base=offset[owner] + start,
        length=np.minimum(ENTRIES, entries[owner] - start),
        kept=np.where(kept[owner] < 0, -1, kept[owner] + start),
    )


def _columns(rows: Sequence[tuple[int, ...]], number: int) -> Table:
    return np.array(rows, dtype=np.int64).reshape(-1, number).T


def _numbered(counts: Table) -> tuple[Table, Table]:
    """For each of so many pieces of each owner, the owner and the number of the piece."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - (counts.cumsum() - counts)[owner]


def _table(kind: type[Tile | Block | Place | Run], **columns: Table) -> Table:
    """Rows of a kind, given their columns by name."""
    return np.stack([columns[name] for name in kind._fields], axis=1)
