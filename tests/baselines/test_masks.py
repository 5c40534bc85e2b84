"""Which weights are pruned, and which of their entries are chosen."""

import pytest
import torch
from torch import nn

from openwork.baselines import Masks
from openwork.baselines.masks import choose, largest
from openwork.partitions import Elements, Slices
from tests.baselines.loop import best, places


def model() -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "table": nn.Embedding(5, 4),
            "conv": nn.Conv1d(4, 6, 3),
            "norm": nn.BatchNorm1d(6),
            "cell": nn.LSTMCell(6, 3),
            "attention": nn.MultiheadAttention(4, 2),
            "last": nn.Linear(3, 2),
        }
    )


def test_weights_are_pruned_and_nothing_else() -> None:
    masks = Masks(model())
    assert set(masks.weights) == {
        "conv.weight",
        "cell.weight_ih",
        "cell.weight_hh",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "last.weight",
    }
    assert masks.total == 72 + 72 + 36 + 48 + 16 + 6 == masks.alive
    assert masks.groups["last.weight"] == Slices(1)


def test_include_and_exclude_are_those_of_regularize() -> None:
    assert set(Masks(model(), include="cell").weights) == {"cell.weight_ih", "cell.weight_hh"}
    assert set(Masks(model(), include=[nn.Conv1d, "last"]).weights) == {"conv.weight", "last.weight"}
    assert "last.weight" not in Masks(model(), exclude="last").weights
    insisted = Masks(model(), include=["table.weight", "norm.weight"])
    assert set(insisted.weights) == {"table.weight", "norm.weight"}
    assert insisted.groups == {"table.weight": Slices(0), "norm.weight": Elements()}


def test_shared_and_frozen_weights() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    net[1].weight = net[0].weight
    net[2].weight.requires_grad_(False)
    assert list(Masks(net).weights) == ["0.weight"]


@pytest.mark.parametrize("net", [nn.BatchNorm1d(3), nn.Linear(2, 2).requires_grad_(False), nn.ReLU()])
def test_no_weight_left_is_said(net: nn.Module) -> None:
    with pytest.raises(ValueError, match=f"Masks: {type(net).__name__} has no weight left to prune; only weights of"):
        Masks(net)
    with pytest.raises(ValueError, match="Masks: include 'lost' matches no parameter of ModuleDict; nearest are"):
        Masks(model(), include="lost")


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 6])
def test_the_first_of_equal_scores_is_taken(count: int) -> None:
    scores = torch.tensor([[1.0, 2.0, 2.0], [2.0, 0.0, 2.0]])
    assert largest(scores, count).flatten().nonzero().flatten().tolist() == sorted([1, 2, 3, 5, 0, 4][:count])


@pytest.mark.parametrize("density", [1e-9, 0.1, 0.34, 0.5, 1.0])
def test_choices_of_all_and_of_each(density: float) -> None:
    scores = {"a": torch.rand(4, 5).round(decimals=1), "b": torch.rand(3, 3).round(decimals=1)}
    among = {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
    assert places(choose(scores, among, density, "global")) == best(scores, max(1, round(29 * density)))
    each = choose(scores, among, density, "layerwise")
    assert abs(sum(int(mask.sum()) for mask in each.values()) - max(2, 29 * density)) <= 0.5
    for name, score in scores.items():
        count = int(each[name].sum())
        assert 1 <= count <= max(1, density * score.numel() + 1)
        assert places(each)[name] == best({name: score}, count)[name]


@pytest.mark.parametrize("scope", ["global", "layerwise"])
def test_what_is_masked_does_not_come_back(scope: str) -> None:
    scores = {"a": torch.tensor([3.0, 0.0, 2.0, 0.0]), "b": torch.tensor([5.0, 1.0])}
    among = {"a": torch.tensor([False, True, True, False]), "b": torch.tensor([False, True])}
    for density in (0.5, 1.0):
        assert places(choose(scores, among, density, scope)) == {"a": [1, 2], "b": [1]}  # pyright: ignore


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    among = {"a": torch.ones(2, dtype=torch.bool)}
    with pytest.raises(ValueError, match="the scores of 'a' are not finite, so nothing can be chosen by them"):
        choose({"a": torch.tensor([1.0, bad])}, among, 0.5, "global")
