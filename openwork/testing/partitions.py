"""What every partition must do."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.testing import assert_close

from openwork.partitions import Partition, Stacked
from openwork.testing.layouts import strided_copies


def check_partition(partition: Partition, shape: Sequence[int], *, seed: int = 0) -> None:
    """Check a partition against the definitions of its methods.

    Args:
        partition: The partition.
        shape: A shape that it tiles, of at least one entry.
        seed: Of the tensors tried.

    Raises:
        AssertionError: If it breaks the contract; the message says where.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tuple(shape), generator=generator, dtype=torch.float64)
    grid, size = partition.grid(shape), partition.size(shape)
    numbers = torch.arange(prod(grid), dtype=torch.float64).view(grid)
    owner = partition.spread(numbers, like=x)
    if owner.shape != x.shape:
        raise AssertionError(f"spread of {partition} gives shape {tuple(owner.shape)} for a weight of {tuple(shape)}")
    members = [owner == number for number in numbers.flatten()]
    if any(int(member.sum()) != size for member in members):
        raise AssertionError(f"groups of {partition} on {tuple(shape)} do not all have {size} entries, as size says")

    def each(reduce: str) -> Tensor:
        return torch.stack([getattr(x[member], reduce)() for member in members]).view(grid)

    assert_close(partition.sum(x), each("sum"), msg=_says(partition, "sum"))
    assert_close(partition.max(x), each("max"), msg=_says(partition, "max"))
    assert_close(partition.norm(x), each("norm"), msg=_says(partition, "norm"))
    sparse = torch.where(owner % 2 == 0, x, 0.0)
    assert_close(partition.any(sparse), numbers % 2 == 0, msg=_says(partition, "any"))

    g = torch.randn(grid, generator=generator, dtype=torch.float64)
    pairing = (x * partition.spread(g, like=x)).sum()
    assert_close((partition.sum(x) * g).sum(), pairing, msg=_says(partition, "sum or its adjoint"))
    for copy in strided_copies(x):
        assert_close(partition.sum(copy), partition.sum(x), msg=_says(partition, "sum, of a strided tensor,"))
    assert_close(
        Stacked(partition).sum(torch.stack([x, 2 * x])),
        torch.stack([partition.sum(x), 2 * partition.sum(x)]),
        msg=_says(partition, "sum of a stack"),
    )
    cut = partition.cut(shape)
    if cut is not None:
        pieces = [partition.sum(piece) for piece in x.split(cut.unit, dim=cut.dim)]
        assert_close(torch.cat(pieces), partition.sum(x), msg=_says(partition, "cut"))


def _says(partition: Partition, what: str) -> str:
    return f"{what} of {partition} is not what its groups say"
