"""The work of a fused step on a device as tables of numbers, which its kernels read.

A tile is a block of entries of groups that one program takes: rows of up to ``COLUMNS`` entries. Either each group has
a few columns of it, or all entries belong to one group. What a program sums up it writes to slots of its own, and
whoever needs the sums of a group adds up its slots in order: the result does not depend on who comes first.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openwork.kernels.regions import Plan, Region, Term

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


Row = Tile | Block | Place | Run


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
    tiles, blocks, places, runs = (list[Table]() for _ in range(4))
    groups = slots = 0
    for number, (term, kept) in enumerate(zip(plan.terms, plan.kept[:-1], strict=True)):
        if term.kind != "groups":
            runs.append(_runs(number, term, kept))
        elif term.regions:
            begin = len(places)
            for region in term.regions:
                panels, (_, length, members) = _panels(region), region.lengths
                # One slot for each column of a group, unless the group fills the tile.
                inner = members if members < COLUMNS else 1
                chunks, width = len(panels.start), length * inner
                places.append(_place(region, slots, chunks, width, inner))
                tiles.append(_tiles(number, region, panels, groups, slots, width, inner))
                slots += chunks * width
            blocks.append(_blocks(number, term, groups, (begin, len(places)), kept))
            groups += term.groups
    return DeviceTables(
        _joined(Tile, tiles),
        _joined(Block, blocks),
        _joined(Place, places),
        _joined(Run, runs),
        [strength for term in plan.terms for strength in (term.lasso, term.norm)],
        groups,
        slots,
    )


def _runs(number: int, term: Term, kept: int) -> Table:
    (region,) = term.regions
    starts = np.arange(0, region.entries, ENTRIES)
    return _table(
        Run,
        starts.shape,
        term=number,
        tensor=region.tensor,
        base=region.offset + starts,
        length=np.minimum(ENTRIES, region.entries - starts),
        kept=kept + starts if term.kind == "entries" else -1,
    )


def _blocks(number: int, term: Term, groups: int, places: tuple[int, int], kept: int) -> Table:
    starts = np.arange(0, term.groups, GROUPS)
    return _table(
        Block,
        starts.shape,
        term=number,
        group=starts,
        number=groups + starts,
        groups=np.minimum(GROUPS, term.groups - starts),
        begin=places[0],
        end=places[1],
        kept=kept + starts,
    )


def _place(region: Region, slot: int, chunks: int, width: int, inner: int) -> Table:
    (outer, _, members), (outer_stride, group_stride, inner_stride) = region.lengths, region.strides
    return _table(
        Place,
        (1,),
        tensor=region.tensor,
        offset=region.offset,
        outer=outer,
        members=members,
        outer_stride=outer_stride,
        group_stride=group_stride,
        inner_stride=inner_stride,
        slot=slot,
        chunks=chunks,
        width=width,
        inner=inner,
    )


class _Panels(NamedTuple):
    """The first group of a region, or the first few, in pieces; columns are named as in ``Tile``."""

    start: Table
    columns: Table
    limit: Table
    row_stride: int


def _tiles(number: int, region: Region, panels: _Panels, groups: int, slot: int, width: int, inner: int) -> Table:
    (_, length, members), (_, group_stride, inner_stride) = region.lengths, region.strides
    across = max(1, COLUMNS // members)
    chunk, group = np.arange(len(panels.start))[:, None], np.arange(0, length, across)[None, :]
    return _table(
        Tile,
        (chunk.size, group.size),
        term=number,
        tensor=region.tensor,
        base=region.offset + panels.start[:, None] + group * group_stride,
        columns=np.minimum(across, length - group) * members if members < COLUMNS else panels.columns[:, None],
        limit=panels.limit[:, None],
        row_stride=panels.row_stride,
        inner=min(members, COLUMNS),
        group_stride=group_stride,
        inner_stride=inner_stride,
        group=group,
        number=groups + group,
        slot=slot + chunk * width + group * inner,
    )


def _panels(region: Region) -> _Panels:
    (outer, _, members), (outer_stride, _, inner_stride) = region.lengths, region.strides
    if members < COLUMNS or outer * COLUMNS >= members:
        # Rows are members outside.
        column, row = np.arange(0, members, COLUMNS)[:, None], np.arange(0, outer, ROWS)[None, :]
        columns, limit = np.minimum(COLUMNS, members - column), np.minimum(ROWS, outer - row) * COLUMNS
        row_stride = outer_stride
    else:
        # Long runs, folded.
        row, column = np.arange(outer)[:, None], np.arange(0, members, ROWS * COLUMNS)[None, :]
        columns, limit = np.full_like(column, COLUMNS), np.minimum(ROWS * COLUMNS, members - column)
        row_stride = COLUMNS * inner_stride
    start, columns, limit = np.broadcast_arrays(row * outer_stride + column * inner_stride, columns, limit)
    return _Panels(start.ravel(), columns.ravel(), limit.ravel(), row_stride)


def _table(kind: type[Row], shape: tuple[int, ...], **columns: int | Table) -> Table:
    """Rows of a kind, so many along each axis, given their columns by name."""
    rows = np.empty((*shape, len(kind._fields)), dtype=np.int64)
    for place, name in enumerate(kind._fields):
        rows[..., place] = columns[name]
    return rows.reshape(-1, len(kind._fields))


def _joined(kind: type[Row], tables: list[Table]) -> Table:
    return np.concatenate([np.empty((0, len(kind._fields)), dtype=np.int64), *tables])
