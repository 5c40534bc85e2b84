"""Units: masks against smaller networks cut by hand, dropout, and couplings that have no units to sketch."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from openwork.sketches import Bernoulli, Key, RandK, RandomProjection, SketchedModule
from openwork.sketches.families import Units
from openwork.wiring import inspect

KEY = Key(3)


def units(sketched: SketchedModule, name: str) -> tuple[list[int], float]:
    """Numbers of the units of a family that the draw of KEY keeps, and their scale."""
    (family,) = [family for family in sketched.families if family.name == name]
    assert isinstance(family, Units)
    weights = family.weights(KEY)
    return weights.nonzero().flatten().tolist(), float(weights.max())


def compare(sketched: SketchedModule, small: nn.Module, cuts: dict[str, tuple[int, list[int]]], x: Tensor) -> None:
    """Losses are equal, and gradients: those of the small network, zeros elsewhere.

    ``cuts`` says for names of parameters which indices along which axis are in the small network; the gradient of what
    is multiplied there is that of the large one over the scale, which autograd sees to.
    """
    with sketched.draw(KEY):
        loss = sketched(x).sin().sum()
    loss.backward()
    other = small(x).sin().sum()
    other.backward()
    assert_close(loss, other, rtol=0, atol=1e-12)
    for name, p in sketched.module.named_parameters():
        expected = small.get_parameter(name).grad
        assert p.grad is not None and expected is not None
        if name in cuts:
            dim, indices = cuts[name]
            dropped = [index for index in range(p.shape[dim]) if index not in indices]
            assert not p.grad.index_select(dim, torch.tensor(dropped)).any()
            assert_close(p.grad.index_select(dim, torch.tensor(indices)), expected, rtol=0, atol=1e-12)
        else:
            assert_close(p.grad, expected, rtol=0, atol=1e-12)


def mlp(hidden: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, hidden), nn.ReLU(), nn.Linear(hidden, 3)).double()


class Scaled(nn.Module):
    """The small network with weights ``scale * x`` where it reads, so that gradients are those of x."""

    def __init__(self, module: nn.Module, scales: dict[str, float]) -> None:
        super().__init__()
        self.module, self.scales = module, scales

    def get_parameter(self, target: str) -> nn.Parameter:
        return self.module.get_parameter(target)

    def forward(self, x: Tensor) -> Tensor:
        weights = {name: self.module.get_parameter(name) * scale for name, scale in self.scales.items()}
        return torch.func.functional_call(self.module, weights, (x,))


def cut(large: nn.Module, small: nn.Module, cuts: dict[str, tuple[int, list[int]]]) -> None:
    with torch.no_grad():
        for name, p in small.named_parameters():
            whole = large.get_parameter(name)
            p.copy_(whole.index_select(cuts[name][0], torch.tensor(cuts[name][1])) if name in cuts else whole)


@pytest.mark.parametrize("scaled", [True, False], ids=["scaled", "unscaled"])
def test_masks_of_hidden_units_are_a_smaller_network(scaled: bool) -> None:
    x = torch.randn(7, 5, dtype=torch.float64)
    sketched = SketchedModule(mlp(8), RandK(0.5), shift="zero", granularity="units", example_inputs=x, scaled=scaled)
    kept, scale = units(sketched, "0.weight")
    assert len(kept) == 4 and scale == 2
    cuts = {"0.weight": (0, kept), "0.bias": (0, kept), "2.weight": (1, kept)}
    small = mlp(4)
    cut(sketched.module, small, cuts)
    compare(sketched, Scaled(small, {"2.weight": scale if scaled else 1.0}), cuts, x)


def convolutions(channels: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, channels, 3), nn.BatchNorm2d(channels), nn.ReLU(), nn.Flatten(), nn.Linear(channels * 9, 3)
    ).double()


def test_masks_of_channels_before_batch_normalization_and_flattening_are_a_smaller_network() -> None:
    x = torch.randn(4, 2, 5, 5, dtype=torch.float64)
    sketched = SketchedModule(convolutions(6), RandK(0.5), shift="zero", granularity="units", example_inputs=x)
    assert sketched.training
    kept, scale = units(sketched, "0.weight")
    assert len(kept) == 3 and scale == 2
    columns = [channel * 9 + position for channel in kept for position in range(9)]
    cuts = {name: (0, kept) for name in ("0.weight", "0.bias", "1.weight", "1.bias")}
    cuts["4.weight"] = (1, columns)
    small = convolutions(3)
    cut(sketched.module, small, cuts)
    compare(sketched, Scaled(small, {"4.weight": scale}), cuts, x)


class Attention(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v = (nn.Linear(6, heads * 2) for _ in range(3))
        self.out = nn.Linear(heads * 2, 6)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (-1, 2)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_masks_of_attention_heads_are_a_smaller_network() -> None:
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    model = Attention(4)
    heads = [c for c in inspect(model, x).couplings if not c.blocked and c.width == 4]
    sketched = SketchedModule(model, RandK(0.5), shift="zero", granularity="units", groups=heads)
    (family,) = sketched.families
    kept, scale = units(sketched, family.name)
    assert len(kept) == 2 and scale == 2 and family.parameters == ("out.weight",)
    rows = [head * 2 + position for head in kept for position in range(2)]
    cuts = {f"{name}.{of}": (0, rows) for name in "qkv" for of in ("weight", "bias")}
    cuts["out.weight"] = (1, rows)
    small = Attention(2)
    cut(model, small, cuts)
    compare(sketched, Scaled(small, {"out.weight": scale}), cuts, x)


def test_outgoing_masks_are_inverted_dropout() -> None:
    x = torch.randn(7, 5, dtype=torch.float64)
    sketched = SketchedModule(mlp(8), Bernoulli(0.6), shift="zero", granularity="units", example_inputs=x)
    (family,) = sketched.families
    assert isinstance(family, Units)
    mask = family.weights(KEY)
    assert set(mask.tolist()) == {0.0, 1 / 0.6}
    first, activation, second = mlp(8)
    with sketched.draw(KEY):
        assert_close(sketched(x), second(activation(first(x)) * mask), rtol=0, atol=1e-14)


def test_scaling_all_of_a_unit_counts_it_once_too_often() -> None:
    """With ReLU and no biases of its readers, by exactly 1 / p."""
    x = torch.randn(7, 5, dtype=torch.float64)
    outgoing, everything = (
        SketchedModule(
            mlp(8), RandK(0.25), shift="zero", granularity="units", example_inputs=x, side=side, exclude="2.bias"
        )
        for side in ("outgoing", "all")
    )
    for sketched in (outgoing, everything):
        nn.init.zeros_(sketched.module.get_parameter("2.bias"))
    assert set(everything.shifts) == {"0.weight", "0.bias", "2.weight"}
    with outgoing.draw(KEY), everything.draw(KEY):
        assert torch.equal(everything(x), 4 * outgoing(x))


def test_independent_couplings_multiply() -> None:
    torch.manual_seed(0)
    x = torch.randn(7, 5, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    sketched = SketchedModule(model, RandK(0.5), granularity="units", example_inputs=x, side="all", scaled=False)
    assert [family.size for family in sketched.families] == [4, 6]
    first, second = sketched.families
    assert isinstance(first, Units) and isinstance(second, Units)
    expected = torch.outer(second.weights(KEY), first.weights(KEY))
    weight = torch.ones(6, 4, dtype=torch.float64)
    for one in sketched.sample(KEY)["2.weight"]:
        weight = one.apply(weight)
    assert torch.equal(weight, expected)
    # Each entry is kept with probability 1/2 * 1/2.
    z = sketched.dense_weights()["2.weight"]
    v = sketched.shifts["2.weight"]
    assert v is not None
    assert_close(z, v + (model.get_parameter("2.weight").detach() - v) / 4, rtol=0, atol=1e-15)


# -- what has no units ------------------------------------------------------------------------------------------------


def normalized(norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 8), norm, nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)).double()


@pytest.mark.parametrize(
    ("norm", "why"),
    [(nn.LayerNorm(8), "LayerNorm runs over it"), (nn.RMSNorm(8), "RMSNorm divides by its width")],
    ids=["LayerNorm", "RMSNorm"],
)
def test_units_under_a_normalization_over_them_are_left_out_or_refused(norm: nn.Module, why: str) -> None:
    x = torch.randn(7, 5, dtype=torch.float64)
    model = normalized(norm)
    sketched = SketchedModule(model, RandK(0.5), granularity="units", example_inputs=x)
    assert [family.name for family in sketched.families] == ["2.weight"]
    coupling = next(c for c in inspect(model, x).couplings if c.name == "0.weight")
    with pytest.raises(ValueError, match=f"units of '0.weight' cannot be sketched: {why}.*; leave it out of groups"):
        SketchedModule(model, RandK(0.5), granularity="units", groups=[coupling])


class Embedded(nn.Module):
    """The table of the embedding is also that of the output."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 4)
        self.output = nn.Linear(4, 7, bias=False)
        self.output.weight = self.table.weight

    def forward(self, index: Tensor) -> Tensor:
        x = self.table(index)
        return self.output(x + self.second(torch.relu(self.first(x))))


def test_part_of_a_tied_tensor_is_refused() -> None:
    model, index = Embedded(), torch.tensor([[1, 2]])
    sketched = SketchedModule(model, RandK(0.5), granularity="units", example_inputs=index)
    assert [family.size for family in sketched.families] == [6]
    width = next(c for c in inspect(model, index).couplings if c.width == 4)
    with pytest.raises(ValueError, match=r"'table.weight' is tied: the same slices write and read"):
        SketchedModule(model, RandK(0.5), granularity="units", groups=[width])


def test_a_tensor_with_the_units_on_two_axes_is_refused() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.middle, self.last = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.first(x))
            return self.last(x + self.middle(x))

    model, x = Residual(), torch.randn(2, 3)
    (width,) = inspect(model, x).removable
    SketchedModule(model, RandK(0.5), granularity="units", groups=[width])
    with pytest.raises(ValueError, match=r"'middle.weight' has them on two axes"):
        SketchedModule(model, RandK(0.5), granularity="units", groups=[width], side="all")


def test_units_take_one_diagonal_law() -> None:
    x = torch.randn(7, 5, dtype=torch.float64)
    with pytest.raises(ValueError, match="RandomProjection mixes units; take a diagonal sketch"):
        SketchedModule(mlp(8), RandomProjection(2), granularity="units", example_inputs=x)
    sketched = SketchedModule(mlp(8), {"2.*": RandK(3)}, granularity="units", example_inputs=x)
    assert [(family.name, family.law) for family in sketched.families] == [("0.weight", RandK(3))]
    with pytest.raises(
        ValueError, match=r"'0.weight' cannot be sketched: '2.weight' is frozen, excluded or matched by"
    ):
        SketchedModule(mlp(8), RandK(3), granularity="units", groups=inspect(mlp(8), x).removable, exclude="2.weight")


def test_readers_of_the_same_units_need_the_same_law() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.left, self.right = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = torch.relu(self.stem(x))
            return self.left(x), self.right(x)

    laws = {"left": RandK(2), "right": RandK(3)}
    with pytest.raises(ValueError, match=r"several laws for what reads the units of 'stem.weight' \('left', 'right'\)"):
        SketchedModule(Fork(), laws, granularity="units", example_inputs=torch.randn(2, 3))
