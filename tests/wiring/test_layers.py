"""Every row of the table, checked against what the layer really computes."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from openwork.partitions import Partition
from openwork.wiring import Role, role_of

Call = Callable[[nn.Module, Tensor], Tensor]


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Conv1D(nn.Module):
    """GPT-2's layer: a Linear layer that stores its weight as (input, output)."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.randn(nx, nf))
        self.bias = nn.Parameter(torch.zeros(nf))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


def first(layer: nn.Module, x: Tensor) -> Tensor:
    out = layer(x)
    return out[0] if isinstance(out, tuple) else out


def from_hidden(layer: nn.Module, hidden: Tensor) -> Tensor:
    """One step of a recurrent layer, as a function of its hidden state."""
    assert isinstance(layer, nn.RNNBase)
    if isinstance(layer, nn.GRU):
        # A GRU also passes its state on around the weight; a closed update gate stops that.
        with torch.no_grad():
            layer.get_parameter("bias_hh_l0")[3:6] = -1e4
    x = randn(1, 2, layer.input_size)
    return layer(x, (hidden, torch.ones_like(hidden)) if isinstance(layer, nn.LSTM) else hidden)[0]


def from_cell(layer: nn.Module, cell: Tensor) -> Tensor:
    """One step of an LSTM, as a function of the cell state of its first layer, which its hidden units are read from."""
    assert isinstance(layer, nn.LSTM)
    rest = torch.ones(layer.num_layers - 1, *cell.shape[1:], dtype=cell.dtype)
    hidden = torch.zeros(layer.num_layers, cell.shape[1], layer.proj_size or layer.hidden_size, dtype=cell.dtype)
    return layer(randn(1, 2, layer.input_size), (hidden, torch.cat([cell, rest])))[0]


def attend_to_itself(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x, x, x)[0]


def attend_from(layer: nn.Module, query: Tensor) -> Tensor:
    return layer(query, randn(3, 2, 5), randn(3, 2, 3))[0]


def attend_by(layer: nn.Module, key: Tensor) -> Tensor:
    return layer(randn(3, 2, 4), key, randn(3, 2, 3))[0]


def attend_to(layer: nn.Module, value: Tensor) -> Tensor:
    return layer(randn(3, 2, 4), randn(3, 2, 5), value)[0]


def from_value_bias(layer: nn.Module, bias: Tensor) -> Tensor:
    """Attention as a function of the bias of its values, each of which is one input of the output projection."""
    x = randn(3, 2, 4)
    return functional_call(layer, {"in_proj_bias": torch.cat([randn(8), bias])}, (x, x, x))[0]


@dataclass(frozen=True)
class Case:
    """A layer, one of its weights, and an input whose features that weight reads.

    ``groups`` is number x size, counted by hand.
    """

    layer: nn.Module
    weight: str
    groups: tuple[int, int]
    x: Tensor
    features: int
    call: Call = first

    def __str__(self) -> str:
        return f"{self.layer}.{self.weight}"


CASES = [
    Case(nn.Linear(5, 3), "weight", (5, 3), randn(2, 5), -1),
    Case(Conv1D(3, 5), "weight", (5, 3), randn(2, 5), -1),
    Case(Conv1D(4, 4), "weight", (4, 4), randn(2, 4), -1),
    Case(nn.Conv1d(4, 6, 3), "weight", (4, 18), randn(2, 4, 7), 1),
    Case(nn.Conv2d(4, 6, (3, 2)), "weight", (4, 36), randn(2, 4, 4, 4), 1),
    Case(nn.Conv3d(2, 3, 2), "weight", (2, 24), randn(1, 2, 3, 3, 3), 1),
    Case(nn.Conv1d(6, 4, 3, groups=2), "weight", (6, 6), randn(1, 6, 5), 1),
    Case(nn.Conv2d(6, 4, 3, groups=2), "weight", (6, 18), randn(1, 6, 4, 4), 1),
    Case(nn.Conv2d(4, 8, 3, groups=4), "weight", (4, 18), randn(1, 4, 4, 4), 1),
    Case(nn.Conv3d(4, 4, 2, groups=4), "weight", (4, 8), randn(1, 4, 2, 2, 2), 1),
    Case(nn.ConvTranspose1d(4, 6, 3), "weight", (4, 18), randn(1, 4, 3), 1),
    Case(nn.ConvTranspose2d(4, 6, 3), "weight", (4, 54), randn(1, 4, 3, 3), 1),
    Case(nn.ConvTranspose3d(2, 3, 2), "weight", (2, 24), randn(1, 2, 2, 2, 2), 1),
    Case(nn.ConvTranspose2d(4, 6, 3, groups=2), "weight", (4, 27), randn(1, 4, 3, 3), 1),
    Case(nn.ConvTranspose1d(4, 8, 3, groups=4), "weight", (4, 6), randn(1, 4, 3), 1),
    Case(nn.RNN(5, 3), "weight_ih_l0", (5, 3), randn(2, 2, 5), -1),
    Case(nn.GRU(5, 3), "weight_ih_l0", (5, 9), randn(2, 2, 5), -1),
    Case(nn.LSTM(5, 3), "weight_ih_l0", (5, 12), randn(2, 2, 5), -1),
    Case(nn.RNN(5, 3), "weight_hh_l0", (3, 3), randn(1, 2, 3), -1, from_hidden),
    Case(nn.GRU(5, 3), "weight_hh_l0", (3, 9), randn(1, 2, 3), -1, from_hidden),
    Case(nn.LSTM(5, 3), "weight_hh_l0", (3, 12), randn(1, 2, 3), -1, from_hidden),
    Case(nn.LSTM(5, 3, num_layers=2), "weight_ih_l1", (3, 12), randn(1, 2, 3), -1, from_cell),
    Case(nn.LSTM(5, 4, proj_size=2), "weight_hr_l0", (4, 2), randn(1, 2, 4), -1, from_cell),
    Case(nn.RNNCell(5, 3), "weight_ih", (5, 3), randn(2, 5), -1),
    Case(nn.GRUCell(5, 3), "weight_ih", (5, 9), randn(2, 5), -1),
    Case(nn.LSTMCell(5, 3), "weight_ih", (5, 12), randn(2, 5), -1),
    Case(nn.MultiheadAttention(4, 2), "in_proj_weight", (4, 12), randn(3, 2, 4), -1, attend_to_itself),
    Case(nn.MultiheadAttention(4, 2), "out_proj.weight", (4, 4), randn(4), -1, from_value_bias),
    *(
        Case(nn.MultiheadAttention(4, 2, kdim=5, vdim=3), f"{name}_proj_weight", (n, 4), randn(3, 2, n), -1, call)
        for name, n, call in (("q", 4, attend_from), ("k", 5, attend_by), ("v", 3, attend_to))
    ),
]


def look_up(layer: nn.Module, name: str) -> tuple[Role, nn.Parameter]:
    owner, _, local = name.rpartition(".")
    role = role_of(layer.get_submodule(owner), local)
    assert role is not None
    return role, layer.get_parameter(name)


def input_slices(layer: nn.Module, name: str) -> tuple[Partition, nn.Parameter]:
    role, weight = look_up(layer, name)
    groups = role.input_slices(weight.shape)
    assert groups is not None
    return groups, weight


def sensitivity(case: Case) -> Tensor:
    """How much the output moves with each input feature: a sum of absolute derivatives."""
    jacobian = torch.autograd.functional.jacobian(lambda x: case.call(case.layer, x), case.x)
    assert isinstance(jacobian, Tensor)
    feature_last = jacobian.abs().movedim(case.features if case.features < 0 else case.features - case.x.ndim, -1)
    return feature_last.flatten(0, -2).sum(0)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_number_and_size_of_input_slices(case: Case):
    groups, weight = input_slices(case.layer, case.weight)
    assert (prod(groups.grid(weight.shape)), groups.size(weight.shape)) == case.groups


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_layer_without_an_input_slice_ignores_exactly_that_feature(case: Case):
    case.layer.double()
    groups, weight = input_slices(case.layer, case.weight)
    assert (sensitivity(case) > 0).all()
    before = weight.detach().clone()
    for feature in range(case.groups[0]):
        chosen = torch.arange(case.groups[0]) == feature
        with torch.no_grad():
            weight[groups.spread(chosen.view(groups.grid(weight.shape)), like=weight)] = 0.0
        assert ((sensitivity(case) == 0) == chosen).all()
        with torch.no_grad():
            weight.copy_(before)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Linear(5, 3), randn(2, 5)),
        (Conv1D(3, 5), randn(2, 5)),
        (nn.Conv2d(4, 6, 3, groups=2), randn(1, 4, 4, 4)),
        (nn.ConvTranspose2d(4, 6, 3), randn(1, 4, 3, 3)),
    ],
    ids=str,
)
def test_a_layer_without_an_output_slice_puts_out_zeros_there_only(layer: nn.Module, x: Tensor):
    layer.double()
    for name in ("weight", "bias"):
        role, parameter = look_up(layer, name)
        assert role.output is not None
        with torch.no_grad():
            parameter.select(role.output, 2).zero_()
    out = layer(x)
    assert [bool(channel.any()) for channel in out.unbind(1)] == [i != 2 for i in range(out.shape[1])]


def test_grouped_convolution_numbers_its_input_slices_like_its_channels():
    role, weight = look_up(nn.Conv2d(6, 4, 1, groups=2), "weight")
    groups = role.input_slices(weight.shape)
    assert groups is not None
    assert role.conv_groups == 2
    # Rows are outputs; the first two read channels 0-2 and the last two channels 3-5.
    channels = groups.spread(torch.arange(6).view(groups.grid(weight.shape)), like=weight)
    assert channels.flatten(1).tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]]


@pytest.mark.parametrize(
    ("layer", "name", "stacked", "heads", "run"),
    [
        (nn.LSTM(5, 3), "weight_ih_l0", 4, 1, 3),
        (nn.LSTM(5, 3), "bias_hh_l0", 4, 1, 3),
        (nn.LSTM(5, 3, bidirectional=True), "weight_hh_l0_reverse", 4, 1, 3),
        (nn.LSTM(5, 4, proj_size=2), "weight_hr_l0", 1, 1, 2),
        (nn.GRU(5, 3), "weight_hh_l0", 3, 1, 3),
        (nn.MultiheadAttention(6, 2), "in_proj_weight", 3, 2, 3),
        (nn.MultiheadAttention(6, 2), "in_proj_bias", 3, 2, 3),
        (nn.MultiheadAttention(6, 2, add_bias_kv=True), "bias_k", 1, 2, 3),
        (nn.MultiheadAttention(6, 2, kdim=5), "k_proj_weight", 1, 2, 3),
    ],
)
def test_outputs_come_in_stacked_maps_and_heads(layer: nn.Module, name: str, stacked: int, heads: int, run: int):
    role, parameter = look_up(layer, name)
    assert role.output is not None
    assert (role.stacked, role.heads) == (stacked, heads)
    assert parameter.shape[role.output] == stacked * heads * run


@pytest.mark.parametrize(
    ("layer", "kinds"),
    [
        (nn.Linear(2, 3), {"weight": "weight", "bias": "bias"}),
        (nn.BatchNorm2d(3), {"weight": "scale", "bias": "bias"}),
        (nn.SyncBatchNorm(3), {"weight": "scale", "bias": "bias"}),
        (nn.InstanceNorm1d(3, affine=True), {"weight": "scale", "bias": "bias"}),
        (nn.GroupNorm(1, 3), {"weight": "scale", "bias": "bias"}),
        (nn.LayerNorm([2, 3]), {"weight": "scale", "bias": "bias"}),
        (nn.RMSNorm(3), {"weight": "scale"}),
        (nn.Embedding(4, 3), {"weight": "table"}),
        (nn.EmbeddingBag(4, 3), {"weight": "table"}),
        (nn.PReLU(3), {"weight": "slope"}),
    ],
    ids=str,
)
def test_kinds(layer: nn.Module, kinds: dict[str, str]):
    roles = {name: role_of(layer, name) for name, _ in layer.named_parameters()}
    assert {name: role.kind for name, role in roles.items() if role} == kinds


def test_a_subclass_means_what_its_base_means():
    class Masked(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 3)
            self.gate = nn.Parameter(torch.ones(3))

    layer = Masked()
    assert role_of(layer, "weight") == role_of(nn.Linear(2, 3), "weight")
    assert role_of(layer, "gate") is None


def test_a_parametrized_layer_keeps_its_meaning():
    layer = nn.utils.parametrizations.weight_norm(nn.Conv1d(2, 4, 3))
    original = role_of(layer.get_submodule("parametrizations.weight"), "original1")
    assert original == Role("original")
    assert Role("original").input_slices((4, 2, 3)) is None
    assert role_of(layer, "bias") == Role("bias", output=0)


def test_what_nobody_knows():
    class Conv1DOfSomebodyElse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 2, 5))

    Conv1DOfSomebodyElse.__name__ = "Conv1D"
    assert role_of(Conv1DOfSomebodyElse(), "weight") is None
    assert role_of(nn.Bilinear(2, 3, 4), "weight") is None


def test_transformers_conv1d():
    pytorch_utils = pytest.importorskip("transformers.pytorch_utils", reason="transformers is not installed")
    role, weight = look_up(pytorch_utils.Conv1D(6, 4), "weight")
    assert weight.shape == (4, 6)
    assert (role.output, role.input) == (1, 0)
