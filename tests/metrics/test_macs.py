"""Counts against counts by hand, and everything as before afterwards."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from openwork.metrics import macs


class Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> Any:
        return self.function(*args)


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (nn.Linear(4, 3), (2, 5, 4), 2 * 5 * 4 * 3),
        (nn.Conv2d(4, 6, 3), (2, 4, 7, 8), 2 * (5 * 6) * 6 * 4 * 9),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 7, 8), 2 * (4 * 4) * 6 * 4 * 9),
        (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 7, 8), 2 * (5 * 6) * 6 * 2 * 9),
        (nn.Conv2d(4, 8, 3, groups=4), (2, 4, 7, 8), 2 * (5 * 6) * 8 * 1 * 9),
        (nn.Conv2d(4, 6, 3, dilation=2), (2, 4, 7, 8), 2 * (3 * 4) * 6 * 4 * 9),
        (nn.Conv2d(4, 6, 3, padding="same"), (4, 7, 8), (7 * 8) * 6 * 4 * 9),
        (nn.Conv1d(4, 6, 3, padding=1, padding_mode="circular"), (2, 4, 7), 2 * 7 * 6 * 4 * 3),
        (nn.Conv3d(1, 2, 2), (1, 1, 3, 4, 5), (2 * 3 * 4) * 2 * 8),
        # Every input entry meets every tap of every output channel in its group once.
        (nn.ConvTranspose2d(4, 6, 3, stride=2), (2, 4, 7, 8), 2 * (7 * 8) * 4 * 6 * 9),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), (2, 4, 7, 8), 2 * (7 * 8) * 4 * 3 * 9),
        # Per step: four gates, each with the input and the state; the second layer reads both directions.
        (nn.LSTM(8, 6, batch_first=True), (2, 5, 8), 2 * 5 * 4 * 6 * (8 + 6)),
        (nn.LSTM(8, 6), (5, 2, 8), 2 * 5 * 4 * 6 * (8 + 6)),
        (nn.LSTM(8, 6, 2, bidirectional=True), (5, 2, 8), 2 * 5 * 2 * 4 * 6 * ((8 + 6) + (12 + 6))),
        (nn.LSTM(8, 6, 2, proj_size=3), (5, 2, 8), 2 * 5 * (4 * 6 * ((8 + 3) + (3 + 3)) + 2 * 6 * 3)),
        (nn.GRU(8, 6, 2, bidirectional=True), (5, 2, 8), 2 * 5 * 2 * 3 * 6 * ((8 + 6) + (12 + 6))),
        (nn.RNN(8, 6), (5, 2, 8), 2 * 5 * 6 * (8 + 6)),
        (nn.LSTMCell(8, 6), (2, 8), 2 * 4 * 6 * (8 + 6)),
        (nn.GRUCell(8, 6), (2, 8), 2 * 3 * 6 * (8 + 6)),
        (Function(lambda x: x), (2, 3), 0),
        (nn.Sequential(nn.BatchNorm1d(4), nn.GELU(), nn.Softmax(-1), nn.Dropout()), (2, 4), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_layers_by_hand(model: nn.Module, shape: tuple[int, ...], expected: int) -> None:
    count = macs(model, torch.randn(shape))
    assert (count.total, count.uncounted) == (expected, ())


def attention(batch: int, length: int, width: int) -> int:
    """Four projections and, over all heads, the scores and their product with the values."""
    return batch * (4 * length * width * width + 2 * length * length * width)


@pytest.mark.parametrize("need_weights", [True, False])
def test_multihead_attention_by_hand(need_weights: bool) -> None:
    x = torch.randn(2, 5, 8)
    model = nn.MultiheadAttention(8, 2, batch_first=True)
    count = macs(model, {"query": x, "key": x, "value": x, "need_weights": need_weights})
    assert (count.total, count.uncounted) == (attention(2, 5, 8), ())


@pytest.mark.parametrize("mask", [None, torch.zeros(2, 5, dtype=torch.bool)])
def test_transformer_encoder_by_hand(mask: Tensor | None) -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 3)
    count = macs(model, {"src": torch.randn(2, 5, 8), "src_key_padding_mask": mask})
    layer = attention(2, 5, 8) + 2 * 5 * 2 * 8 * 16
    assert (count.total, count.uncounted) == (3 * layer, ())
    assert count.modules["layers.1"] == layer
    assert count.modules["layers.1.self_attn"] == attention(2, 5, 8)
    assert count.modules["layers.1.linear1"] == 2 * 5 * 8 * 16


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (torch.matmul, [(3, 4), (4, 5)], 3 * 4 * 5),
        (torch.matmul, [(3, 4), (4,)], 12),
        (torch.addmv, [(3,), (3, 4), (4,)], 12),
        (torch.dot, [(4,), (4,)], 4),
        (torch.bmm, [(2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
        (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
        (torch.addbmm, [(3, 5), (2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
        (torch.matmul, [(6, 2, 3, 4), (2, 4, 5)], 6 * 2 * 3 * 4 * 5),
        (lambda a, b: torch.einsum("bhij,bhkj->ik", a, b), [(2, 3, 4, 5), (2, 3, 6, 5)], 4 * 6 * 2 * 3 * 5),
        (F.scaled_dot_product_attention, [(2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6)], 2 * 3 * 5 * 7 * (4 + 6)),
        (
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True),
            [(2, 6, 5, 4), (2, 3, 5, 4), (2, 3, 5, 4)],
            2 * 6 * 5 * 5 * (4 + 4),
        ),
        (lambda x, y: F.bilinear(x, y, torch.ones(6, 3, 4)), [(2, 3), (2, 4)], 2 * (2 * 6 * 3 * 4)),
        # Five tokens for three experts.
        (
            lambda x, w: torch._grouped_mm(x.bfloat16(), w.bfloat16(), offs=torch.tensor([2, 2, 5], dtype=torch.int32)),
            [(5, 16), (3, 16, 8)],
            5 * 16 * 8,
        ),
        (
            lambda x: torch.cond(x.sum() > 0, lambda x: x @ x.mT, lambda x: x @ x.mT @ x, (x,)),
            [(3, 4)],
            3 * 4 * 3,
        ),
        (lambda a, b: torch.inference_mode()(F.linear)(a, b), [(2, 3), (4, 3)], 2 * 3 * 4),
    ],
)
def test_functions_by_hand(function: Callable[..., Any], shapes: list[tuple[int, ...]], expected: int) -> None:
    count = macs(Function(function), tuple(torch.rand(shape) for shape in shapes))
    assert (count.total, count.uncounted) == (expected, ())


def test_bert_by_hand() -> None:
    transformers = pytest.importorskip("transformers")
    batch, length, width, inner = 2, 7, 16, 24
    config = transformers.BertConfig(
        vocab_size=11, hidden_size=width, num_hidden_layers=3, num_attention_heads=4, intermediate_size=inner
    )
    count = macs(transformers.BertModel(config), {"input_ids": torch.randint(11, (batch, length))})
    layer = attention(batch, length, width) + batch * length * 2 * width * inner
    assert count.modules["encoder.layer.2"] == layer
    assert count.modules["pooler"] == batch * width * width
    assert (count.total, count.uncounted) == (3 * layer + batch * width * width, ())


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_gpt2_by_hand(implementation: str) -> None:
    transformers = pytest.importorskip("transformers")
    batch, length, width, words = 2, 7, 16, 11
    config = transformers.GPT2Config(
        vocab_size=words, n_embd=width, n_layer=2, n_head=4, n_positions=9, attn_implementation=implementation
    )
    count = macs(transformers.GPT2LMHeadModel(config), {"input_ids": torch.randint(words, (batch, length))})
    layer = attention(batch, length, width) + batch * length * 8 * width * width
    assert count.modules["transformer.h.1"] == layer
    assert (count.total, count.uncounted) == (2 * layer + batch * length * width * words, ())


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_a_mixture_of_experts_costs_what_its_routed_tokens_cost(implementation: str) -> None:
    transformers = pytest.importorskip("transformers")
    batch, length, width, inner = 2, 7, 16, 24
    config = transformers.Qwen3MoeConfig(
        vocab_size=11,
        hidden_size=width,
        intermediate_size=inner,
        moe_intermediate_size=inner,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        experts_implementation=implementation,
    )
    count = macs(transformers.Qwen3MoeModel(config), {"input_ids": torch.randint(11, (batch, length))})
    tokens = batch * length
    assert count.modules["layers.0.mlp"] == tokens * (4 * width + 2 * 3 * width * inner)
    assert count.uncounted == ()


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (torch.fft.rfft, "aten._fft_r2c"),
        (lambda x: torch.cdist(x, x), "aten._cdist_forward"),
        (lambda x: torch.linalg.inv(x @ x.mT), "aten.linalg_inv_ex"),
    ],
)
def test_what_might_matter_and_is_not_counted_is_named(function: Callable[..., Any], name: str) -> None:
    assert macs(Function(function), torch.randn(3, 4)).uncounted == (name,)


def test_an_operation_of_someone_else_is_named_until_its_formula_is_known() -> None:
    @torch.library.custom_op("openwork_test::gram", mutates_args=())
    def gram(x: Tensor) -> Tensor:
        return x @ x.mT

    assert macs(Function(gram), torch.randn(3, 4)).uncounted == ("openwork_test.gram",)
    register_flop_formula(torch.ops.openwork_test.gram)(lambda x, **_: 2 * x[0] * x[0] * x[1])
    count = macs(Function(gram), torch.randn(3, 4))
    assert (count.total, count.uncounted) == (36, ())


IMAGE = torch.randn(2, 4, 6, 6)


@pytest.mark.parametrize(
    "model",
    [
        nn.BatchNorm2d(4),
        nn.GroupNorm(2, 4),
        nn.LayerNorm(6),
        nn.RMSNorm(6),
        nn.InstanceNorm2d(4),
        nn.LocalResponseNorm(2),
        nn.MaxPool2d(2),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveMaxPool2d(1),
        nn.LPPool2d(2, 2),
        nn.PReLU(),
        nn.GLU(),
        nn.Hardswish(),
        nn.Mish(),
        nn.LogSoftmax(-1),
        nn.PixelShuffle(2),
        nn.ChannelShuffle(2),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.ZeroPad2d(1),
        nn.ReflectionPad2d(1),
        nn.Unfold(2),
        Function(lambda x: F.grid_sample(x, torch.zeros(2, 3, 3, 2), align_corners=False)),
        Function(lambda x: x[x > 0].sort().values.topk(2).values.cumsum(0)),
        Function(lambda x: F.one_hot(x.argmax(-1)).double().masked_fill(torch.tensor(True), 0.0).std()),
        Function(lambda x: torch.stack([x.roll(1), x.flip(0)]).tril().norm()),
    ],
    ids=lambda model: type(model).__name__,
)
def test_what_is_free_is_passed_over(model: nn.Module) -> None:
    count = macs(model, IMAGE)
    assert (count.total, count.uncounted) == (0, ())


class Twice(nn.Module):
    """Calls a layer twice, by two names, and leaves one out."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.rest = nn.Sequential(nn.Linear(4, 4), self.first, nn.ReLU())
        self.idle = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.first(x)) @ torch.ones(4, 1)


def test_every_module_has_its_count() -> None:
    assert macs(Twice(), torch.randn(2, 4)).modules == {
        "": 96 + 8,
        "first": 64,
        "rest": 64,
        "rest.0": 32,
        "rest.2": 0,
        "idle": 0,
    }


def test_a_compiled_and_a_traced_model_are_counted() -> None:
    compiled: Any = torch.compile(nn.Linear(4, 3), backend="eager")
    assert macs(compiled, torch.randn(2, 4)).total == 24
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and still about
        traced: Any = torch.jit.trace(nn.Sequential(nn.Linear(4, 3)), torch.randn(2, 4))
    assert macs(traced, torch.randn(2, 4)).modules[""] == 24


def flags() -> tuple[Any, ...]:
    return (
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.mkldnn.enabled,
        torch.backends.cudnn.enabled,
        torch.is_grad_enabled(),
    )


def test_a_compiled_model_that_is_counted_before_its_first_call_is_still_compiled() -> None:
    compilations = []

    def backend(graph: torch.fx.GraphModule, _inputs: object) -> Callable[..., Any]:
        compilations.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled: Any = torch.compile(nn.Sequential(nn.Linear(4, 3)), backend=backend)
    assert macs(compiled, torch.randn(2, 4)).total == 24
    assert len(compilations) == 0
    compiled(torch.randn(2, 4))
    assert len(compilations) == 1


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no luck.\nreally")


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_as_before(fails: bool) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), *([Failing()] if fails else []))
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random, torch_flags = torch.get_rng_state(), flags()
    x = torch.randn(2, 4)
    torch.set_rng_state(random)
    if fails:
        with pytest.raises(ValueError, match=r"^macs: Sequential does not run on example_inputs .*: no luck; pass"):
            macs(model, x)
    else:
        macs(model, x)
    assert flags() == torch_flags
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in list(model)[:3]] == [True, False, True]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_wrong_model_and_wrong_inputs_are_one_sentence() -> None:
    not_a_module: Any = torch.relu
    with pytest.raises(TypeError, match=r"^macs: model must be a torch.nn.Module, got"):
        macs(not_a_module, torch.randn(2))
    with pytest.raises(ValueError, match=r"^macs: example_inputs is empty, .*; pass a tensor"):
        macs(nn.Linear(2, 2), ())
    with pytest.raises(ValueError, match=r"^macs: Linear does not run on example_inputs \(tensor of shape \(2, 3\)\)"):
        macs(nn.Linear(4, 4), torch.randn(2, 3))
