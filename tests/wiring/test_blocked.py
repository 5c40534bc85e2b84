"""What blocks a coupling is named, and blocks nothing else."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openwork.wiring import inspect


class Between(nn.Module):
    """Two linear layers, with anything in between."""

    def __init__(self, between: Callable[[Tensor], Tensor], width: int = 12) -> None:
        super().__init__()
        self.before, self.first, self.second = nn.Linear(4, 7), nn.Linear(7, width), nn.Linear(width, 3)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(torch.relu(self.before(x)))))


def reasons(between: Callable[[Tensor], Tensor]) -> str:
    """Why the coupling between the two layers is blocked; the one before them never is."""
    wiring = inspect(Between(between), torch.randn(2, 5, 4))
    assert any(coupling.width == 7 for coupling in wiring.removable)
    ends = {("first.weight", 0), ("second.weight", 1)}
    blocked = [c for c in wiring.blocked if any((part.name, part.dim) in ends for part in c.slices())]
    return "; ".join(reason for coupling in blocked for reason in coupling.reasons)


class Channels(nn.Module):
    """A layer whose channels are dimension 1, on tensors whose channels come last."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.transpose(1, 2)).transpose(1, 2)


class WritesAPart(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[..., :5].add_(1)
        return x


class Pieces(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[..., :5], x[..., 5:]], dim=-1)


@torch.library.custom_op("openwork_tests::relu", mutates_args=())
def not_really_relu(x: Tensor) -> Tensor:
    return x + 1


not_really_relu.register_fake(torch.empty_like)


@pytest.mark.parametrize(
    ("between", "why"),
    [
        (nn.LayerNorm(12), "LayerNorm runs over it, and a channel that is zero still counts in mean and variance"),
        (Channels(nn.GroupNorm(1, 12)), "GroupNorm runs over it as one group"),
        (lambda x: x.sort(dim=-1).values, "the operation aten.sort.default is not known"),
        (lambda x: x.softmax(dim=-1), "softmax runs over it"),
        (lambda x: x + x.mean(dim=-1, keepdim=True), "a mean divides by its width"),
        (lambda x: x.sigmoid().sum(dim=-1, keepdim=True) * x, "sigmoid of 0 is not 0"),
        (lambda x: x * x.new_ones(12), "its length is fixed, since it meets what new_ones gives"),
        (lambda x: x.amax(dim=-1, keepdim=True) * x, "amax runs over it, and a zero can change the result"),
        (lambda x: x[..., [3, 1, 2, 0, *range(4, 12)]], "its entries are looked up by index"),
        (lambda x: x.cumsum(dim=-1), "cumsum runs over it"),
        (WritesAPart(), "add_ writes into a part of a tensor"),
        (lambda x: x.gather(-1, x.argsort(dim=-1)), "the operation aten.argsort.default is not known"),
        (lambda x: x.repeat_interleave(torch.ones(12, dtype=torch.int64), -1, output_size=12), "is not known"),
        (lambda x: torch.cond(x.sum() > 0, torch.relu, torch.tanh, (x,)), "the operation cond is not known"),
        (not_really_relu, "the operation openwork_tests.relu.default is not known"),
        (Pieces(), "a range of it is taken out by number"),
    ],
)
def test_reason(between: Callable[[Tensor], Tensor], why: str) -> None:
    assert why in reasons(between)


@pytest.mark.parametrize(
    ("between", "why"),
    [
        (Channels(nn.BatchNorm1d(12, affine=False)), "batch_norm subtracts the buffer between.layer.running_mean"),
        (torch.sigmoid, "sigmoid of 0 is not 0"),
        (lambda x: x + 1, "add of 0 is not 0"),
        (lambda x: x + x.sum(dim=-1, keepdim=True), "add puts other values there"),
        (lambda x: x / x.norm(dim=1, keepdim=True), "div of 0 by 0 is not 0"),
        (lambda x: torch.logsumexp(x, dim=1, keepdim=True), "logsumexp of 0 is not 0"),
    ],
)
def test_a_constant_where_producers_are_zero_is_remarked(between: Callable[[Tensor], Tensor], why: str) -> None:
    """The reader's bias can take it over, so it blocks nothing."""
    wiring = inspect(Between(between), torch.randn(2, 5, 4))
    remarks = {remark.kind: remark.text for c in wiring.removable if c.width == 12 for remark in c.remarks}
    assert why in remarks["constant"]


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x.relu().mul(2).div(3).neg().clamp(-1, 1),
        lambda x: x * torch.sigmoid(x),
        nn.functional.leaky_relu,
        nn.PReLU(),
        nn.PReLU(5),
        lambda x: x.relu_().mul_(2),
        lambda x: x / x.norm(dim=1, keepdim=True).clamp_min(1e-6),
        lambda x: nn.functional.glu(torch.cat([x, x], dim=-1)),
        Channels(nn.GroupNorm(4, 12)),
        Channels(nn.BatchNorm1d(12)),
        Channels(nn.InstanceNorm1d(12)),
        lambda x: x / x.square().sum(dim=-1, keepdim=True).add(1).sqrt(),
        nn.RMSNorm(12),
        lambda x: x.softmax(dim=1) * x,
        lambda x: x.roll(1, dims=1).flip(1),
        lambda x: x + x.flip(-1),
        lambda x: torch.stack([x, x], dim=0).sum(dim=0),
        lambda x: x.masked_fill(x > 0, 0.0),
        lambda x: torch.einsum("btc,sc->btc", x, x[0]),
    ],
)
def test_nothing_is_in_the_way(between: Callable[[Tensor], Tensor]) -> None:
    assert reasons(between) == ""


class Attention(nn.Module):
    def __init__(self, split: nn.Module) -> None:
        super().__init__()
        self.split, self.qkv, self.out = split, nn.Linear(8, 36), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.split(part).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class SplitByNumber(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        return x.view(b, t, 4, 3)


class SplitByEntries(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        return x.view(b, t, -1, 3)


class SplitByAttribute(nn.Module):
    heads = 4

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        return x.view(b, t, self.heads, c // self.heads)


@pytest.mark.parametrize("split", [SplitByNumber, SplitByEntries, SplitByAttribute])
def test_a_number_written_in_a_view_blocks_what_it_fixes(split: type[nn.Module]) -> None:
    wiring = inspect(Attention(split()), torch.randn(2, 5, 8))
    (heads,) = (c for c in wiring.couplings if any(part.name == "out.weight" and part.dim == 1 for part in c.slices()))
    assert heads.width == 4
    assert heads.blocked == (split is SplitByNumber)
    if heads.blocked:
        (why,) = heads.reasons
        assert why.startswith("the length 4 is written in the code, where no attribute can change it in split (")
        assert "x.view(b, t, 4, 3)" in why


def test_a_recurrent_cell_is_named_and_blocks_only_itself() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.first, self.cell, self.last = (
                nn.Linear(4, 7),
                nn.Linear(7, 6),
                nn.LSTMCell(6, 5),
                nn.Linear(5, 2),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.cell(self.first(self.before(x).relu()))[0])

    wiring = inspect(Cell(), torch.randn(3, 4))
    assert [coupling.width for coupling in wiring.removable] == [7]
    assert any("the operation aten.lstm_cell.default is not known" in why for c in wiring.blocked for why in c.reasons)


def test_a_tensor_shared_on_both_sides_says_what_holds_it() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.head = nn.Embedding(9, 6), nn.Linear(6, 9, bias=False)
            self.head.weight = self.tokens.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.tokens(x))

    wiring = inspect(Tied(), torch.randint(0, 9, (2, 3)))
    (columns,) = wiring.removable
    assert columns.width == 6
    assert [(part.name, part.dim) for part in columns.slices()] == [("tokens.weight", 1)]
    (rows,) = wiring.blocked
    assert "its entries are looked up by index" in rows.reasons[0]
    assert rows.reasons[1] == "it is an output of the model"


def test_the_table_names_width_saving_and_what_blocks() -> None:
    wiring = inspect(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(2, 4))
    assert str(wiring).splitlines() == [
        "1 coupling can lose units (67 parameters)",
        "width  saves  producers         consumers",
        "8      56     0.weight, 0.bias  2.weight",
        "2 are blocked",
        "0.weight (4 units)",
        "    its length is fixed, since it meets an input of the model in 0",
        "2.weight (3 units)",
        "    it is an output of the model",
    ]


def test_a_layer_that_is_used_twice_is_one_coupling() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x).relu()
            return self.last(self.again(self.again(x).relu()).relu())

    (coupling,) = inspect(Twice(), torch.randn(3, 4)).removable
    assert coupling.width == 6
    assert [(part.name, part.dim) for part in coupling.consumers] == [("again.weight", 1), ("last.weight", 1)]
    assert ("again.weight", 0) in [(part.name, part.dim) for part in coupling.producers]


def test_a_bad_tensor_or_side_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    (coupling,) = inspect(model, torch.randn(2, 4)).removable
    with pytest.raises(ValueError, match=r"tensors\['2.weight'\] must have shape \(3, 8\), got None; pass one tensor"):
        coupling.sum({})
    with pytest.raises(ValueError, match=r"g must have shape \(8,\), got \(7,\)"):
        coupling.spread(torch.ones(7))
    wrong: Any = "both"
    with pytest.raises(ValueError, match="side must be 'producers' or 'consumers', got 'both'"):
        coupling.side(wrong)
