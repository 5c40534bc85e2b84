import pytest
import torch

from openwork.partitions import Blocks, Elements, Heads, Partition, Slices, Stacked
from openwork.testing import check_partition

CASES = [
    (Elements(), ()),
    (Elements(), (5,)),
    (Elements(), (3, 4)),
    (Slices(0), (6,)),
    (Slices(0), (3, 4)),
    (Slices(-1), (3, 4)),
    (Slices(1), (3, 4, 2, 2)),
    (Slices(1), (3, 1)),
    (Slices(1), (1, 3)),
    (Heads(2), (6, 4)),
    (Heads(3, dim=1), (4, 6)),
    (Heads(3, dim=-1), (2, 4, 6)),
    (Heads(6), (6, 4)),
    (Blocks((2,)), (4, 3)),
    (Blocks((2, 2)), (4, 6, 3)),
    (Blocks((2, 1)), (4, 6, 3, 3)),
    (Blocks((1, 1)), (2, 3)),
    (Stacked(Slices(1)), (2, 3, 4)),
]


@pytest.mark.parametrize(("partition", "shape"), CASES, ids=str)
def test_contract(partition: Partition, shape: tuple[int, ...]) -> None:
    check_partition(partition, shape)


def test_slices_of_a_convolution_are_its_input_channels() -> None:
    x = torch.arange(24.0).view(2, 3, 2, 2)
    assert torch.equal(Slices(1).sum(x), x.sum((0, 2, 3)))
    assert Slices(1).size(x.shape) == 8


def test_blocks_take_later_axes_whole() -> None:
    x = torch.ones(4, 6, 3)
    assert torch.equal(Blocks((2, 3)).sum(x), torch.full((2, 2), 18.0))


def test_heads_are_runs_of_rows() -> None:
    x = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    assert Heads(2).sum(x).tolist() == [3.0, 7.0]


def test_spread_takes_no_memory_where_it_can() -> None:
    like = torch.empty(3, 4)
    g = torch.arange(4.0)
    assert Slices(1).spread(g, like).data_ptr() == g.data_ptr()


@pytest.mark.parametrize("magnitude", [1e-30, 1e-19, 1.0, 1e19, 1e30])
def test_norm_keeps_its_digits_where_squares_would_leave_the_range(magnitude: float) -> None:
    x = torch.tensor([[3.0, 0.0], [4.0, 0.0]]) * magnitude
    assert Slices(1).norm(x).tolist() == pytest.approx([5 * magnitude, 0.0], rel=1e-6)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_no_entries_make_no_error(shape: tuple[int, int]) -> None:
    x = torch.zeros(shape)
    assert Slices(1).norm(x).tolist() == [0.0] * shape[1]
    assert Slices(1).sum(x).shape == Slices(1).any(x).shape == (shape[1],)


@pytest.mark.parametrize(
    ("partition", "shape", "message"),
    [
        (Slices(2), (3, 4), r"Slices\(dim=2\) needs axis 2, and a weight of shape \(3, 4\) has 2; choose another axis"),
        (Heads(4), (6, 4), r"Heads\(head_dim=4, dim=0\) does not tile a weight of shape \(6, 4\): 6 is not a multiple"),
        (Blocks((2, 4)), (4, 6), r"Blocks\(shape=\(2, 4\)\) does not tile .*: 6 is not a multiple of 4; choose a div"),
        (Blocks((2, 2)), (4,), r"Blocks\(shape=\(2, 2\)\) needs axis 1, and a weight of shape \(4,\) has 1"),
    ],
)
def test_a_weight_that_does_not_fit_is_refused(partition: Partition, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        partition.layout(shape)


def test_sizes_must_be_positive() -> None:
    with pytest.raises(ValueError, match="Heads: head_dim must be a positive integer, got 0"):
        Heads(0)
    with pytest.raises(ValueError, match="Blocks: every side must be a positive integer, got -1"):
        Blocks((2, -1))
    with pytest.raises(ValueError, match="Blocks: shape must name at least one side"):
        Blocks(())


class Shifted(Slices):
    """Sums that are off by a little, as a contract check must notice."""

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        return super().sum(x) + 1e-3


def test_the_contract_check_notices_a_wrong_sum() -> None:
    with pytest.raises(AssertionError, match=r"sum of .* is not what its groups say"):
        check_partition(Shifted(0), (3, 4))
