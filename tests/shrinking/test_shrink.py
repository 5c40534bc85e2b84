"""What goes and what stays, one case at a time."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from openwork import models
from openwork.optim import regularize
from openwork.penalties import GroupLasso
from openwork.shrinking import NotEqual, NothingZero, Plan, shrink
from openwork.shrinking.parts import Attention, Constant, Recurrent
from tests.shrinking.zeros import randomize

F64 = torch.float64


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(1))


def mlp(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    return models.mlp(widths).double()


def weights(model: nn.Module, name: str) -> Tensor:
    return model.get_parameter(name).data


class Convolutions(nn.Module):
    """Two convolutions with batch normalization and no biases, and a head on the mean over positions."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 6, 3, padding=padding, bias=False), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.norm1(self.conv1(x)))
        return self.head(relu(self.norm2(self.conv2(x))).mean(dim=(2, 3)))


def convolutions(padding: int) -> Convolutions:
    torch.manual_seed(0)
    model = Convolutions(padding).double()
    randomize(model)
    model.norm1.get_buffer("running_mean").zero_()
    model.norm1.bias.data.abs_()  # so that the constants survive the activation
    return model


# -- constants --------------------------------------------------------------------------------------------------------


def test_a_constant_channel_moves_into_a_bias_that_was_not_there() -> None:
    model = convolutions(padding=0)
    model.conv1.weight.data[:3] = 0
    shrunk = shrink(model, randn(2, 3, 9, 9), low_rank=False)
    small: Any = shrunk.model
    assert small.conv1.out_channels == 5
    assert small.conv2.bias is not None
    assert small.conv2.bias.requires_grad
    assert shrunk.report.folded == 3
    assert shrunk.plan.shapes["conv2.bias"] == (None, (6,))


def test_a_constant_channel_stays_where_padding_puts_other_values_beside_it() -> None:
    model = convolutions(padding=1)
    model.conv1.weight.data[:3] = 0
    model.norm1.bias.data[:2] = -1.0  # two of the three are zero after the activation
    shrunk = shrink(model, randn(2, 3, 9, 9), low_rank=False)
    small: Any = shrunk.model
    assert small.conv1.out_channels == 6
    assert shrunk.report.folded == 0


def test_folding_can_be_refused() -> None:
    model = convolutions(padding=0)
    model.conv1.weight.data[:3] = 0
    model.norm1.bias.data += 0.1
    shrunk = shrink(model, randn(2, 3, 9, 9), fold=False, low_rank=False)
    assert shrunk.report.params[0] == shrunk.report.params[1]
    assert any("nothing could be removed" in note for note in shrunk.report.notes)


def test_constants_go_through_layer_after_layer() -> None:
    """Each bias that takes one over leaves the next a constant; in the end nothing depends on the input."""
    model = mlp(4, 6, 5, 3)
    weights(model, "1.weight").zero_()
    shrunk = shrink(model, randn(2, 4))
    assert linears(shrunk.model) == []
    assert shrunk.report.constant == ("1", "3", "5")


# -- branches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("block", "stride"), [("stage1.1", 1), ("stage2.0", 2)])
def test_a_branch_that_gives_a_constant_goes(block: str, stride: int) -> None:
    torch.manual_seed(0)
    model = models.resnet18().double()
    randomize(model)
    weights(model, f"{block}.branch.3.weight").zero_()
    shrunk = shrink(model, randn(2, 3, 8, 8), low_rank=False)
    branch = shrunk.model.get_submodule(f"{block}.branch")
    assert isinstance(branch, Constant)
    assert branch.stride == stride
    assert f"{block}.branch" in shrunk.report.constant
    x = randn(1, 3, 11, 11)  # of another size
    torch.testing.assert_close(shrunk.model(x), model(x), rtol=1e-9, atol=1e-9)


# -- ranks ------------------------------------------------------------------------------------------------------------


def low_rank_(weight: Tensor, rank: int) -> None:
    u, s, vh = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    weight.copy_(((u[:, :rank] * s[:rank]) @ vh[:rank]).view_as(weight))


def test_layers_of_low_rank_become_two() -> None:
    model = mlp(20, 30, 40, 3)
    low_rank_(weights(model, "3.weight"), 4)
    shrunk = shrink(model, randn(2, 20))
    assert shrunk.report.ranks == {"3": (4, 30)}
    assert [tuple(p.shape) for p in shrunk.model.get_submodule("3").parameters()] == [(4, 30), (40, 4), (40,)]


def test_a_rank_that_saves_nothing_is_left_alone() -> None:
    model = mlp(20, 30, 40, 3)
    low_rank_(weights(model, "3.weight"), 18)  # 18 (30 + 40) > 30 * 40
    weights(model, "3.weight")[0, 0] = 0
    assert shrink(model, randn(2, 20)).report.ranks == {}


def test_low_rank_and_units_at_once() -> None:
    model = mlp(20, 30, 40, 3)
    low_rank_(weights(model, "3.weight"), 4)
    weights(model, "3.weight")[:, :10] = 0
    shrunk = shrink(model, randn(2, 20))
    assert [tuple(p.shape) for p in shrunk.model.get_submodule("3").parameters()] == [(4, 20), (40, 4), (40,)]
    assert shrink(model, randn(2, 20), low_rank=False).report.ranks == {}


# -- widths -----------------------------------------------------------------------------------------------------------


def linears(model: nn.Module) -> list[int]:
    return [layer.out_features for layer in model.modules() if isinstance(layer, nn.Linear)]


@pytest.mark.parametrize(("round_to", "width"), [(1, 11), (4, 12), (8, 16), (64, 20)])
def test_widths_are_multiples(round_to: int, width: int) -> None:
    model = mlp(4, 20, 3)
    weights(model, "3.weight")[:, :9] = 0
    assert linears(shrink(model, randn(2, 4), round_to=round_to).model) == [width, 3]


def test_the_axis_of_a_flattened_channel_is_a_multiple_already() -> None:
    torch.manual_seed(0)
    model = models.lenet5((6, 16)).double()
    weights(model, "3.weight")[:, :3] = 0  # of 6 channels of the first convolution
    weights(model, "7.weight")[:, :75] = 0  # 3 of the 16 channels, 25 positions each
    small: Any = shrink(model, randn(2, 1, 28, 28), round_to=4).model
    assert [m.out_channels for m in small.modules() if isinstance(m, nn.Conv2d)] == [4, 16]


def test_uniform_keeps_layers_of_one_kind_equally_wide() -> None:
    torch.manual_seed(0)
    model = models.gpt(11, 8, 12, 2, 3).double()
    weights(model, "blocks.0.mlp.2.weight")[:, :30] = 0
    weights(model, "blocks.1.mlp.2.weight")[:, 20:40] = 0
    x = torch.randint(0, 11, (2, 5))
    sizes = [tuple(w.after for w in shrink(model, x, uniform=u).report.widths if w.before == 48) for u in (False, True)]
    assert sizes == [(18, 28), (28, 28)]


def test_exclude_keeps_units() -> None:
    model = mlp(4, 20, 10, 3)
    weights(model, "3.weight")[:, :9] = 0
    weights(model, "5.weight")[:, :4] = 0
    assert linears(shrink(model, randn(2, 4)).model) == [11, 6, 3]
    assert linears(shrink(model, randn(2, 4), exclude="1").model) == [20, 6, 3]
    with pytest.raises(ValueError, match="exclude '9' matches no parameter of Sequential; use names of"):
        shrink(model, randn(2, 4), exclude="9")


def test_one_unit_stays_when_all_are_zero() -> None:
    model = mlp(4, 20, 10, 3)
    weights(model, "5.weight").zero_()
    small = shrink(model, randn(2, 4), fold=False, low_rank=False).model
    assert linears(small) == [1, 1, 3]


def test_what_only_removed_units_read_goes_too() -> None:
    """The first layer's units are read by units of the second that nobody reads."""
    model = mlp(4, 6, 5, 3)
    weights(model, "5.weight")[:, 2:] = 0
    weights(model, "3.weight")[:2, :4] = 0
    assert linears(shrink(model, randn(2, 4)).model) == [2, 2, 3]


# -- modules that tie widths ------------------------------------------------------------------------------------------


def test_attention_is_replaced_only_where_it_is_cut() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double().eval()
    weights(model, "layers.1.self_attn.out_proj.weight")[:, :4] = 0
    weights(model, "layers.0.linear2.weight")[:, :5] = 0
    small: Any = shrink(model, randn(2, 5, 8)).model
    assert type(small.layers[0].self_attn) is nn.MultiheadAttention
    assert type(small.layers[1].self_attn) is Attention
    assert small.layers[1].self_attn.num_heads == 1
    assert small.layers[0].linear1.out_features == 11


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, 2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0])


def test_recurrent_layers_lose_equally_many_units_or_are_split() -> None:
    torch.manual_seed(0)
    model = Stack().double()
    for suffix, gone in (("l0", 4), ("l0_reverse", 2), ("l1", 3), ("l1_reverse", 2)):
        silent = torch.arange(6) < gone
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            weights(model, f"lstm.{kind}_{suffix}")[silent.repeat(4)] = 0
    together: Any = shrink(model, randn(2, 7, 4)).model
    assert together.lstm.hidden_size == 4
    apart: Any = shrink(model, randn(2, 7, 4), split_recurrent=True).model
    assert type(apart.lstm) is Recurrent
    layers: Any = apart.lstm.layers
    assert [[part.hidden_size for part in parts] for parts in layers] == [[2, 4], [3, 4]]


# -- the original, and proof ------------------------------------------------------------------------------------------


def test_mode_and_requires_grad_and_ties_survive() -> None:
    torch.manual_seed(0)
    model = models.gpt(11, 8, 12, 2, 3).double().train()
    model.get_parameter("norm.weight").requires_grad_(False)
    weights(model, "blocks.0.mlp.2.weight")[:, :30] = 0
    small: Any = shrink(model, torch.randint(0, 11, (2, 5))).model
    assert small.training
    assert model.training
    assert not small.norm.weight.requires_grad
    assert small.head.weight is small.tokens.weight


def test_a_plan_makes_another_model_as_small() -> None:
    model = mlp(4, 20, 10, 3)
    weights(model, "3.weight")[:, :9] = 0
    shrunk = shrink(model, randn(2, 4))
    again = mlp(4, 20, 10, 3)
    plan = Plan.from_json(shrunk.plan.to_json())
    plan.apply_(again, dict(shrunk.model.named_parameters()))
    torch.testing.assert_close(again(randn(3, 4)), shrunk.model(randn(3, 4)), rtol=0, atol=0)


class Liar(nn.Module):
    """Its trace does not show what it does: the length is written where nobody can change it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.lengths = [6]

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x.reshape(-1, self.lengths[0]))


def test_a_width_that_cannot_be_changed_is_named_and_nothing_happens() -> None:
    torch.manual_seed(0)
    model = Liar().double()
    model.last.weight.data[:, :3] = 0
    before = deepcopy(model.state_dict())
    with pytest.raises(NotEqual, match=r"the smaller model does not run \(.*\), in 'last'; most likely a width"):
        shrink(model, randn(2, 4))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Different(nn.Module):
    """Whose output depends on its width in a way that no graph shows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x)) * float(self.first.out_features)


def test_other_outputs_are_refused_with_the_largest_difference_and_the_culprit() -> None:
    torch.manual_seed(0)
    model = Different().double()
    model.last.weight.data[:, :3] = 0
    with pytest.raises(NotEqual, match=r"differs by 5\.0e-01 of the largest output, where 1e-10 is allowed"):
        shrink(model, randn(2, 4))


# -- bad input --------------------------------------------------------------------------------------------------------


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if float(x.sum()) > 0 else -self.layer(x)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: shrink(mlp(4, 5, 3), randn(2, 4)),
            NothingZero,
            r"nothing is exactly zero; call optimizer.settle_\(\)",
        ),
        (lambda: shrink(mlp(4, 5, 3), None), ValueError, "example_inputs is empty"),
        (lambda: shrink(mlp(4, 5, 3), randn(2, 7)), ValueError, r"does not run on example_inputs \(tensor of shape"),
        (lambda: shrink(Branching().double(), randn(2, 4)), ValueError, "control flow depends on the values"),
        (lambda: shrink(torch.relu, randn(2, 4)), TypeError, "model must be a torch.nn.Module"),  # pyright: ignore
        (lambda: shrink(mlp(4, 5, 3), randn(2, 4), round_to=0), ValueError, "round_to must be a positive integer"),
    ],
)
def test_bad_input_is_one_sentence(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_shared_module_is_cut_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)
            self.same = self.again

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.same(self.again(self.first(x).relu()).relu()).relu())

    torch.manual_seed(0)
    model = Twice().double()
    model.again.weight.data[:, :2] = 0
    model.last.weight.data[:, :2] = 0
    small: Any = shrink(model, randn(2, 4)).model
    assert small.same is small.again
    assert small.again.weight.shape == (4, 4)


def test_frozen_layers_are_cut_too_and_stay_frozen() -> None:
    model = mlp(4, 20, 3).requires_grad_(False)
    weights(model, "3.weight")[:, :9] = 0
    small = shrink(model, randn(2, 4)).model
    assert linears(small) == [11, 3]
    assert not any(p.requires_grad for p in small.parameters())


@pytest.mark.filterwarnings("ignore")  # torch says that this kind of quantization will go
def test_a_quantized_layer_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    with pytest.raises(ValueError, match=r"'0' is a quantized layer \(Linear\), .*; shrink first and quantize after"):
        shrink(quantized, torch.randn(2, 4))


def test_what_took_the_place_of_attention_can_be_regularized_again() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).double().eval()
    weights(layer, "self_attn.out_proj.weight")[:, :4] = 0
    small = shrink(layer, randn(2, 5, 8)).model
    text = regularize(small, GroupLasso(1e-3)).describe()
    assert "self_attn.in_proj_weight" in text
    assert "weight of Attention" in text
