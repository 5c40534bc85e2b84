"""Regions hold every entry once, in its group."""

import itertools

import pytest
import torch
from torch import Tensor

from openwork.kernels import Plan, Region, Term, dense, regions
from openwork.partitions import Blocks, Elements, Heads, Partition, Slices


def entries(region: Region) -> list[tuple[int, int]]:
    """Place in memory and group of every entry."""
    ranges = itertools.product(*(range(length) for length in region.lengths))
    return [(region.offset + sum(map(int.__mul__, index, region.strides)), index[1]) for index in ranges]


def groups_in_memory(x: Tensor, groups: Partition) -> dict[int, int]:
    """Group of every place in the memory of a tensor, by the partition's own ``spread``."""
    numbers = groups.spread(torch.arange(groups.sum(x).numel()).view(groups.grid(x.shape)), x)
    places = torch.arange(x.untyped_storage().nbytes() // x.element_size())
    where = places.as_strided(x.shape, x.stride(), x.storage_offset())
    return dict(zip(where.flatten().tolist(), numbers.flatten().tolist(), strict=True))


TENSORS = {
    "matrix": torch.zeros(4, 6),
    "transposed": torch.zeros(4, 6).t(),
    "kernel": torch.zeros(4, 6, 3, 2),
    "channels_last": torch.zeros(4, 6, 3, 2).to(memory_format=torch.channels_last),
    "narrowed": torch.zeros(4, 12, 3, 2)[:, :6],
    "every_other_row": torch.zeros(8, 6, 3)[::2],
    "flat": torch.zeros(4, 2, 1, 1),
}


@pytest.mark.parametrize("groups", [Slices(0), Slices(1), Slices(-1), Blocks((2, 1)), Heads(2, 0), Heads(2, 1)])
@pytest.mark.parametrize("name", TENSORS)
def test_every_entry_is_in_its_group_once(name: str, groups: Partition) -> None:
    x = TENSORS[name]
    layout = groups.layout(x.shape)
    view = x.view(layout.shape)
    found = regions(0, int(x.storage_offset()), view.shape, view.stride(), layout.axes)
    if found is None:
        assert isinstance(groups, Blocks)  # whose groups have two axes
        return
    placed = [entry for region in found for entry in entries(region)]
    assert dict(placed) == groups_in_memory(x, groups)
    assert len(placed) == x.numel()


def test_rows_columns_and_channels() -> None:
    assert regions(0, 0, (4, 6), (6, 1), [1]) == (Region(0, 0, (1, 4, 6), (0, 6, 1)),)
    assert regions(0, 0, (4, 6), (6, 1), [0]) == (Region(0, 0, (4, 6, 1), (6, 1, 0)),)
    assert regions(0, 0, (4, 6, 3, 2), (36, 6, 2, 1), [0, 2, 3]) == (Region(0, 0, (4, 6, 6), (36, 6, 1)),)


def test_an_axis_that_does_not_fit_becomes_several_regions() -> None:
    # Heads of fused query, key and value, of which a part was cut off.
    found = regions(2, 5, (2, 3, 4, 2), (100, 10, 2, 1), [0, 1, 3])
    assert found is not None
    assert [region.offset for region in found] == [5, 105]
    assert {region.lengths for region in found} == {(3, 4, 2)}


def test_groups_in_another_order_than_memory_have_no_regions() -> None:
    assert regions(0, 0, (4, 6), (1, 4), []) is None


@pytest.mark.parametrize("name", TENSORS)
def test_dense_is_all_of_memory_or_nothing(name: str) -> None:
    x = TENSORS[name]
    found = dense(0, x.shape, x.stride())
    full = x.untyped_storage().nbytes() == x.numel() * x.element_size()
    assert (found is not None) == full
    if found is not None:
        assert found.entries == x.numel()


def test_no_entries() -> None:
    assert regions(0, 0, (0, 3), (3, 1), [0]) == ()
    assert dense(0, (0, 3), (3, 1)) == Region(0, 0, (1, 0, 1), (0, 1, 0))
    assert dense(0, (3, 0), (1, 1)) == Region(0, 0, (1, 0, 1), (0, 1, 0))
    assert dense(0, (), ()) == Region(0, 0, (1, 1, 1), (0, 1, 0))
    assert Elements().grid(()) == ()


def test_roots_of_terms_lie_behind_one_another_where_their_first_tensor_is() -> None:
    def rows(tensor: int, groups: int) -> Region:
        return Region(tensor, 0, (1, groups, 4), (0, 4, 1))

    terms = (
        Term("groups", (rows(1, 3), rows(0, 3)), norm=1.0, grid=(3,)),
        Term("free", (Region(2, 0, (1, 5, 1), (0, 1, 0)),)),
        Term("groups", (rows(1, 2),), norm=1.0, grid=(2,)),
        Term("groups", (), norm=1.0, grid=(0,)),
        Term("groups", (rows(3, 7),), norm=1.0, grid=(7,)),
    )
    places, lengths = Plan(terms).homes
    assert [places[i] for i in (0, 2, 4)] == [(1, 0), (1, 3), (3, 0)]
    assert lengths == {1: 5, 3: 7}
