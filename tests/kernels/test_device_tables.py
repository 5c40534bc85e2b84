"""The tables that device kernels read cover every entry once, in the right group, and every slot is written once."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openwork.kernels import Plan, Term
from openwork.kernels.device_tables import (
    COLUMNS,
    ENTRIES,
    GROUPS,
    Block,
    DeviceTables,
    Place,
    Run,
    Tile,
    device_tables,
)
from openwork.partitions import Heads, Partition, Slices
from openwork.penalties import L1, GroupLasso, Penalty

# Of a tensor, the entry and the group counted over all terms.
Entry = tuple[int, int, int]


def entries_of(tile: Tile) -> list[Entry]:
    """What the kernels make of a row of the table."""
    found: list[Entry] = []
    for flat in range(tile.limit):
        row, column = divmod(flat, COLUMNS)
        if column < tile.columns:
            owner, inside = divmod(column, tile.inner)
            where = tile.base + row * tile.row_stride + owner * tile.group_stride + inside * tile.inner_stride
            found.append((tile.tensor, where, tile.number + owner))
    return found


def slots_of(tile: Tile) -> list[tuple[int, int]]:
    """Slots that a tile writes, with their groups."""
    if tile.inner == COLUMNS:
        return [(tile.slot, tile.number)]
    return [(tile.slot + column, tile.number + column // tile.inner) for column in range(tile.columns)]


def slots_read(tables: DeviceTables) -> list[tuple[int, int]]:
    """Slots that are read for every group."""
    found: list[tuple[int, int]] = []
    places = [Place(*row) for row in tables.places.tolist()]
    for block in (Block(*row) for row in tables.blocks.tolist()):
        assert 0 < block.groups <= GROUPS
        for place in places[block.begin : block.end]:
            for j in range(block.groups):
                found += [
                    (place.slot + chunk * place.width + (block.group + j) * place.inner + column, block.number + j)
                    for chunk in range(place.chunks)
                    for column in range(place.inner)
                ]
    return found


def check(terms: list[Term]) -> DeviceTables:
    tables = device_tables(Plan(tuple(terms)))
    expected: list[Entry] = []
    first = 0
    for term in terms:
        if term.kind == "groups" and term.regions:
            for region in term.regions:
                (outer, groups, inner), (so, sg, si) = region.lengths, region.strides
                expected += [
                    (region.tensor, region.offset + o * so + g * sg + i * si, first + g)
                    for o in range(outer)
                    for g in range(groups)
                    for i in range(inner)
                ]
            first += term.groups
    tiles = [Tile(*row) for row in tables.tiles.tolist()]
    assert sorted(entry for tile in tiles for entry in entries_of(tile)) == sorted(expected)
    written = [slot for tile in tiles for slot in slots_of(tile)]
    assert sorted(written) == sorted(slots_read(tables))
    assert max(Counter(slot for slot, _ in written).values(), default=1) == 1
    assert len(written) == tables.slots
    assert tables.groups == first
    return tables


@given(data=st.data())
@settings(max_examples=40)
def test_groups_of_any_shape(data: st.DataObject) -> None:
    shapes = data.draw(st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=4).map(tuple), min_size=1, max_size=2))
    groups: Partition = data.draw(st.sampled_from([Slices(0), Slices(1), Slices(-1), Heads(1, 1)]))
    check(GroupLasso(0.1, groups).terms([torch.zeros(shape) for shape in shapes]) or [])


@pytest.mark.parametrize(
    ("shape", "dim"),
    [
        ((3, 5000), 0),  # folded runs, several tiles each
        ((150, 70), 1),  # columns, several tiles of rows
        ((70, 3, 9, 9), 1),  # long runs, many outside
        ((5, 4, 9, 9), 1),  # long runs, few outside
        ((3, 64), 0),  # as long as a tile is wide
        ((3, 63), 0),
        ((200, 2), 0),
    ],
)
def test_long_and_wide_groups(shape: tuple[int, ...], dim: int) -> None:
    check(GroupLasso(0.1, Slices(dim)).terms([torch.zeros(shape)]) or [])
    transposed = torch.zeros(shape[::-1]).permute(*range(len(shape))[::-1])
    check(GroupLasso(0.1, Slices(dim)).terms([transposed]) or [])


@pytest.mark.parametrize("penalty", [L1(0.1), GroupLasso(0.1)])
def test_entries_and_empty_tensors(penalty: Penalty) -> None:
    shapes = [(3, 700), (0, 4), (3, 0), (2,), (ENTRIES,)] if isinstance(penalty, L1) else [(3, 7), (0, 4), (3, 0)]
    terms = penalty.terms([torch.zeros(shape) for shape in shapes]) or []
    tables, kept = check(terms), Plan(tuple(terms)).kept
    rows = [Run(*row) for row in tables.runs.tolist()]
    runs = [(run.tensor, run.base + i, run.kept + i) for run in rows for i in range(run.length)]
    dense = [i for i, term in enumerate(terms) if term.kind == "entries"]
    assert runs == [(i, entry, kept[i] + entry) for i in dense for entry in range(terms[i].groups)]
    assert kept[-1] == sum(term.groups for term in terms)
