"""Groups with gates: the formula, the penalty it stands for, what it removes."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import openwork as ow
from openwork.factorizations import Block, Gated, Gates, blocks_of, collapse, factorize
from openwork.wiring import AxisSlices, inspect
from tests.wiring.zoo import ZOO

SIDES = ("producers", "consumers")


@pytest.fixture(autouse=True)
def double() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))


def cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 4)
    )


IMAGES = torch.randn(8, 2, 6, 6, dtype=torch.float64)


def gates(block: Block) -> list[Tensor]:
    first = block.parts[0]
    return first.factorization.shared(first.factors)


def own(block: Block) -> list[list[Tensor]]:
    """The elementwise factors of each tensor."""
    found: list[list[Tensor]] = []
    for part in block.parts:
        assert isinstance(part.factorization, Gates)
        found.append(list(part.factors[: part.factorization.entries]))
    return found


@torch.no_grad()
def shuffle_(model: nn.Module) -> None:
    """Other gates."""
    for block in blocks_of(model):
        for gate in gates(block):
            gate.copy_(torch.rand_like(gate) + 0.5)


@torch.no_grad()
def kill_(model: nn.Module, wanted: Callable[[int], bool] = lambda unit: unit % 2 == 0) -> None:
    """Make gates so small that collapse makes them zero."""
    for block in blocks_of(model):
        for gate in gates(block):
            gate.mul_(torch.tensor([1e-9 if wanted(unit) else 1.0 for unit in range(len(gate))]))


def outputs(model: nn.Module, x: Any) -> list[Tensor]:
    model.eval()
    with torch.no_grad():
        found = model(**x) if isinstance(x, dict) else model(x)
    return [found] if isinstance(found, Tensor) else [value for value in found.values() if isinstance(value, Tensor)]


# -- the product ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("name", ["lenet", "dense", "gated_rms", "recurrent", "encoder"])
def test_units_of_couplings_are_multiplied_by_their_gates(name: str, depth: int, side: Any) -> None:
    model, x = ZOO[name]()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    plain = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    removable = inspect(model, x).removable
    factorize(model, depth, form=Gated(), example_inputs=x, side=side)
    for block in blocks_of(model):
        for part in block.parts:
            assert torch.equal(part.value, plain[part.name])
    shuffle_(model)
    by_name = {part.name: (part, gates(block)) for block in blocks_of(model) for part in block.parts}
    assert set(by_name) == {part.name for coupling in removable for part in coupling.side(side)}
    used: dict[str, set[float]] = {}
    for coupling in removable:
        for slices in coupling.side(side):
            part, its_gates = by_name[slices.name]
            value, omega = part.value.detach().movedim(slices.dim, 0), plain[slices.name].movedim(slices.dim, 0)
            ratio = value / omega
            for unit in range(coupling.width):
                (factor,) = {round(float(r), 8) for r in ratio[slices.indices(unit)].flatten()}
                used.setdefault(f"{coupling.name} {unit}", set()).add(factor)
                assert any(abs(factor - float(g)) < 1e-7 for g in torch.stack(its_gates).detach().prod(dim=0))
    # One gate for each unit, the same in all tensors.
    assert all(len(factors) == 1 for factors in used.values())
    assert len(set.union(*used.values())) == len(used)


def test_entries_of_no_unit_stay_as_they_are() -> None:
    units = torch.tensor([2, -1, 0, 2, -1])
    made = Gates(3, 0.1, torch.float64, AxisSlices("w", 1, (2, 5, 3), units), width=3)
    weight = torch.randn(2, 5, 3)
    omega, rest, one, two = made.right_inverse(weight)
    assert omega.shape == (2, 3, 3) and rest.shape == (2, 2, 3)
    assert torch.equal(made(omega, rest, one, two), weight)
    one, two = torch.rand(3), torch.rand(3)
    expected = weight.clone()
    for index, unit in enumerate(units.tolist()):
        if unit >= 0:
            expected[:, index] *= one[unit] * two[unit]
    torch.testing.assert_close(made(omega, rest, one, two), expected)


def test_gradients_are_those_of_the_formula() -> None:
    units = torch.tensor([1, -1, 0, 1, 2])
    made = Gates(4, 0.1, torch.float64, AxisSlices("w", 0, (5, 2), units), width=3, entries=2)
    factors = [torch.randn(4, 2), torch.randn(4, 2), torch.randn(1, 2), torch.randn(3), torch.randn(3)]
    assert torch.autograd.gradcheck(made, [factor.requires_grad_() for factor in factors])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("entries", [1, 2])
def test_the_start_is_the_weight_bit_for_bit(dtype: torch.dtype, entries: int) -> None:
    model = mlp().to(dtype)
    x = torch.randn(3, 5).to(dtype)
    before = model(x)
    handle = factorize(model, 3, form=Gated(entries=entries), example_inputs=x)
    assert torch.equal(model(x), before)
    assert all(factor.dtype == torch.float32 for part in handle.blocks[0].parts for factor in part.factors)


@pytest.mark.parametrize(("depth", "entries"), [(2, 1), (3, 1), (4, 2)])
def test_the_balanced_start_is_the_product_of_least_l2(depth: int, entries: int) -> None:
    model = mlp()
    x = torch.randn(3, 5)
    with torch.no_grad():
        model.get_parameter("0.weight")[1] = 0
        model.get_parameter("0.bias")[1] = 0
    before = model(x)
    handle = factorize(model, depth, form=Gated(start="balanced", entries=entries), example_inputs=x)
    torch.testing.assert_close(model(x), before)
    for block in handle.blocks:
        squares = block.squares()
        assert len(squares) == depth
        for square in squares:
            torch.testing.assert_close(square, block.magnitudes() ** (2 / depth))
    assert handle.blocks[0].magnitudes()[1] == 0


def test_gates_are_fast_where_units_are_regular() -> None:
    def run(units: list[int]) -> object:
        return Gates(2, 0.0, torch.float64, AxisSlices("w", 0, (len(units), 1), torch.tensor(units)), 9).run

    assert run([0, 1, 2]) == (0, 3, 1, 1)
    assert run([4, 4, 5, 5, 6, 6]) == (4, 3, 2, 1)
    assert run([0, 1, 0, 1, 0, 1]) == (0, 2, 1, 3)
    assert run([0, 0, 1, 1, 0, 0, 1, 1]) == (0, 2, 2, 2)
    assert run([0, 2, 1]) is None
    assert run([0, 0, 1]) is None


# -- the penalty ----------------------------------------------------------------------------------------------------


def fista(x: Tensor, y: Tensor, lam: float) -> Tensor:
    """Group lasso over the columns of w, by accelerated proximal gradient: 0.5 / n ||x w' - y||^2 + lam sum ||w_j||."""
    n = len(x)
    step = n / torch.linalg.matrix_norm(x, 2) ** 2
    w = v = torch.zeros(y.shape[1], x.shape[1])
    t = 1.0
    for _ in range(3000):
        p = v - step * (v @ x.T - y.T) @ x / n
        p = p * (1 - lam * step / p.norm(dim=0)).clamp_min(0)
        after = (1 + (1 + 4 * t * t) ** 0.5) / 2
        v, w, t = p + (t - 1) / after * (p - w), p, after
    return w


@pytest.mark.parametrize(("lam", "tolerance"), [(0.1, 1e-4), (0.4, 1e-8)])
def test_depth_2_is_the_group_lasso(lam: float, tolerance: float) -> None:
    x, true = torch.randn(40, 5), torch.randn(4, 5)
    true[:, ::2] = 0
    y = x @ true.T + 0.3 * torch.randn(40, 4)
    expected = fista(x, y, lam)
    model = nn.Linear(5, 4, bias=False)
    handle = factorize(model, 2, lam, form=Gated(units="input"))
    optimizer = torch.optim.SGD(handle.param_groups(), lr=0.1, momentum=0.9)
    for _ in range(1000):
        optimizer.zero_grad()
        (0.5 / 40 * (model(x) - y).square().sum()).backward()
        optimizer.step()
    assert (model.weight - expected).abs().max() < tolerance
    handle.collapse()
    assert model.weight.norm(dim=0).eq(0).tolist() == expected.norm(dim=0).eq(0).tolist()
    assert 0 < int(expected.norm(dim=0).eq(0).sum()) < 5


@pytest.mark.parametrize(("entries", "gated"), [(1, 1), (1, 3), (2, 1), (2, 2), (3, 1)])
def test_the_least_l2_of_the_mixed_family(entries: int, gated: int) -> None:
    depth = entries + gated
    model = nn.Linear(7, 3, bias=False)
    weight = model.weight.detach().clone()
    (block,) = factorize(model, depth, 1.0, form=Gated(start="balanced", entries=entries)).blocks
    torch.testing.assert_close(model.weight, weight)
    norms = (weight.abs() ** (2 / entries)).sum(dim=1) ** (entries / 2)
    torch.testing.assert_close(block.magnitudes(), norms)
    least = torch.stack(block.squares()).sum(dim=0) / depth
    torch.testing.assert_close(least, norms ** (2 / depth), rtol=1e-8, atol=0)
    # Other factors of the same product have more.
    for _ in range(20):
        (elementwise,) = own(block)
        scales = [torch.rand(3) + 0.5 for _ in range(depth - 1)]
        scales.append(1 / torch.stack(scales).prod(dim=0))
        factors = [
            *(f * s[:, None] for f, s in zip(elementwise, scales, strict=False)),
            *(g * s for g, s in zip(gates(block), scales[entries:], strict=True)),
        ]
        made = block.parts[0].factorization
        torch.testing.assert_close(made(*factors), weight)
        squares = torch.stack([*made.squares(factors), *(g.square() for g in factors[entries:])]).sum(dim=0) / depth
        assert bool((squares >= least - 1e-12).all())


def test_strength_follows_the_size_of_groups_if_asked() -> None:
    x = torch.randn(2, 5)
    handle = factorize(mlp(), 4, 0.1, form=Gated(group_scale="sqrt"), example_inputs=x)
    # A neuron is a row and its bias.
    assert [block.lam for block in handle.blocks] == pytest.approx([0.1 * 6**0.5, 0.1 * 7**0.5])
    assert [group["weight_decay"] for group in handle.param_groups()] == pytest.approx(
        [0.05 * 6**0.5, 0.05 * 7**0.5, 0.0]
    )
    handle = factorize(mlp(), 4, 0.1, form=Gated(), example_inputs=x)
    assert [group["weight_decay"] for group in handle.param_groups()] == pytest.approx([0.05, 0.0])


def test_depth_and_strength_of_one_coupling() -> None:
    x = torch.randn(2, 5)
    handle = factorize(mlp(), 3, 0.1, form=Gated(), depths={"0.weight": 2}, lams={"2": 0.3}, example_inputs=x)
    assert [(block.depth, block.lam) for block in handle.blocks] == [(2, 0.1), (3, 0.3)]


def test_normalizations_are_decayed_if_they_are_gated() -> None:
    model = cnn()
    decayed = {
        name
        for group in factorize(model, 2, 0.1, form=Gated(), example_inputs=IMAGES).param_groups()
        for name in group["names"]
        if group["weight_decay"]
    }
    assert {name.split(".")[0] for name in decayed} == {"0", "1"}
    assert "1.parametrizations.bias.original0" in decayed
    handle = factorize(cnn(), 2, 0.1, form=Gated(), exclude="4")
    (decays, free) = handle.param_groups()
    assert decays["weight_decay"] == 0.1 and all(name.startswith("0.") for name in decays["names"])
    assert set(free["names"]) == {"1.weight", "1.bias", "4.weight", "4.bias"} and free["weight_decay"] == 0


def test_what_has_no_gate_is_not_decayed() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    handle = factorize(model, 3, 0.3, form=Gated(units="heads"))
    decays, free = handle.param_groups()
    prefix = "self_attn.parametrizations.in_proj_weight"
    assert f"{prefix}.original1" in free["names"] and f"{prefix}.original0" in decays["names"]
    assert model.self_attn.get_parameter("parametrizations.in_proj_weight.original1").shape == (16, 8)
    # The optimizer is looked at at its first step.
    optimizer = torch.optim.SGD(handle.param_groups(), lr=0.1)
    model(torch.randn(2, 3, 8)).sum().backward()
    optimizer.step()


def test_a_filter_before_a_batch_normalization_has_no_scale() -> None:
    model = cnn()
    factorize(model, 2, 0.1, form=Gated(), include="0")
    before = model(IMAGES)
    with torch.no_grad():
        for gate in gates(blocks_of(model)[0]):
            gate.mul_(0.5)
    torch.testing.assert_close(model(IMAGES), before, rtol=1e-3, atol=1e-4)


# -- groups of layers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "units", "dim"),
    [
        (nn.Linear(4, 6), "output", 0),
        (nn.Linear(4, 6), "input", 1),
        (nn.Conv2d(4, 6, 3), "output", 0),
        (nn.Conv2d(4, 6, 3), "input", 1),
        (nn.Conv2d(4, 6, 3, groups=2), "output", 0),
        (nn.Conv2d(4, 4, 3, groups=4), "input", 0),
        (nn.ConvTranspose1d(4, 6, 3), "output", 1),
        (nn.ConvTranspose1d(4, 6, 3), "input", 0),
        (nn.ConvTranspose1d(4, 4, 3, groups=4), "output", 0),
        (nn.GRUCell(4, 6), "input", 1),
    ],
)
def test_slices_of_layers(layer: nn.Module, units: Any, dim: int) -> None:
    factorize(layer, 2, form=Gated(units=units))
    for block in blocks_of(layer):
        (part,) = block.parts
        (gate,) = gates(block)
        assert gate.shape == (part.value.shape[dim],)
        with torch.no_grad():
            gate[1] = 0
        zero = part.value.movedim(dim, 0).flatten(1).eq(0).all(dim=1)
        assert zero.nonzero().flatten().tolist() == [1]


def test_an_embedding_has_gates_if_somebody_insists() -> None:
    both: tuple[tuple[Any, tuple[int]], ...] = (("output", (3,)), ("input", (7,)))
    for units, shape in both:
        model = nn.Sequential(nn.Embedding(7, 3), nn.Linear(3, 2))
        assert [b.name for b in factorize(deepcopy(model), 2, form=Gated(units=units)).blocks] == ["1.weight"]
        (block,) = factorize(model, 2, form=Gated(units=units), include="0.weight").blocks
        assert block.magnitudes().shape == shape


@pytest.mark.parametrize("bias", [True, False])
def test_a_head_without_values_does_not_matter(bias: bool) -> None:
    attention = nn.MultiheadAttention(8, 4, bias=bias, batch_first=True)
    if bias:
        nn.init.normal_(attention.in_proj_bias)
    x = torch.randn(2, 5, 8)
    factorize(attention, 3, form=Gated(units="heads"))
    kill_(attention, lambda head: head == 1)
    report = collapse(attention, example_inputs=(x, x, x))
    assert report.change is not None and report.change < 1e-12
    before = attention(x, x, x)[0]
    # Queries and keys of the head.
    for rows in (slice(2, 4), slice(10, 12)):
        with torch.no_grad():
            attention.in_proj_weight[rows].normal_()
            if bias:
                attention.in_proj_bias[rows].normal_()
    torch.testing.assert_close(attention(x, x, x)[0], before, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_shrink_removes_heads_without_values(bias: bool) -> None:
    model = nn.TransformerEncoderLayer(8, 4, 16, batch_first=True, bias=bias)
    x = torch.randn(2, 5, 8)
    factorize(model, 3, form=Gated(units="heads"))
    kill_(model)
    collapse(model)
    small: Any = ow.shrink(model, x, low_rank=False).model
    assert small.self_attn.num_heads == 2
    torch.testing.assert_close(small.eval()(x), model.eval()(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_shrink_removes_recurrent_units(kind: Any) -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = kind(4, 6, 2, batch_first=True), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x)[0])

    model, x = Network(), torch.randn(2, 5, 4)
    handle = factorize(model, 3, form=Gated(), include="body")
    assert [len(block.parts) for block in handle.blocks] == [4, 4]
    kill_(model)
    collapse(model)
    masked = model(x)
    small: Any = ow.shrink(model, x).model
    assert sum(p.numel() for p in small.parameters()) < 0.5 * sum(p.numel() for p in model.parameters())
    torch.testing.assert_close(small(x), masked, rtol=0, atol=1e-6)


# -- from gates to a smaller network --------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", ["lenet", "vgg", "residual", "recurrent", "encoder", "bert"])
def test_shrink_removes_units_without_gates(name: str, side: Any) -> None:
    model, x = ZOO[name]()
    factorize(model, 3, 0.1, form=Gated(), example_inputs=x, side=side)
    kill_(model)
    report = collapse(model, example_inputs=x)
    assert report.change is not None and report.change < 1e-10
    masked = outputs(model, x)
    shrunk = ow.shrink(model, x, low_rank=False)
    before, after = shrunk.report.params
    assert after < 0.7 * before
    for one, other in zip(outputs(shrunk.model, x), masked, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_a_group_is_zero_if_its_norm_over_all_tensors_is_small() -> None:
    model = mlp()
    x = torch.randn(2, 5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
        for unit, row, bias in ((0, 0.0, 0.03), (1, 0.03, 0.0), (2, 0.03, 0.03)):
            model.get_parameter("0.weight")[unit] = 0
            model.get_parameter("0.weight")[unit, 0] = row
            model.get_parameter("0.bias")[unit] = bias
    handle = factorize(model, 3, 0.1, form=Gated(), include="0", example_inputs=x)
    (block,) = handle.blocks
    torch.testing.assert_close(block.magnitudes()[:3], torch.tensor([0.03, 0.03, 0.03 * 2**0.5]))
    report = handle.collapse(threshold=0.04)
    weight, bias = model.get_parameter("0.weight"), model.get_parameter("0.bias")
    assert weight.norm(dim=1).eq(0).tolist() == bias.eq(0).tolist() == [True, True, *[False] * 4]
    assert report.total == {"0.weight": 30, "0.bias": 6}
    assert report.nonzero == {"0.weight": 16, "0.bias": 4}
    assert report.sweep[1e-2] == 1 and report.sweep[1e-3] == 1


def test_the_sweep_counts_what_has_no_gate() -> None:
    model = nn.MultiheadAttention(8, 4, bias=False)
    factorize(model, 2, form=Gated(units="heads"))
    kill_(model, lambda head: head < 3)
    report = collapse(model)
    assert report.sweep[1e-3] == report.compression_ratio == 192 / (128 + 16)


def test_gates_stay_shared() -> None:
    model, x = mlp(), torch.randn(2, 5)
    factorize(model, 3, 0.1, form=Gated(), example_inputs=x)
    names = [name for name, _ in model.named_parameters()]
    twin = deepcopy(model)
    shuffle_(twin)
    state = twin.state_dict()
    model.load_state_dict(state)
    assert torch.equal(model(x), twin(x))
    for one in (model, twin):
        assert [name for name, _ in one.named_parameters()] == names
        assert len(blocks_of(one)) == 2
        for block in blocks_of(one):
            first, second = block.parts
            assert first.factors[1] is second.factors[1] and first.factors[2] is second.factors[2]
    assert all(p.data_ptr() != q.data_ptr() for p, q in zip(model.parameters(), twin.parameters(), strict=True))


def test_gates_train_together() -> None:
    model = cnn()
    x, y = IMAGES, torch.arange(8) % 4
    handle = factorize(model, 3, 0.02, form=Gated(start="balanced"), example_inputs=x)
    optimizer = torch.optim.SGD(handle.param_groups(), lr=0.5, momentum=0.5)
    losses: list[float] = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_tied_weight_has_one_set_of_factors() -> None:
    model: Any = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    factorize(model, 2, 0.1, form=Gated())
    (block,) = blocks_of(model)
    assert block.name == "0.weight"
    with torch.no_grad():
        gates(block)[0][1] = 0
    assert torch.equal(model[0].weight, model[2].weight)
    collapse(model)
    assert model[2].weight is model[0].weight


# -- mistakes -------------------------------------------------------------------------------------------------------


def joined() -> tuple[nn.Module, Tensor]:
    """Two couplings of different size that share a normalization."""
    return ZOO["dense"]()


def frozen() -> nn.Module:
    model = mlp()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.ndim > 1)
    return model


X5 = torch.zeros(2, 5, dtype=torch.float64)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (
            mlp,
            {"side": "consumers"},
            r"side='consumers' is one of couplings.* pass example_inputs, or say Gated\(units=",
        ),
        (mlp, {"form": Gated(units="heads")}, r"Sequential has no units left .*0.weight \(Linear has no heads"),
        (mlp, {"form": Gated(entries=3)}, "entries must be below the depth, which is 3 for 0.weight, got 3; there are"),
        (mlp, {"example_inputs": torch.zeros(2, 7)}, "does not run on example_inputs"),
        (mlp, {"example_inputs": X5, "side": "both"}, "side must be 'producers' or 'consumers', got 'both'"),
        (
            lambda: nn.Linear(5, 3),
            {"example_inputs": X5},
            "Linear has no units left .* leave example_inputs out to give",
        ),
        (frozen, {"example_inputs": X5}, r"no units left to give gates to: 0.weight \(0.bias is frozen\)"),
        (mlp, {"example_inputs": X5, "exclude": "*.bias"}, r"0.weight \(0.bias is in exclude\)"),
        (
            mlp,
            {"example_inputs": X5, "depths": {"0.weight": 2, "0.bias": 4}},
            r"depths has 2 and 4 for tensors that share gates \(0.weight, 0.bias\); give them one value",
        ),
        (
            lambda: nn.Sequential(nn.Embedding(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)),
            {"form": Gated(units="input"), "include": ["1.weight", "2.weight"]},
            "include names '1.weight', which cannot have gates: parameter of BatchNorm1d, whose input is not known",
        ),
        (
            lambda: nn.Conv2d(4, 6, 3, groups=2),
            {"form": Gated(units="input")},
            r"the input channels of 2 convolutions side by side are no slices of it",
        ),
    ],
)
def test_mistakes_change_nothing(make: Callable[[], nn.Module], options: dict[str, Any], message: str) -> None:
    model = make()
    before = deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        factorize(model, 3, 0.1, **{"form": Gated(), **options})
    after = model.state_dict()
    assert list(before) == list(after) and all(torch.equal(before[name], after[name]) for name in before)
    assert not blocks_of(model)


def test_sizes_differ_within_a_coupling() -> None:
    model, x = joined()
    with pytest.raises(ValueError, match=r"group_scale='sqrt' needs groups of one size .* have 30 to 39 entries; excl"):
        factorize(model, 3, 0.1, form=Gated(group_scale="sqrt"), example_inputs=x)
    assert not blocks_of(model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": "rows"}, "units must be one of 'output', 'input', 'heads', got 'rows'"),
        ({"start": "zero"}, "start must be one of 'ones', 'balanced', got 'zero'"),
        ({"group_scale": "log"}, "group_scale must be one of 'none', 'sqrt', got 'log'"),
        ({"entries": 0}, "entries must be at least 1, got 0"),
    ],
)
def test_wrong_words(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Gated(**arguments)


def test_one_of_several_tensors_cannot_be_assigned_to() -> None:
    model, x = mlp(), torch.randn(2, 5)
    factorize(model, 2, form=Gated(), example_inputs=x)
    with pytest.raises(ValueError, match=r"0.weight shares its gates with other tensors, .* collapse the model before"):
        model[0].weight = torch.zeros(6, 5)
    alone = nn.Linear(5, 3)
    factorize(alone, 2, form=Gated())
    alone.weight = torch.ones(3, 5)
    assert torch.equal(alone.weight, torch.ones(3, 5))
