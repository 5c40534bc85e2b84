"""Our attention is torch's, as long as nothing is cut, and stays exact when zeros are."""

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from openwork.shrinking.parts import Attention
from openwork.wiring import inspect

# What torch says about nested tensors, which nn.TransformerEncoder makes, and about masks of two types.
pytestmark = pytest.mark.filterwarnings("ignore:.*(nested tensors|mismatched|enable_nested_tensor).*")


def randomized(module: nn.Module) -> Any:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module.double()


def close(ours: object, theirs: object) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def replaced(model: nn.Module) -> Any:
    """The same model with our attention everywhere."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.MultiheadAttention):
                setattr(parent, name, Attention.like(child))
    return model


options = st.fixed_dictionaries(
    {
        "bias": st.booleans(),
        "add_bias_kv": st.booleans(),
        "add_zero_attn": st.booleans(),
        "kdim": st.sampled_from([None, 5]),
        "vdim": st.sampled_from([None, 7]),
        "batch_first": st.booleans(),
    }
)


@given(
    options,
    st.sampled_from(["self", "memory", "three"]),
    st.booleans(),
    st.sampled_from([None, "bool", "float"]),
    st.sampled_from([None, "bool2", "float2", "bool3", "float3", "causal"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_it_is_torchs_attention(
    options: dict[str, Any],
    inputs: str,
    batched: bool,
    padding: str | None,
    masked: str | None,
    need_weights: bool,
    average: bool,
    training: bool,
) -> None:
    theirs = randomized(nn.MultiheadAttention(6, 2, **options)).train(training)
    ours = Attention.like(theirs)
    n, length, keys = 3, 4, 4 if inputs == "self" else 5

    def tensor(tokens: int, features: int) -> Tensor:
        shape = (tokens,) if not batched else (n, tokens) if options["batch_first"] else (tokens, n)
        return torch.randn(*shape, features, dtype=torch.float64)

    query = tensor(length, 6)
    key, value = tensor(keys, theirs.kdim), tensor(keys, theirs.vdim)
    if inputs == "self" and theirs._qkv_same_embed_dim:
        key = value = query
    elif inputs == "memory" and theirs.kdim == theirs.vdim:
        value = key
    arguments: dict[str, Any] = {"need_weights": need_weights, "average_attn_weights": average}
    if padding:
        mask = torch.rand(*((n,) if batched else ()), keys) < 0.3
        mask[..., 0] = False
        arguments["key_padding_mask"] = mask if padding == "bool" else torch.randn(mask.shape).double()
    if masked == "causal":
        arguments["attn_mask"] = torch.ones(length, keys, dtype=torch.bool).triu(1)
        arguments["is_causal"] = True
    elif masked:
        mask = torch.rand(*((2 * (n if batched else 1),) if "3" in masked else ()), length, keys) < 0.3
        mask[..., 0] = False
        arguments["attn_mask"] = mask if "bool" in masked else torch.randn(mask.shape).double()
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            out, weights = ours(query, key, value, **arguments)
            expected, expected_weights = theirs(query, key, value, **arguments)
        close(out, expected)
        assert (weights is None) == (expected_weights is None)
        if weights is not None:
            close(weights, expected_weights)


def test_parameters_are_shared_under_the_same_names() -> None:
    for kdim in (None, 5):
        theirs = nn.MultiheadAttention(6, 2, kdim=kdim, add_bias_kv=True).eval()
        theirs.out_proj.weight.requires_grad_(False)
        ours = Attention.like(theirs)
        assert not ours.training
        assert dict(ours.named_parameters()).keys() == dict(theirs.named_parameters()).keys()
        assert all(ours.get_parameter(name) is parameter for name, parameter in theirs.named_parameters())
        assert ours.out_proj is not theirs.out_proj


def test_gradients_are_the_same() -> None:
    theirs = randomized(nn.MultiheadAttention(6, 2, add_bias_kv=True, batch_first=True))
    ours = Attention.like(copy.deepcopy(theirs))
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    for module in (ours, theirs):
        module(x, x, x, need_weights=False)[0].square().sum().backward()
    for name, parameter in theirs.named_parameters():
        close(ours.get_parameter(name).grad, parameter.grad)


def test_dropout_is_that_of_torch() -> None:
    theirs = randomized(nn.MultiheadAttention(6, 2, dropout=0.5))
    ours = Attention.like(theirs)
    x = torch.randn(4, 3, 6, dtype=torch.float64)
    for need_weights in (True, False):
        results: list[Tensor] = []
        for module in (ours, theirs):
            torch.manual_seed(1)
            results.append(module(x, x, x, need_weights=need_weights)[0])
        close(results[0], results[1])
    assert not torch.equal(ours(x, x, x)[0], ours(x, x, x)[0])


CONTAINERS: dict[str, Any] = {
    "encoder layer": lambda **o: nn.TransformerEncoderLayer(8, 2, 12, **o),
    "encoder": lambda **o: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12, **o), 2),
    "decoder": lambda **o: nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 12, **o), 2),
    "transformer": lambda **o: nn.Transformer(8, 2, 2, 2, 12, **o),
}


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize(("batch_first", "norm_first"), list(itertools.product([True, False], repeat=2)))
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_in_every_container(name: str, batch_first: bool, norm_first: bool, training: bool, padded: bool) -> None:
    theirs = randomized(CONTAINERS[name](dropout=0.0, batch_first=batch_first, norm_first=norm_first)).train(training)
    ours = replaced(theirs)
    source, target = torch.randn(3, 5, 8, dtype=torch.float64), torch.randn(3, 4, 8, dtype=torch.float64)
    padding = torch.arange(5) >= torch.tensor([5, 3, 2])[:, None]
    if not batch_first:
        source, target = source.transpose(0, 1), target.transpose(0, 1)
    arguments: dict[str, Any] = {}
    if name in ("decoder", "transformer"):
        arguments["tgt_mask"] = torch.ones(4, 4, dtype=torch.bool).triu(1)
    if padded:
        arguments["memory_key_padding_mask" if name == "decoder" else "src_key_padding_mask"] = padding
    inputs = {"decoder": (target, source), "transformer": (source, target)}.get(name, (source,))
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            out, expected = ours(*inputs, **arguments), theirs(*inputs, **arguments)
        if padded and name in ("encoder layer", "encoder"):
            # What torch computes for tokens that are padding depends on the kernel.
            kept = ~padding if batch_first else ~padding.T
            out, expected = out[kept], expected[kept]
        close(out, expected)


def test_a_head_and_entries_that_are_zero_can_be_cut() -> None:
    ours = Attention.like(randomized(nn.MultiheadAttention(6, 3, add_bias_kv=True, batch_first=True)))
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    assert ours.in_proj_weight is not None and ours.in_proj_bias is not None
    assert ours.bias_k is not None and ours.bias_v is not None
    with torch.no_grad():
        ours.out_proj.weight[:, 2:4] = 0  # the second head
        for tensor in (ours.in_proj_weight, ours.in_proj_bias):
            tensor[:6:2] = 0  # the first entry of every query
        before = ours(x, x, x)[0]
        queries, values = torch.tensor([1, 5]), torch.tensor([0, 1, 4, 5])
        rows = torch.cat([queries, 6 + queries, 12 + values])
        cut = copy.deepcopy(ours)
        cut.num_heads = 2
        cut.in_proj_weight = nn.Parameter(ours.in_proj_weight[rows])
        cut.in_proj_bias = nn.Parameter(ours.in_proj_bias[rows])
        cut.bias_k, cut.bias_v = nn.Parameter(ours.bias_k[..., queries]), nn.Parameter(ours.bias_v[..., values])
        cut.out_proj.weight = nn.Parameter(ours.out_proj.weight[:, values])
    for arguments in ({}, {"need_weights": False}):
        close(cut(x, x, x, **arguments)[0], before)
    close(cut(x, x, x.clone())[0], before)
    assert "num_heads=2, query=1, value=2" in repr(cut)


def test_it_is_pickled_exported_and_compiled() -> None:
    ours = Attention.like(randomized(nn.MultiheadAttention(6, 2, batch_first=True))).eval()
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    expected = ours(x, x, x)[0]
    close(pickle.loads(pickle.dumps(ours))(x, x, x)[0], expected)
    close(torch.export.export(ours, (x, x, x)).module()(x, x, x)[0], expected)
    close(torch.compile(ours, backend="eager", fullgraph=True)(x, x, x)[0], expected)


class Two(nn.Module):
    """Attention to oneself, then to something else."""

    def __init__(self, need_weights: bool, **options: Any) -> None:
        super().__init__()
        self.need_weights = need_weights
        self.first = Attention.like(nn.MultiheadAttention(8, 2, batch_first=True, **options))
        self.second = Attention.like(nn.MultiheadAttention(8, 4, batch_first=True, kdim=5, vdim=5, **options))

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        x = x + self.first(x, x, x, need_weights=self.need_weights)[0]
        return x + self.second(x, memory, memory, need_weights=self.need_weights)[0]


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("options", [{}, {"add_bias_kv": True, "add_zero_attn": True}, {"bias": False}])
def test_wiring_finds_its_heads(need_weights: bool, options: dict[str, Any]) -> None:
    wiring = inspect(Two(need_weights, **options), (torch.randn(2, 3, 8), torch.randn(2, 4, 5)))
    assert [coupling.width for coupling in wiring.removable] == [2, 4]
    first, second = wiring.removable
    assert {(part.name, part.dim, part.multiplicity) for part in first.consumers} >= {("first.out_proj.weight", 1, 4)}
    assert ("first.in_proj_weight", 0, 12) in {(part.name, part.dim, part.multiplicity) for part in first.producers}
    assert ("second.v_proj_weight", 0, 2) in {(part.name, part.dim, part.multiplicity) for part in second.producers}


def test_wiring_finds_the_heads_in_an_encoder() -> None:
    model = replaced(nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2))
    padding = torch.zeros(3, 5, dtype=torch.bool)
    for arguments in ({}, {"src_key_padding_mask": padding}):
        wiring = inspect(model, {"src": torch.randn(3, 5, 8), **arguments})
        assert [coupling.width for coupling in wiring.removable] == [2, 16, 2, 16]


def test_errors() -> None:
    mha = nn.MultiheadAttention(6, 2)
    ours, x = Attention.like(mha), torch.randn(4, 3, 6)
    with pytest.raises(
        ValueError, match=r"attn_mask must have shape \(4, 4\) or \(6, 4, 4\), got \(3, 4, 4\); there are"
    ):
        ours(x, x, x, attn_mask=torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match=r"key_padding_mask must have shape \(3, 4\), got \(4, 3\); pass one entry"):
        ours(x, x, x, key_padding_mask=torch.zeros(4, 3))
    with pytest.raises(ValueError, match="is_causal says what attn_mask is, and there is none"):
        ours(x, x, x, is_causal=True)
    wrong: Any = nn.Linear(2, 2)
    with pytest.raises(TypeError, match=r"must compute what nn.MultiheadAttention computes, got Linear; leave"):
        Attention.like(wrong)
    nn.utils.parametrizations.orthogonal(mha.out_proj)
    with pytest.raises(ValueError, match="parametrized, and would no longer be computed; remove the parametrization"):
        Attention.like(mha)
