import pytest
import torch

from openwork.partitions import Blocks, Elements, Heads, Partition, Slices
from openwork.penalties import L0, GroupL0
from openwork.testing import check_penalty


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 2, 2)])
def test_contract(shape: tuple[int, ...]) -> None:
    check_penalty(L0(0.3), shape)


@pytest.mark.parametrize(
    ("groups", "shape"),
    [(Slices(1), (4, 3, 2, 2)), (Blocks((2, 2)), (4, 6)), (Heads(2), (6, 4)), (Elements(), (3, 4))],
    ids=str,
)
def test_contract_of_groups(groups: Partition, shape: tuple[int, ...]) -> None:
    check_penalty(GroupL0(0.2, groups), shape)


def test_every_entry_is_the_better_of_zero_and_unshrunk() -> None:
    b, d = torch.randn(200, dtype=torch.float64), torch.rand(200, dtype=torch.float64) + 1e-3
    x, kept, _ = L0(0.5).solve(b, d, 0.8)
    gain = b.square() / (2 * d) - 0.8 * 0.5
    assert torch.equal(kept, gain > 0)
    assert torch.equal(x, torch.where(gain > 0, b / d, 0.0))


def test_every_group_is_the_better_of_zero_and_unshrunk() -> None:
    b, d = torch.randn(3, 200, dtype=torch.float64), torch.rand(3, 200, dtype=torch.float64) + 1e-3
    x, kept, _ = GroupL0(0.5).solve(b, d, 0.8)
    gain = (b.square() / (2 * d)).sum(0) - 0.8 * 0.5 * 3
    assert 0 < kept.sum() < 200
    assert torch.equal(kept, gain > 0)
    assert torch.equal(x, torch.where(gain > 0, b / d, 0.0))


def test_prox_is_hard_thresholding() -> None:
    x = torch.tensor([-3.0, -2.0, 1.0, 2.5])
    assert L0(2.0).prox(x, 1.0).tolist() == [-3.0, 0.0, 0.0, 2.5]  # sqrt(2 lam step) = 2, and ties go to zero


def test_value_counts() -> None:
    x = torch.tensor([[1.0, 0.0, 0.0], [2.0, 3.0, 0.0]])
    assert L0(0.5).value(x) == 1.5
    assert GroupL0(0.5, Slices(1)).value(x) == 2.0
    assert GroupL0(0.5, Slices(1), "one").value(x) == 1.0


@pytest.mark.parametrize("magnitude", [1e-30, 1e30])
def test_single_precision_survives_huge_and_tiny_numbers(magnitude: float) -> None:
    b = torch.tensor([[3.0], [4.0]]) * magnitude  # sum b^2 / 2 = 12.5, in units of the magnitude's square
    d = torch.full_like(b, magnitude)
    assert L0(1.0).solve(b, d, 6.25 * magnitude).kept.tolist() == [[False], [True]]
    assert GroupL0(1.0, weight="one").solve(b, d, 12.4 * magnitude).kept.tolist() == [True]
    assert GroupL0(1.0, weight="one").solve(b, d, 12.6 * magnitude).kept.tolist() == [False]


def test_negative_strengths_are_refused() -> None:
    with pytest.raises(ValueError, match="L0: lam must be >= 0"):
        L0(-1.0)
    with pytest.raises(ValueError, match="GroupL0: lam must be >= 0"):
        GroupL0(-1.0)
