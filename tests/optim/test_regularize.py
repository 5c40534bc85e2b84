from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from openwork.kernels import Scalar
from openwork.optim import RAMDA, ParamGroups, regularize
from openwork.partitions import Blocks, Elements, Partition, Slices
from openwork.penalties import L1, GroupLasso, Penalty, Zero
from openwork.structure import Rank, Structure


@dataclass(frozen=True)
class Spectral(Penalty):
    """A penalty on singular values, of which only the structure matters here."""

    def value(self, x: Tensor) -> Tensor:
        return torch.linalg.matrix_norm(x, "nuc")

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        return x

    def structure(self, x: Tensor) -> Structure:
        return Rank(torch.linalg.svdvals(x) > 0)


class Tied(nn.Module):
    """A language model whose head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(10, 4)
        self.hidden = nn.Linear(4, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.tokens.weight


class Convolutional(nn.Module):
    """One of each: plain, depthwise, transposed, normalization, linear, and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 8, 3, groups=4),
            nn.ConvTranspose2d(8, 6, 2, groups=2),
        )
        self.head = nn.Linear(6, 10)
        self.temperature = nn.Parameter(torch.ones(()))
        self.position = nn.Parameter(torch.zeros(1, 7, 6))


def penalties(groups: ParamGroups) -> dict[str, Penalty]:
    return {name: group["penalty"] for group in groups for name in group["names"]}


def partitions(groups: ParamGroups) -> dict[str, Partition]:
    """Partition of every penalized parameter."""
    return {name: penalty.groups for name, penalty in penalties(groups).items() if isinstance(penalty, GroupLasso)}


def test_default_groups_of_a_convolutional_network():
    assert partitions(regularize(Convolutional(), GroupLasso(0.1))) == {
        "features.0.weight": Slices(1),
        "features.2.weight": Blocks((2, 1)),
        "features.3.weight": Slices(0),
        "head.weight": Slices(1),
    }


def test_default_groups_of_recurrent_and_attention_layers():
    model = nn.ModuleDict(
        {
            "lstm": nn.LSTM(5, 3, num_layers=2, bidirectional=True),
            "gru": nn.GRUCell(5, 3),
            "attention": nn.MultiheadAttention(4, 2, add_bias_kv=True),
            "cross": nn.MultiheadAttention(4, 2, kdim=3, vdim=5),
        }
    )
    groups = regularize(model, GroupLasso(0.1))
    weights = {name for name, _ in model.named_parameters() if "weight" in name}
    assert len(weights) == 8 + 2 + 2 + 4
    assert partitions(groups) == dict.fromkeys(weights, Slices(1))


def test_every_trainable_parameter_comes_once_penalized_ones_first_in_order():
    model = Convolutional()
    groups = regularize(model, GroupLasso(0.1))
    biases_and_norm = [f"features.{name}" for name in ("0.bias", "1.weight", "1.bias", "2.bias", "3.bias")]
    assert [(group["names"], isinstance(group["penalty"], Zero)) for group in groups] == [
        (["features.0.weight", "head.weight"], False),
        (["features.2.weight"], False),
        (["features.3.weight"], False),
        (["temperature", "position", *biases_and_norm, "head.bias"], True),
    ]
    named = dict(model.named_parameters())
    assert all(p is named[n] for group in groups for p, n in zip(group["params"], group["names"], strict=True))
    assert sum(len(group["params"]) for group in groups) == len(named)


def test_groups_move_onto_a_model_with_parameters_of_the_same_names():
    def network(width: int = 4) -> nn.Sequential:
        return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))

    first, second = network(), network()
    groups = regularize(first, GroupLasso(0.1), torch.ones(1, 3))
    moved = groups.onto(second)
    assert [group["penalty"] for group in moved] == [group["penalty"] for group in groups]
    assert [group["names"] for group in moved] == [group["names"] for group in groups]
    by_name = dict(second.named_parameters())
    for group in moved:
        assert all(p is by_name[name] for p, name in zip(group["params"], group["names"], strict=True))
    assert moved.describe() == groups.describe()
    with pytest.raises(
        ValueError, match=r"have a parameter '0.weight' of shape \(4, 3\), .* has one of shape \(5, 3\)"
    ):
        groups.onto(network(5))
    with pytest.raises(
        ValueError, match=r"have a parameter '0.weight' .* this Linear does not have it; pass the model"
    ):
        groups.onto(nn.Linear(3, 4))


def test_groups_fit_torch_optimizers():
    groups = regularize(Convolutional(), GroupLasso(0.1))
    optimizer = torch.optim.SGD(groups[:1], lr=0.1)
    optimizer.add_param_group(groups[1])
    assert [group["penalty"] for group in optimizer.param_groups] == [group["penalty"] for group in groups[:2]]


def test_a_step_drops_input_features():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=4), nn.ConvTranspose2d(8, 4, 2))
    optimizer = RAMDA(regularize(model, GroupLasso(0.05)), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(1, 3, 8, 8)).square().mean().backward()
        optimizer.step()
    alive = sum(int(s.kept.sum()) for s in optimizer.structures().values())
    assert optimizer.read_out().total == 3 + 8 + 8
    assert optimizer.read_out().alive == alive
    assert 0 < alive < 3 + 8 + 8


def test_keeps_everything_of_the_penalty_but_its_groups():
    model = nn.Linear(3, 2)
    penalty = GroupLasso(0.1, Blocks((2, 3)), weight="one")
    assert penalties(regularize(model, penalty))["weight"] == GroupLasso(0.1, Slices(1), weight="one")
    assert penalty.groups == Blocks((2, 3))


def test_penalty_without_groups_is_used_as_it_is():
    penalty = L1(0.1)
    groups = regularize(Convolutional(), penalty)
    assert len(groups) == 2
    assert groups[0]["penalty"] is penalty
    assert penalty.groups == Elements()


def test_penalty_on_singular_values_takes_a_weight_as_one_matrix():
    groups = regularize(nn.Linear(3, 2), Spectral())
    assert penalties(groups) == {"weight": Spectral(), "bias": Zero()}
    assert groups.describe().splitlines()[1].split() == [
        "weight",
        "2",
        "x",
        "3",
        "one",
        "matrix",
        "weight",
        "of",
        "Linear",
    ]


def test_tied_weight_comes_once_and_stays_free_as_an_embedding():
    groups = regularize(Tied(), GroupLasso(0.1))
    assert partitions(groups) == {"hidden.weight": Slices(1)}
    assert sum(group["names"].count("tokens.weight") for group in groups) == 1
    assert "table of Embedding, shared with head.weight" in groups.describe()


def test_tied_weight_gets_the_groups_of_the_name_that_insists():
    assert partitions(regularize(Tied(), GroupLasso(0.1), include="head.weight")) == {"tokens.weight": Slices(1)}
    assert partitions(regularize(Tied(), GroupLasso(0.1), include="tokens.weight")) == {"tokens.weight": Slices(0)}


def test_linear_layers_that_share_a_weight_share_its_groups():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    groups = regularize(model, GroupLasso(0.1))
    assert partitions(groups) == {"0.weight": Slices(1)}
    assert "weight of Linear, shared with 1.weight" in groups.describe()


def test_weight_of_layers_that_disagree_stays_free():
    model = nn.Sequential(nn.Conv1d(4, 4, 3), nn.ConvTranspose1d(4, 4, 3), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    groups = regularize(model, GroupLasso(0.1))
    assert partitions(groups) == {"2.weight": Slices(1)}
    assert "layers do not agree on its input, shared with 1.weight" in groups.describe()


def test_parametrized_weight_stays_free():
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 2)), nn.Linear(2, 2))
    assert partitions(regularize(model, GroupLasso(0.1))) == {"1.weight": Slices(1)}


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ("features.*", None, {"features.0.weight", "features.2.weight", "features.3.weight"}),
        ("features", None, {"features.0.weight", "features.2.weight", "features.3.weight"}),
        (["features.[03].weight", "head"], None, {"features.0.weight", "features.3.weight", "head.weight"}),
        (nn.Linear, None, {"head.weight"}),
        (nn.Sequential, None, {"features.0.weight", "features.2.weight", "features.3.weight"}),
        (Convolutional, nn.Conv2d, {"features.3.weight", "head.weight"}),
        (None, "features.*", {"head.weight"}),
        ("*", ["head", nn.ConvTranspose2d], {"features.0.weight", "features.2.weight"}),
    ],
)
def test_include_and_exclude(include, exclude, expected: set[str]):
    assert set(partitions(regularize(Convolutional(), GroupLasso(0.1), include=include, exclude=exclude))) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("position", Slices(1)),
        ("temperature", Elements()),
        ("features.1.weight", Elements()),
        ("head.weight", Slices(1)),
    ],
)
def test_full_name_insists(name: str, expected: Partition):
    assert partitions(regularize(Convolutional(), GroupLasso(0.1), include=name)) == {name: expected}
    both = partitions(regularize(Convolutional(), GroupLasso(0.1), include=["*", name]))
    assert both.keys() == {"features.0.weight", "features.2.weight", "features.3.weight", "head.weight", name}


def test_exclude_has_the_last_word():
    chosen = regularize(Convolutional(), GroupLasso(0.1), include=["*", "position"], exclude="position")
    assert "position" not in partitions(chosen)


def test_frozen_parameters_are_in_no_group():
    model = Convolutional()
    model.features.requires_grad_(False)
    model.register_parameter("count", nn.Parameter(torch.tensor([3]), requires_grad=False))
    groups = regularize(model, GroupLasso(0.1))
    assert penalties(groups).keys() == {"temperature", "position", "head.weight", "head.bias"}
    assert [line.split()[-1] for line in groups.describe().splitlines() if line.startswith("count")] == ["frozen"]


def test_describe():
    model = nn.Sequential(nn.Linear(784, 300), nn.LayerNorm(300), nn.Linear(300, 10, bias=False))
    model.extra = nn.Conv2d(4, 8, 3, groups=2, bias=False)
    model[2].requires_grad_(False)
    assert regularize(model, GroupLasso(0.1)).describe().splitlines() == [
        "parameter     shape          groups                number x size  why",
        "0.weight      300 x 784      Slices(dim=1)         784 x 300      weight of Linear",
        "0.bias        300            free                                 bias of Linear",
        "1.weight      300            free                                 scale of LayerNorm",
        "1.bias        300            free                                 bias of LayerNorm",
        "2.weight      10 x 300       left out                             frozen",
        "extra.weight  8 x 2 x 3 x 3  Blocks(shape=(4, 1))  4 x 36         weight of Conv2d",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"include": "feature.*"},
            r"regularize: include 'feature\.\*' matches no parameter of Convolutional; nearest are features",
        ),
        ({"exclude": "haed"}, "regularize: exclude 'haed' matches no parameter of Convolutional; nearest are head"),
        ({"exclude": nn.Conv1d}, "exclude 'Conv1d' matches no parameter of Convolutional; nearest are Conv2d"),
        (
            {"include": "*.bias"},
            r"Convolutional has no parameter left to penalize: temperature \(not in include\), .*, \.\.\.; give the",
        ),
        ({"include": []}, "Convolutional has no parameter left to penalize"),
        ({"exclude": "*"}, r"no parameter left to penalize: temperature \(in exclude\)"),
    ],
)
def test_bad_selection(arguments, message: str):
    with pytest.raises(ValueError, match=message):
        regularize(Convolutional(), GroupLasso(0.1), **arguments)


def test_model_without_parameters():
    with pytest.raises(ValueError, match="ReLU has no parameter left to penalize: it has none; give"):
        regularize(nn.ReLU(), GroupLasso(0.1))


@pytest.mark.parametrize("value", [torch.ones(2, 3), torch.ones(2, 3, dtype=torch.int64)], ids=["frozen", "integer"])
def test_insisting_on_a_parameter_that_does_not_train(value: Tensor):
    model = nn.Linear(3, 2)
    model.mask = nn.Parameter(value, requires_grad=False)
    message = rf"include names 'mask', which does not train \(requires_grad is False, dtype {value.dtype}\)"
    with pytest.raises(ValueError, match=message):
        regularize(model, GroupLasso(0.1), include=["*", "mask"])
    assert "mask" not in penalties(regularize(model, GroupLasso(0.1), include="*"))


def test_parameter_without_a_shape():
    model = nn.Sequential(nn.Linear(3, 2), nn.LazyLinear(2))
    with pytest.raises(ValueError, match=r"regularize: '1\.weight' has no shape yet; call the model on one batch"):
        regularize(model, GroupLasso(0.1))
    model(torch.ones(1, 3))
    assert partitions(regularize(model, GroupLasso(0.1))) == {"0.weight": Slices(1), "1.weight": Slices(1)}


@pytest.mark.parametrize("penalty", [GroupLasso, 0.1])
def test_something_else_than_a_penalty(penalty):
    with pytest.raises(TypeError, match="regularize: penalty must be a penalty such as GroupLasso"):
        regularize(nn.Linear(3, 2), penalty)


def test_without_a_penalty_everything_is_free():
    groups = regularize(nn.Linear(3, 2), Zero())
    assert [group["names"] for group in groups] == [["weight", "bias"]]
