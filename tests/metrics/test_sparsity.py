import pytest
import torch
from torch import nn

from openwork.metrics import LayerSparsity, Params, pack_bits, params, sparsity, support, unpack_bits
from openwork.partitions import Blocks, Elements, Heads, Partition, Slices
from openwork.structure import Rank, Support


class Holder(nn.Module):
    """A model of one weight, of any shape."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)


def zeroed(shape: tuple[int, ...], *zero: tuple[int | slice, ...]) -> torch.Tensor:
    weight = torch.ones(shape, dtype=torch.float64)
    for index in zero:
        weight[index] = 0.0
    return weight


ALL = slice(None)

# One row per grouping of the papers: the weight, its groups, (alive, total, size), and the fraction of zero entries.
GROUPINGS: dict[str, tuple[torch.Tensor, Partition, tuple[int, int, int], float]] = {
    "conv2d, input channels": (zeroed((4, 3, 2, 2), (ALL, 1), (0, 0)), Slices(1), (2, 3, 16), 20 / 48),
    "conv2d, filters": (zeroed((4, 3, 2, 2), (1,), (3,), (0, 0)), Slices(0), (2, 4, 12), 28 / 48),
    "conv1d, input channels": (zeroed((4, 3, 5), (ALL, 0), (ALL, 2)), Slices(1), (1, 3, 20), 40 / 60),
    "conv1d, filters": (zeroed((4, 3, 5), (2,)), Slices(0), (3, 4, 15), 15 / 60),
    "linear, columns": (zeroed((2, 5), (ALL, 0), (ALL, 3), (0, 1)), Slices(1), (3, 5, 2), 5 / 10),
    "linear, rows": (zeroed((2, 5), (1,)), Slices(0), (1, 2, 5), 5 / 10),
    "lstm, columns across the gates": (zeroed((8, 3), (ALL, 2), (0,)), Slices(1), (2, 3, 8), 10 / 24),
    "transposed conv, input channels": (zeroed((3, 2, 2, 2), (1,)), Slices(0), (2, 3, 8), 8 / 24),
    "transposed conv, filters": (zeroed((3, 2, 2, 2), (ALL, 1), (0,)), Slices(1), (1, 2, 12), 16 / 24),
    "depthwise conv, channels": (zeroed((6, 1, 3, 3), (2,), (5,), (0, 0, 0)), Slices(0), (4, 6, 9), 21 / 54),
    # Two convolution groups of two filters each, three inputs per group: rows 0-1 read inputs 0-2, rows 2-3 inputs 3-5.
    "grouped conv, input channels": (
        zeroed((4, 3, 2, 2), (slice(0, 2), 0), (slice(2, 4), 2), (0, 1)),
        Blocks((2, 1)),
        (4, 6, 8),
        20 / 48,
    ),
    "blocks": (zeroed((4, 4), (slice(0, 2), slice(2, 4)), (3, 3)), Blocks((2, 2)), (3, 4, 4), 5 / 16),
    "attention heads": (zeroed((6, 4), (slice(2, 4),), (0,)), Heads(2), (2, 3, 8), 12 / 24),
    "single entries": (zeroed((2, 3), (0, 0), (1, 2)), Elements(), (4, 6, 1), 2 / 6),
}


@pytest.mark.parametrize("case", GROUPINGS)
def test_every_grouping_of_the_papers(case: str):
    weight, groups, (alive, total, size), zeros = GROUPINGS[case]
    found = sparsity(Holder(weight), {"weight": support(weight, groups)})
    assert found.layers == {"weight": LayerSparsity(alive, total, size, weight)}
    assert found.unstructured == pytest.approx(zeros, abs=1e-15)
    assert found.group == found.weighted_group == pytest.approx(1 - alive / total, abs=1e-15)
    assert found.low_rank is None


def test_weighting_counts_a_group_by_its_entries():
    model = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 10)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1.0)
        model.get_parameter("0.weight")[:, :3] = 0.0  # 3 of 4 groups of 2 entries
        model.get_parameter("2.weight")[:, 0] = 0.0  # 1 of 2 groups of 10 entries
        model.get_parameter("2.bias")[0] = 0.0  # seen by the unstructured number alone
    found = sparsity(model, {name: support(model.get_parameter(name), Slices(1)) for name in ("0.weight", "2.weight")})
    assert found.group == pytest.approx(4 / 6)
    assert found.weighted_group == pytest.approx((6 + 10) / (8 + 20))
    assert found.unstructured == pytest.approx((6 + 10 + 1) / (8 + 2 + 20 + 10))


def test_embedding_norm_and_bias_count_as_entries_only():
    model = nn.ModuleDict({"table": nn.Embedding(3, 2), "norm": nn.LayerNorm(2), "read": nn.Linear(2, 2)})
    with torch.no_grad():
        model.get_parameter("table.weight")[1] = 0.0
        model.get_parameter("read.weight").fill_(1.0)
        model.get_parameter("read.bias").fill_(1.0)
    found = sparsity(model, {"read.weight": support(model.get_parameter("read.weight"), Slices(1))})
    assert (found.group, found.weighted_group) == (0.0, 0.0)
    assert found.unstructured == pytest.approx((2 + 2) / (6 + 4 + 6))  # one row of the table, the norm's bias


def test_low_rank_level_comes_from_the_spectrum_alone():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    found = sparsity(
        model,
        {"0.weight": Rank(torch.tensor([True, False, False])), "1.weight": Rank(torch.tensor([True, True]))},
    )
    assert found.low_rank == pytest.approx(1 - 3 / 5)
    assert (found.group, found.weighted_group) == (None, None)
    assert (found.layers["0.weight"].alive, found.layers["0.weight"].total) == (1, 3)


def test_group_numbers_come_from_the_support_and_not_from_averaged_weights():
    weight = torch.full((2, 3), 1e-30)  # small is not zero
    found = sparsity(Holder(weight), {"weight": Support(Slices(1), torch.tensor([True, False, False]))})
    assert found.unstructured == 0.0
    assert found.group == pytest.approx(2 / 3)


def test_zero_is_exact():
    weight = torch.tensor([0.0, -0.0, 5e-324, float("nan")], dtype=torch.float64)
    assert params(Holder(weight)) == Params(total=4, nonzero=2)
    assert support(weight, Elements()).kept.tolist() == [False, False, True, True]


def test_a_tied_weight_counts_once():
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    with torch.no_grad():
        first.weight.fill_(1.0)
        first.weight[:, 0] = 0.0
    both = {name: support(first.weight, Slices(1)) for name in ("0.weight", "1.weight")}
    assert params(model) == Params(total=9, nonzero=6)
    assert sparsity(model, both).layers.keys() == {"0.weight"}
    assert sparsity(model, {"1.weight": both["1.weight"]}).group == pytest.approx(1 / 3)


def test_nothing_to_count_is_none():
    nothing = sparsity(nn.ReLU())
    assert (nothing.unstructured, nothing.group, nothing.weighted_group, nothing.low_rank) == (None,) * 4
    assert nothing.record() == {"params": 0, "nonzero_params": 0, "layers": {}}
    assert sparsity(nn.Linear(2, 2)).group is None


def test_record_is_plain_and_drops_long_masks():
    short, long = nn.Linear(3, 2, bias=False), nn.Linear(64, 65, bias=False)
    with torch.no_grad():
        short.weight.fill_(1.0)
        short.weight[:, 1] = 0.0
        long.weight.fill_(1.0)
    found = sparsity(
        nn.Sequential(short, long),
        {"0.weight": support(short.weight, Slices(1)), "1.weight": support(long.weight, Elements())},
    )
    assert found.record()["layers"] == {
        "0.weight": {"alive": 2, "total": 3, "size": 2, "kept": "a0"},
        "1.weight": {"alive": 4160, "total": 4160, "size": 1},
    }
    assert found.record()["unstructured_sparsity"] == pytest.approx(2 / 4166)
    assert "low_rank_level" not in found.record()


def test_rank_record_has_no_group_size():
    found = sparsity(nn.Linear(2, 3), {"weight": Rank(torch.tensor([True, False]))})
    assert found.record()["layers"] == {"weight": {"alive": 1, "total": 2, "kept": "80"}}


def test_bits_survive_the_round_trip():
    kept = torch.rand(3, 7, generator=torch.Generator().manual_seed(0)) < 0.5
    assert unpack_bits(pack_bits(kept), 21).tolist() == kept.flatten().tolist()
    assert pack_bits(torch.tensor([], dtype=torch.bool)) == "" and unpack_bits("", 0).size == 0


@pytest.mark.parametrize("text", ["zz", "a0a0", ""])
def test_bits_that_are_no_bits(text: str):
    with pytest.raises(ValueError, match=r"unpack_bits: 5 booleans need 2 hexadecimal digits, got . characters"):
        unpack_bits(text, 5)


def test_unknown_name():
    with pytest.raises(ValueError, match="sparsity: structures names 'wieght', which is no parameter of this Linear"):
        sparsity(nn.Linear(2, 2), {"wieght": Rank(torch.tensor([True]))})


def test_support_of_another_weight():
    with pytest.raises(ValueError, match=r"'weight' holds \(3,\) booleans, and Slices\(dim=1\) has \(2,"):
        sparsity(nn.Linear(2, 3), {"weight": Support(Slices(1), torch.ones(3, dtype=torch.bool))})
