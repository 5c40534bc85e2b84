"""How the work of a fused step on the CPU is shared out."""

import pytest

from openwork.kernels import tables

ENOUGH = tables.CHUNK_ENTRIES


@pytest.mark.parametrize(
    "entries",
    [[], [1], [ENOUGH], [1, 2, 3], [ENOUGH - 1, 1, 1], [5, 3 * ENOUGH, 7, ENOUGH, 2 * ENOUGH, 1]],
)
def test_every_piece_is_in_one_range_and_large_ranges_come_first(entries: list[int]) -> None:
    ranges = tables.ranges(entries)
    assert [piece for begin, end in sorted(ranges) for piece in range(begin, end)] == list(range(len(entries)))
    sizes = [sum(entries[begin:end]) for begin, end in ranges]
    assert sizes == sorted(sizes, reverse=True)
    in_order = [sum(entries[begin:end]) for begin, end in sorted(ranges)]
    assert all(size >= ENOUGH for size in in_order[:-1])
