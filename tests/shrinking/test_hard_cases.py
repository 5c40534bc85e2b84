"""Models that shrinking got wrong once, or refused without need."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from openwork.metrics import params
from openwork.shrinking import shrink

F64 = torch.float64


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(1))


class Code(nn.Module):
    """Modules, and a function of them and an input."""

    def __init__(self, code: Callable[[Any, Tensor], Tensor], **modules: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.code = code
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.code(self, x)


def code(code: Callable[[Any, Tensor], Tensor], **modules: nn.Module | nn.Parameter) -> Code:
    torch.manual_seed(0)
    return Code(code, **modules).double().eval()


def same(model: nn.Module, x: Tensor, *, smaller: bool = True) -> nn.Module:
    """The shrunk model, after comparing its outputs on another input."""
    small = shrink(model, x).model
    other = torch.randn(x.shape, dtype=F64, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(small(other), model(other), rtol=1e-9, atol=1e-12)
    assert (params(small).total < params(model).total) is smaller
    return small


def zero(model: nn.Module, *names: str, rows: object = slice(None), columns: object = slice(None)) -> None:
    for name in names:
        tensor = model.get_parameter(name).data
        tensor[(rows, columns) if tensor.ndim > 1 else rows] = 0  # pyright: ignore[reportArgumentType]


# -- what is known ----------------------------------------------------------------------------------------------------


def test_the_smallest_of_a_known_and_an_unknown_number_is_unknown() -> None:
    model = code(
        lambda m, x: m.c(torch.stack([m.a(x), m.b(x)]).amin(0)),
        a=nn.Linear(6, 8),
        b=nn.Linear(6, 8),
        c=nn.Linear(8, 4),
    )
    zero(model, "a.weight", "a.bias", rows=slice(4))
    same(model, randn(4, 6), smaller=False)


def test_what_was_read_before_it_was_overwritten_was_not_what_is_written() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        h = m.a(x)
        before = m.b(h)
        h.mul_(m.gate)
        return before + m.c(h)

    gate = nn.Parameter(torch.zeros(8))
    model = code(forward, a=nn.Linear(6, 8), b=nn.Linear(8, 4), c=nn.Linear(8, 4), gate=gate)
    zero(model, "b.weight", columns=slice(3))
    assert same(model, randn(4, 6)).get_parameter("a.weight").shape == (5, 6)


# -- constants --------------------------------------------------------------------------------------------------------


def test_one_constant_position_of_a_unit_does_not_stand_for_the_others() -> None:
    model = code(
        lambda m, x: m.c(torch.stack([m.a(x), m.b(x)], -1).flatten(1)),
        a=nn.Linear(6, 8),
        b=nn.Linear(6, 8),
        c=nn.Linear(16, 4),
    )
    zero(model, "b.weight", rows=slice(4))
    zero(model, "c.weight", columns=[0, 2])
    assert same(model, randn(4, 6)).get_parameter("a.weight").shape == (6, 6)


def test_a_vector_has_constants_too() -> None:
    model = code(lambda m, x: m.b(m.a(x[0]).relu()), a=nn.Linear(6, 8), b=nn.Linear(8, 4))
    zero(model, "a.weight", rows=slice(3))
    assert same(model, randn(4, 6)).get_parameter("a.weight").shape == (5, 6)


def test_factors_of_addmm_forbid_folding() -> None:
    model = code(
        lambda m, x: torch.addmm(m.bias, m.a(x), m.weight, beta=2, alpha=3),
        a=nn.Linear(6, 8),
        bias=nn.Parameter(torch.ones(4)),
        weight=nn.Parameter(torch.ones(8, 4)),
    )
    zero(model, "a.weight", rows=slice(3))
    zero(model, "weight", rows=slice(3, 4))
    same(model, randn(4, 6))


class Unbiased(nn.Module):
    """A layer that never looks at its bias."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 8))
        self.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight)


@pytest.mark.parametrize("reader", ["module", "function"])
def test_no_bias_is_made_that_nobody_reads(reader: str) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.b(m.a(x)) if reader == "module" else linear(m.a(x), m.b.weight)

    model = code(forward, a=nn.Linear(6, 8), b=Unbiased() if reader == "module" else nn.Linear(8, 4, bias=False))
    zero(model, "a.weight", rows=slice(3))
    zero(model, "b.weight", columns=slice(3, 4))
    assert same(model, randn(4, 6)).get_parameter("a.weight").shape == (7, 6)


# -- modules in place of others ---------------------------------------------------------------------------------------


def test_what_code_outside_looks_at_is_not_replaced() -> None:
    def tied(m: Any, x: Tensor) -> Tensor:
        return linear(m.a(x).relu(), m.a.weight.t())

    constant = code(tied, a=nn.Linear(6, 8))
    zero(constant, "a.weight")
    assert same(constant, randn(4, 6)).get_parameter("a.weight").shape == (1, 6)
    low = code(lambda m, x: m.a(x.to(m.a.weight.dtype)), a=nn.Linear(16, 16))
    low.get_parameter("a.weight").data.copy_(randn(16, 1) * randn(1, 16).abs())
    zero(low, "a.weight", rows=slice(1))
    same(low, randn(4, 16), smaller=False)


def test_a_constant_is_not_written_into() -> None:
    model = code(lambda m, x: m.b(m.a(x).add_(1.0).relu_()), a=nn.Linear(6, 8), b=nn.Linear(8, 4))
    zero(model, "a.weight", "a.bias")
    same(model, randn(1, 6))


# -- movement ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "move",
    [
        lambda h: torch.roll(h, 1, dims=1),
        lambda h: h[:, ::2].repeat(1, 2),
        lambda h: h.unfold(1, 4, 4).flatten(1),
    ],
    ids=["roll", "step", "unfold"],
)
def test_places_that_numbers_say_stay(move: Callable[[Tensor], Tensor]) -> None:
    model = code(lambda m, x: m.b(move(m.a(x))), a=nn.Linear(6, 8), b=nn.Linear(8, 4))
    zero(model, "a.weight", "a.bias", rows=[1, 2, 6])
    zero(model, "b.weight", columns=[3, 4])
    same(model, randn(4, 6), smaller=False)


class Narrow(nn.Module):
    """The second half of what a layer gives."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).narrow(1, 4, 4))


def test_narrow_by_number_fixes_a_length() -> None:
    model = Narrow().double().eval()
    zero(model, "a.weight", "a.bias", rows=[1, 5])
    same(model, randn(4, 6), smaller=False)


# -- operations -------------------------------------------------------------------------------------------------------


def test_transposed_depthwise_convolution_with_several_outputs_to_an_input() -> None:
    model = code(
        lambda m, x: m.c(m.b(m.a(x)).relu()),
        a=nn.Conv2d(3, 8, 3),
        b=nn.ConvTranspose2d(8, 16, 3, groups=8),
        c=nn.Conv2d(16, 4, 3),
    )
    zero(model, "b.weight", rows=slice(3))
    zero(model, "b.bias", rows=slice(6))
    assert same(model, randn(2, 3, 8, 8)).get_parameter("b.weight").shape == (5, 2, 3, 3)


def test_layers_that_run_for_nothing_are_cut_along() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        h = m.a(x)
        m.c(h).sigmoid()
        return m.b(h)

    model = code(forward, a=nn.Linear(6, 8), b=nn.Linear(8, 4), c=nn.Linear(8, 5))
    zero(model, "b.weight", columns=slice(3))
    small = same(model, randn(4, 6))
    assert small.get_parameter("a.weight").shape == (5, 6)
    assert small.get_parameter("c.weight").shape == (1, 5)


def test_attention_that_runs_for_nothing_is_cut_as_a_whole() -> None:
    model = code(
        lambda m, x: m.b(m.a(x, x, x, need_weights=False)[0]),
        a=nn.MultiheadAttention(6, 2, batch_first=True),
        b=nn.Linear(6, 4),
    )
    zero(model, "a.out_proj.weight")
    same(model, randn(2, 5, 6))


def test_a_mask_as_index_leaves_the_rest_to_be_cut() -> None:
    model = code(
        lambda m, x: m.b((h := m.a(x).relu())[x[..., 0] > -9]).sum(0) + m.c(h[..., :8].sum(dim=(0, 1))),
        a=nn.Linear(6, 8),
        b=nn.Linear(8, 4),
        c=nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)),
    )
    zero(model, "c.1.weight", columns=slice(3))
    zero(model, "b.weight", "c.0.weight", columns=slice(3, 4))
    assert same(model, randn(2, 5, 6)).get_parameter("c.0.weight").shape == (5, 8)


# -- precision --------------------------------------------------------------------------------------------------------


def test_predictions_as_close_as_bfloat16_rounds_may_change() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    model = model.bfloat16().eval()
    zero(model, "0.weight", rows=slice(16))
    model.get_parameter("0.bias").data.abs_()
    small = shrink(model, torch.randn(512, 6).bfloat16()).model
    assert small.get_parameter("0.weight").shape == (16, 6)
