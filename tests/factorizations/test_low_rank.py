"""Weights as products of two matrices: the nuclear norm, and two layers at the end."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openwork.factorizations import LowRank, Ranks, blocks_of, collapse, factorize
from openwork.factorizations.two_layers import numerical_rank


@pytest.fixture(autouse=True)
def double() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


LAYERS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(12, 10), (3, 12)),
    "conv2d": (lambda: nn.Conv2d(8, 10, (3, 2), stride=2, padding=1), (2, 8, 9, 9)),
    "transposed": (lambda: nn.ConvTranspose1d(8, 10, 3, stride=2), (2, 8, 5)),
}


def matrix(weight: Tensor, name: str) -> Tensor:
    return (weight.transpose(0, 1) if name == "transposed" else weight).flatten(1)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("depth", [2, 4])
def test_the_product(name: str, depth: int) -> None:
    make, shape = LAYERS[name]
    layer = make()
    plain = matrix(layer.weight.detach(), name)
    x = torch.randn(shape)
    before = layer(x)
    (block,) = factorize(layer, depth, form=LowRank()).blocks
    torch.testing.assert_close(layer(x), before)
    (part,) = block.parts
    with torch.no_grad():
        for factor in part.factors:
            factor.normal_()
    b, a, *gates = part.factors
    expected = sum(
        torch.stack([b[:, r].outer(a[r]), *(gate[r].expand(len(b), a.shape[1]) for gate in gates)]).prod(dim=0)
        for r in range(10)
    )
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(matrix(layer.weight, name), expected)
    assert matrix(layer.weight, name).shape == plain.shape


@pytest.mark.parametrize("name", LAYERS)
def test_the_start_is_the_best_approximation(name: str) -> None:
    layer = LAYERS[name][0]()
    plain = matrix(layer.weight.detach(), name)
    factorize(layer, 3, form=LowRank(4))
    u, s, vh = torch.linalg.svd(plain, full_matrices=False)
    torch.testing.assert_close(matrix(layer.weight, name), u[:, :4] * s[:4] @ vh[:4])
    assert numerical_rank(matrix(layer.weight, name)) == 4


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_the_least_l2_is_that_of_the_singular_values(depth: int) -> None:
    layer = nn.Linear(7, 5)
    values = torch.linalg.svdvals(layer.weight.detach())
    (block,) = factorize(layer, depth, 1.0, form=LowRank()).blocks
    torch.testing.assert_close(block.magnitudes(), values)
    least = float(torch.stack(block.squares()).detach().sum()) / depth
    assert least == pytest.approx(float((values ** (2 / depth)).sum()), rel=1e-12)
    # Other factors of the same weight have more.
    made, factors = block.parts[0].factorization, [f.detach() for f in block.parts[0].factors]
    for _ in range(20):
        mix = torch.eye(5) + 0.1 * torch.randn(5, 5)
        if depth > 2:
            mix = torch.diag(mix.diagonal())
        other = [factors[0] @ mix, torch.linalg.solve(mix, factors[1]), *factors[2:]]
        torch.testing.assert_close(made(*other), layer.weight.detach())
        assert float(torch.stack(made.squares(other)).sum()) / depth > least


def nuclear(x: Tensor, y: Tensor, lam: float) -> Tensor:
    """0.5 / n ||x w' - y||^2 + lam ||w||_*, by accelerated proximal gradient."""
    n = len(x)
    step = n / torch.linalg.matrix_norm(x, 2) ** 2
    w = v = torch.zeros(y.shape[1], x.shape[1])
    t = 1.0
    for _ in range(2000):
        u, s, vh = torch.linalg.svd(v - step * (v @ x.T - y.T) @ x / n, full_matrices=False)
        p = u * (s - lam * step).clamp_min(0) @ vh
        after = (1 + (1 + 4 * t * t) ** 0.5) / 2
        v, w, t = p + (t - 1) / after * (p - w), p, after
    return w


def test_depth_2_is_the_nuclear_norm() -> None:
    x, true = torch.randn(60, 6), torch.randn(5, 2) @ torch.randn(2, 6)
    y = x @ true.T + 0.3 * torch.randn(60, 5)
    expected = nuclear(x, y, 0.3)
    model = nn.Linear(6, 5, bias=False)
    handle = factorize(model, 2, 0.3, form=LowRank())
    optimizer = torch.optim.SGD(handle.param_groups(), lr=0.05, momentum=0.9)
    for _ in range(1500):
        optimizer.zero_grad()
        (0.5 / 60 * (model(x) - y).square().sum()).backward()
        optimizer.step()
    assert (model.weight - expected).abs().max() < 1e-8
    handle.collapse(threshold=1e-6)
    assert (model.weight - expected).abs().max() < 1e-5
    assert numerical_rank(model.weight) == numerical_rank(expected) == 2


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("depth", [2, 3])
def test_collapse_makes_two_layers(name: str, depth: int) -> None:
    make, shape = LAYERS[name]
    model: Any = nn.Sequential(make(), nn.ReLU())
    x = torch.randn(shape)
    factorize(model, depth, 0.1, form=LowRank(5))
    with torch.no_grad():
        b, a, *gates = blocks_of(model)[0].parts[0].factors
        for factor in (b, *gates):
            factor.mul_(torch.tensor([1.0, 1e-9, 1.0, 1e-9, 1e-9]))
        if depth == 2:
            # As good for the penalty, and no column is small.
            rotation = torch.linalg.qr(torch.randn(5, 5)).Q
            b.copy_(b @ rotation)
            a.copy_(rotation.T @ a)
    before = model(x)
    bias = model[0].bias
    report = collapse(model, example_inputs=x)
    first, second = model[0]
    assert isinstance(model[0], nn.Sequential) and second.bias is bias and first.bias is None
    torch.testing.assert_close(model(x), before)
    assert report.change is not None and report.change < 1e-6
    assert first.weight.shape[1 if name == "transposed" else 0] == second.weight.shape[1] == 2
    assert report.nonzero == {"0.weight": first.weight.numel() + second.weight.numel()}
    assert report.compression_ratio > 1


def test_collapse_without_a_threshold_changes_nothing() -> None:
    model, x = nn.Sequential(nn.Linear(6, 6)), torch.randn(3, 6)
    factorize(model, 2, form=LowRank())
    before = model(x)
    collapse(model, threshold=0.0)
    assert torch.equal(model(x), before)


def test_collapse_keeps_one_layer_where_two_would_not_save() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    factorize(model, 2, form=LowRank(3), include="0")
    collapse(model)
    assert [type(layer) for layer in model] == [nn.Linear, nn.Linear]
    assert list(dict(model.named_parameters())) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert numerical_rank(model.get_parameter("0.weight")) == 3


def test_a_weight_without_ranks_is_zero() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 6))
    factorize(model, 2, form=LowRank())
    report = collapse(model, threshold=100.0)
    assert report.dead == ("0.weight", "1.weight") and not model.get_parameter("0.weight").any()


def test_layers_whose_weight_others_read_stay_one() -> None:
    encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    factorize(encoder, 2, form=LowRank(2))
    collapse(encoder)
    assert type(encoder.linear1) is nn.Linear

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner: Any = nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.inner.weight

    reader = Reader()
    factorize(reader, 2, form=LowRank(2))
    collapse(reader, example_inputs=torch.randn(2, 16))
    assert type(reader.inner) is nn.Linear and numerical_rank(reader.inner.weight) == 2

    tied: Any = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    tied[1].weight = tied[0].weight
    factorize(tied, 2, form=LowRank(2))
    collapse(tied)
    assert tied[1].weight is tied[0].weight


def test_ranks() -> None:
    def ranks(rank: int | float | None) -> list[int]:
        model = nn.Sequential(nn.Linear(9, 12), nn.Linear(12, 3), nn.LSTM(3, 4))
        factorize(model, 2, form=LowRank(rank))
        found: list[int] = []
        for block in blocks_of(model):
            made = block.parts[0].factorization
            assert isinstance(made, Ranks)
            found.append(made.rank)
        return found

    assert ranks(None) == ranks(1.0) == [9, 3, 3, 4]
    assert ranks(4) == [4, 3, 3, 4]
    assert ranks(0.3) == [3, 1, 1, 2]
    assert ranks(1e-9) == [1, 1, 1, 1]


def test_under_autocast_the_product_is_exact() -> None:
    layer = nn.Linear(12, 10).float()
    x = torch.randn(3, 12, dtype=torch.float32)
    factorize(layer, 2, form=LowRank(4))
    weight = layer.weight
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer.weight, weight)
        assert layer(x).dtype == torch.bfloat16


def test_state_and_copies() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Conv1d(1, 4, 3))
    factorize(model, 3, 0.1, form=LowRank(2))
    twin = deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.normal_()
    model.load_state_dict(twin.state_dict())
    assert torch.equal(model.get_submodule("0")(torch.ones(6)), twin.get_submodule("0")(torch.ones(6)))


@pytest.mark.parametrize("rank", [0, -1, 0.0, 1.5, float("nan")])
def test_a_rank_out_of_range(rank: float) -> None:
    with pytest.raises(ValueError, match="rank must be a whole number of at least 1 or a fraction above 0 and at most"):
        LowRank(rank)


def test_a_rank_of_another_type() -> None:
    wrong: Any
    for wrong in (True, "8"):
        with pytest.raises(TypeError, match="rank must be a whole number, a fraction or None"):
            LowRank(wrong)


def test_mistakes_change_nothing() -> None:
    grouped = nn.Conv1d(4, 4, 3, groups=2)
    with pytest.raises(
        ValueError, match=r"Conv1d has no matrix left to factorize: weight \(2 convolutions side by side"
    ):
        factorize(grouped, 2, form=LowRank())
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.raises(
        ValueError, match=r"include names '1.weight', which is no matrix: it has one dimension; take it"
    ):
        factorize(model, 2, form=LowRank(), include=["0.weight", "1.weight"])
    assert not blocks_of(model) and not blocks_of(grouped)
