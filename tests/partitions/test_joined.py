"""Groups of tensors of which each process has a part: all parts together are the whole."""

from dataclasses import dataclass
from itertools import accumulate
from math import prod

import pytest
import torch
from torch import Tensor
from typing_extensions import override

from openwork.partitions import Blocks, Elements, Heads, Joined, Partition, Slices, divided_grid, stretch
from openwork.reductions import Joint
from openwork.sharding import Division, Ranks, shares


@dataclass(frozen=True)
class Apart(Ranks):
    """One of several processes that only exist on paper."""

    size: int = 1
    rank: int = 0

    @property
    @override
    def number(self) -> int:
        return self.size

    @property
    @override
    def here(self) -> int:
        return self.rank


@dataclass(frozen=True)
class Host:
    device_type: str = "cpu"


CASES: list[tuple[Partition, tuple[int, ...]]] = [
    (Slices(0), (6, 4)),
    (Slices(1), (6, 4)),
    (Slices(1), (1, 4)),
    (Slices(-1), (5, 2, 3)),
    (Heads(2, 0), (6, 4)),
    (Heads(2, 1), (5, 4)),
    (Blocks((3, 2)), (6, 4)),
    (Blocks((2,)), (4, 3, 2)),
    (Elements(), (5, 3)),
    (Elements(), (1, 3)),
    (Elements(), (7,)),
]


def parts_of(shape: tuple[int, ...], dim: int, size: int) -> list[Division]:
    return [Division(Host(), (), shape, dim, Apart(None, size, rank)) for rank in range(size)]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
@pytest.mark.parametrize(("groups", "shape"), CASES)
def test_parts_together_are_the_whole(groups: Partition, shape: tuple[int, ...], size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    other = (Slices(0), (3, 2))
    for dim in range(len(shape)):
        xs = [torch.rand(s, generator=generator, dtype=torch.float64) for s in (shape, other[1])]
        expected = torch.cat([part.sum(x).flatten() for part, x in zip((groups, other[0]), xs, strict=True)])
        largest = torch.cat([part.max(x).flatten() for part, x in zip((groups, other[0]), xs, strict=True)])
        rows = [part.spread(part.sum(x), x) for part, x in zip((groups, other[0]), xs, strict=True)]
        sums, maxima = torch.zeros_like(expected), torch.zeros_like(expected)
        divisions = zip(parts_of(shape, dim, size), parts_of(other[1], 0, size), strict=True)
        for both in divisions:
            firsts = [
                0,
                *accumulate(prod(part.grid(how.shape)) for part, how in zip((groups, other[0]), both, strict=True)),
            ]
            stretches = [
                stretch(p, how, first) for p, how, first in zip((groups, other[0]), both, firsts, strict=False)
            ]
            joined = Joined(Joint(tuple(stretches), firsts[-1], None), torch.ones(firsts[-1]))
            vector = torch.cat([how.here(x).flatten() for how, x in zip(both, xs, strict=True)])
            sums += joined.sum(vector)
            maxima = torch.maximum(maxima, joined.max(vector))
            row = torch.cat([how.here(x).flatten() for how, x in zip(both, rows, strict=True)])
            assert torch.equal(joined.spread(expected, vector), row)
        torch.testing.assert_close(sums, expected)
        assert torch.equal(maxima, largest)


@pytest.mark.parametrize("size", [2, 3, 4, 9])
@pytest.mark.parametrize(("groups", "shape"), CASES)
def test_whole_groups_are_those_whose_sums_are_right_in_each_part(
    groups: Partition, shape: tuple[int, ...], size: int
) -> None:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for dim in range(len(shape)):
        parts = parts_of(shape, dim, size)
        axis = divided_grid(groups, parts[0])
        if axis is None:
            continue
        together = torch.cat([groups.sum(how.here(x)) for how in parts], dim=axis)
        assert torch.equal(together, groups.sum(x))


def test_rows_are_whole_in_parts_by_rows_and_columns_are_not() -> None:
    rows, columns = parts_of((6, 4), 0, 4)[0], parts_of((6, 4), 1, 4)[0]
    assert (divided_grid(Slices(0), rows), divided_grid(Slices(1), rows)) == (0, None)
    assert (divided_grid(Slices(0), columns), divided_grid(Slices(1), columns)) == (None, 0)
    assert divided_grid(Heads(3, 0), rows) is None  # two rows each
    assert divided_grid(Heads(2, 0), rows) == 0


@pytest.mark.parametrize("length", range(8))
@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_shares_are_those_of_torch(length: int, number: int) -> None:
    found = [stop - start for start, stop in shares(length, number)]
    chunks: list[Tensor] = list(torch.arange(length).chunk(number)) if length else []
    assert found == [len(chunk) for chunk in chunks] + [0] * (number - len(chunks))
