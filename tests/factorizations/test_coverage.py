"""Every kind of layer: factorized it computes the same, trains, and is made plain again, to the bit."""

import copy
import operator
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from openwork.factorizations import Entries, Split, UnitGate, collapse, factorize, param_groups
from openwork.optim import FactorizedSGD
from openwork.wiring import Selection


class Table(nn.Module):
    """An embedding that the last layer shares."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.table(tokens))


class Bare(nn.Module):
    """A parameter of its own, three fused matrices, and one parameter in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(4, 4))
        self.fused = nn.Parameter(torch.randn(3, 4, 4))
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = (x @ matrix for matrix in self.fused)
        return self.other(torch.relu(self.one(a * b + c))) @ self.scale


class Attention(nn.Module):
    def __init__(self, **options) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        return self.attention(x, context, context, need_weights=False)[0]


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cells = kind(4, 5, num_layers=2, bidirectional=True, batch_first=True)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor) -> Tensor:
        return self.cells(x)[0]


def image(dims: int, channels: int = 4) -> Tensor:
    return torch.randn(2, channels, *[5] * dims)


def twice() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.ReLU(), layer)


# What to build, what it takes, what to include, and what is factorized then.
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]], Selection | None, list[str]]] = {
    "linear": (lambda: nn.Linear(4, 3), lambda: (torch.randn(5, 4),), None, ["weight"]),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3), lambda: (image(1),), None, ["weight"]),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, groups=2), lambda: (image(2),), None, ["weight"]),
    "conv3d": (lambda: nn.Conv3d(4, 6, 3), lambda: (image(3),), None, ["weight"]),
    "transposed1d": (lambda: nn.ConvTranspose1d(4, 6, 3), lambda: (image(1),), None, ["weight"]),
    "transposed2d": (lambda: nn.ConvTranspose2d(4, 6, 3), lambda: (image(2),), None, ["weight"]),
    "transposed3d": (lambda: nn.ConvTranspose3d(4, 6, 3), lambda: (image(3),), None, ["weight"]),
    "normalized": (
        lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.PReLU()),
        lambda: (image(2),),
        None,
        ["0.weight"],
    ),
    "embedding": (lambda: nn.Embedding(7, 4), lambda: (torch.arange(5),), "weight", ["weight"]),
    "tied": (Table, lambda: (torch.arange(5),), "table.weight", ["table.weight"]),
    "attention": (
        Attention,
        lambda: (torch.randn(2, 5, 8),),
        None,
        ["attention.in_proj_weight", "attention.out_proj.weight"],
    ),
    "cross attention": (
        lambda: Attention(kdim=4, vdim=4),
        lambda: (torch.randn(2, 5, 8), torch.randn(2, 3, 4)),
        None,
        [f"attention.{name}" for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight")],
    ),
    "encoder": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
        lambda: (torch.randn(2, 5, 8),),
        None,
        ["self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"],
    ),
    **{
        kind.__name__: (
            lambda kind=kind: Recurrent(kind),
            lambda: (torch.randn(2, 3, 4),),
            None,
            [f"cells.weight_{k}h_l{i}{way}" for i in range(2) for way in ("", "_reverse") for k in "ih"],
        )
        for kind in (nn.RNN, nn.LSTM, nn.GRU)
    },
    "bare": (Bare, lambda: (torch.randn(5, 4),), ["scale", "fused", "one.weight"], ["scale", "fused", "one.weight"]),
    "twice": (twice, lambda: (torch.randn(5, 4),), None, ["0.weight"]),
}


OTHER_PATHS = ("attention", "cross attention", "encoder", "RNN", "LSTM", "GRU")


def build(case: str) -> tuple[nn.Module, tuple[Tensor, ...], Selection | None, list[str]]:
    torch.manual_seed(0)
    make, inputs, include, names = CASES[case]
    return make(), inputs(), include, names


def looks(model: nn.Module) -> list[tuple]:
    """Names, order, identities, types and layouts of a model's parameters, and types of its modules."""
    first: dict[int, int] = {}
    found: list[tuple] = []
    for i, (name, p) in enumerate(model.named_parameters(remove_duplicate=False)):
        place = first.setdefault(id(p), i)
        found.append((name, place, type(p), p.dtype, p.stride(), p.requires_grad))
    return found + [(name, type(module)) for name, module in model.named_modules()]


@pytest.mark.parametrize("case", CASES)
def test_factorized_and_plain_again(case: str) -> None:
    model, inputs, include, names = build(case)
    before, looked = model(*inputs).detach(), looks(model)
    handle = factorize(model, 3, form=Entries(UnitGate()), include=include)
    assert sorted(part.name for block in handle.blocks for part in block.parts) == sorted(names)
    assert torch.equal(model(*inputs).detach(), before)

    # Far from where it started, and with gradients in all factors.
    optimizer = torch.optim.SGD(handle.param_groups(), lr=0.02, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        model(*inputs).square().mean().backward()
        for block in handle.blocks:
            for part in block.parts:
                assert all(factor.grad is not None and factor.grad.any() for factor in part.factors), part.name
        optimizer.step()
    trained = model(*inputs).detach()
    assert not torch.allclose(trained, before)
    model.eval()
    evaluated = model(*inputs).detach()
    with torch.no_grad():
        torch.testing.assert_close(model(*inputs), evaluated, rtol=1e-5, atol=1e-6)

    weights = {name: operator.attrgetter(name)(model).detach().clone() for name in names}
    report = collapse(model, threshold=0.0, example_inputs=inputs)
    assert report.change is not None
    # Attention and recurrent layers take other paths through torch when their weights are leaves.
    assert report.change <= (1e-6 if case in OTHER_PATHS else 0.0)
    assert sorted(report.total) == sorted(names)
    assert all(torch.equal(model.get_parameter(name), weight) for name, weight in weights.items())
    torch.testing.assert_close(model(*inputs).detach(), evaluated, rtol=0, atol=1e-6 if case in OTHER_PATHS else 0)
    assert looks(model) == looked
    # It trains as any other, and what is read is what is there.
    assert not any(module._forward_hooks for module in model.modules())
    model.train()
    model(*inputs).square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.eval()
    for name in names:
        with torch.no_grad():
            model.get_parameter(name).zero_()
    assert not torch.equal(model(*inputs).detach(), evaluated)


@pytest.mark.parametrize("case", CASES)
def test_factors_in_the_optimizer_train_as_those_in_the_model(case: str) -> None:
    model, inputs, include, names = build(case)
    model.double()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    other, looked = copy.deepcopy(model), looks(model)
    init, lam = Split(), 0.01
    handle = factorize(model, 3, lam, form=Entries(init), include=include, generator=torch.Generator().manual_seed(5))
    in_model = torch.optim.SGD(handle.param_groups(), lr=0.02, momentum=0.9)
    groups = param_groups(other, 3, lam, include=include)
    in_optimizer = FactorizedSGD(groups, lr=0.02, init=init, generator=torch.Generator().manual_seed(5))
    assert sorted(name for g in groups if g["depth"] == 3 for name in g["names"]) == sorted(names)  # pyright: ignore
    for _ in range(5):
        for net, optimizer in ((model, in_model), (other, in_optimizer)):
            optimizer.zero_grad()
            (net(*inputs) - 1).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(other(*inputs), model(*inputs), rtol=1e-10, atol=1e-12)
    for group in in_optimizer.param_groups:
        group["threshold"] = 1e-2
    reports = collapse(model, 1e-2, inputs), in_optimizer.collapse_(other, inputs)
    assert dict(reports[0].nonzero) == dict(reports[1].nonzero)
    assert dict(reports[0].total) == dict(reports[1].total)
    assert dict(reports[0].sweep) == pytest.approx(dict(reports[1].sweep))
    assert reports[0].change == pytest.approx(reports[1].change, rel=1e-6)
    assert reports[0].threshold == reports[1].threshold == 1e-2
    torch.testing.assert_close(dict(other.named_parameters()), dict(model.named_parameters()), rtol=1e-10, atol=1e-12)
    assert looks(model) == looks(other) == looked


@pytest.mark.parametrize("case", ["conv2d", "encoder", "LSTM", "twice"])
def test_a_copy_is_independent(case: str) -> None:
    model, inputs, include, _ = build(case)
    handle = factorize(model, 3, include=include)
    wanted = model(*inputs).detach()
    twin = copy.deepcopy(handle)
    with torch.no_grad():
        for block in twin.blocks:
            for part in block.parts:
                part.factors[0].zero_()
    assert torch.equal(model(*inputs).detach(), wanted)
    assert not torch.equal(twin.model(*inputs).detach(), wanted)
    # Making the copy plain leaves the model factorized, and the other way round.
    twin.collapse()
    assert torch.equal(model(*inputs).detach(), wanted)
    another = copy.deepcopy(model)
    handle.collapse()
    torch.testing.assert_close(another(*inputs).detach(), wanted)
    collapse(another)


@pytest.mark.parametrize("case", ["conv2d", "encoder", "LSTM", "tied", "twice"])
def test_a_state_goes_into_another_model(case: str) -> None:
    model, inputs, include, _ = build(case)
    factorize(model, 3, include=include)
    other = CASES[case][0]()
    factorize(other, 3, include=include)
    assert not torch.equal(other(*inputs), model(*inputs))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(*inputs), model(*inputs))


@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.*should not be instantiated")  # by torch itself
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_in_one_graph(backend: str) -> None:
    for case in ("linear", "conv2d", "bare", "twice"):
        model, inputs, include, _ = build(case)
        factorize(model, 3, include=include)
        model(*inputs).square().sum().backward()
        wanted = model(*inputs), [p.grad for p in model.parameters()]
        model.zero_grad(set_to_none=True)
        torch._dynamo.reset()
        compiled = torch.compile(model, fullgraph=True, backend=backend)
        found = compiled(*inputs)
        found.square().sum().backward()
        torch.testing.assert_close((found, [p.grad for p in model.parameters()]), wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_float32_factors(dtype: torch.dtype) -> None:
    model = nn.Linear(64, 3).to(dtype)
    twin = copy.deepcopy(model)
    handle = factorize(model, 2, 0.5, form=Entries(Split()), generator=torch.Generator().manual_seed(1))
    (part,) = handle.blocks[0].parts
    assert [factor.dtype for factor in part.factors] == [torch.float32] * 2
    assert model.weight.dtype == dtype
    optimizer = torch.optim.SGD(handle.param_groups(), lr=1e-3)
    other = FactorizedSGD(
        twin.parameters(), lr=1e-3, depth=2, lam=0.5, momentum=0.0, init=Split(),
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    start = model.weight.detach().clone()
    for _ in range(1000):
        # A decay of 1e-3 a step is lost in half precision.
        for net, o in ((model, optimizer), (twin, other)):
            o.zero_grad()
            (net(torch.zeros(2, 64, dtype=dtype)).sum() * 0).backward()
            o.step()
    torch.testing.assert_close(model.weight, start * torch.e**-1, rtol=0.02, atol=1e-6)
    assert torch.equal(twin.weight, model.weight)
    collapse(model, 0.0)
    assert model.weight.dtype == dtype
    assert torch.equal(twin.weight, model.weight)


def test_autocast_multiplies_in_the_precision_of_the_factors() -> None:
    model = nn.Linear(64, 64)
    x = torch.randn(8, 64)
    factorize(model, 4)
    weight = model.weight.detach()
    with torch.autocast("cpu", torch.bfloat16):
        assert model.weight.dtype == torch.float32
        assert torch.equal(model.weight, weight)
        y = model(x)
        assert y.dtype == torch.bfloat16
        y.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


def test_memory_format_is_kept() -> None:
    model = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    strides = model.weight.stride()
    for init in (Split(), UnitGate(), Entries().init):
        handle = factorize(model, 3, form=Entries(init))
        assert {factor.stride() for factor in handle.blocks[0].parts[0].factors} == {strides}
        assert model.weight.stride() == strides
        collapse(model)
        assert model.weight.stride() == strides
    optimizer = FactorizedSGD(model.parameters(), depth=3)
    model(torch.randn(1, 4, 5, 5)).sum().backward()
    optimizer.step()
    assert {x.stride() for x in optimizer.state[model.weight].values()} == {strides}
