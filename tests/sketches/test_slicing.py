"""A sliced network gives the loss and the gradients of the masked one, or is refused."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from openwork import models
from openwork.models.gpt import Block
from openwork.shrinking import NotEqual
from openwork.shrinking.cutting import Blueprint
from openwork.sketches import DSGD, Bernoulli, GroupSpec, Key, PermK, RandK, SketchedModule, UnitSlices
from openwork.sketches.families import ScaleSide, Units
from openwork.sketches.sketch import DiagonalSketch
from tests.wiring.zoo import ZOO


def heads() -> tuple[nn.Module, Tensor]:
    return nn.TransformerEncoderLayer(16, 4, 12, dropout=0.0, batch_first=True), torch.randn(3, 5, 16)


def stack() -> tuple[nn.Module, Tensor]:
    return models.mlp((6, 8, 10, 12, 3)), torch.randn(5, 6)


MODELS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "mlp": stack,
    "attention": heads,
    **{name: ZOO[name] for name in ("residual", "dense", "mobile", "our_gpt", "recurrent", "llama")},
}
SLOW = ("llama", "recurrent")


def built(name: str, seed: int = 0) -> tuple[nn.Module, Any]:
    torch.manual_seed(seed)
    model, inputs = MODELS[name]()
    inputs = inputs.double() if isinstance(inputs, Tensor) and inputs.is_floating_point() else inputs
    model = model.double().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model, inputs


def loss_of(module: nn.Module, inputs: Any) -> Tensor:
    result = module(**inputs) if isinstance(inputs, dict) else module(inputs)
    leaves = [x for x in tree_leaves(getattr(result, "logits", result)) if isinstance(x, Tensor)]
    return torch.stack([x.sin().sum() for x in leaves]).sum()


def pair(model: nn.Module, inputs: Any, law: DiagonalSketch, **options: Any) -> tuple[SketchedModule, SketchedModule]:
    """The same model twice: masked and sliced."""
    options = {"shift": "zero", "granularity": "units", "example_inputs": inputs, **options}
    return SketchedModule(deepcopy(model), law, **options), SketchedModule(model, law, mode="slice", **options)


def assert_same(masked: SketchedModule, sliced: SketchedModule, inputs: Any, tolerance: float = 1e-12) -> None:
    for step in range(3):
        found: list[Tensor] = []
        for one in (masked, sliced):
            one.zero_grad()
            with one.draw(Key(1, step)):
                loss = loss_of(one, inputs)
            loss.backward()
            found.append(loss.detach())
        torch.testing.assert_close(found[1], found[0], rtol=tolerance, atol=tolerance)
        for (name, a), b in zip(masked.module.named_parameters(), sliced.module.parameters(), strict=True):
            assert (a.grad is None) == (b.grad is None), name
            if a.grad is not None and b.grad is not None:
                scale = max(1.0, float(a.grad.abs().max()))
                assert float((a.grad - b.grad).abs().max()) <= tolerance * scale, name


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in MODELS])
def test_slice_equals_mask(name: str) -> None:
    model, inputs = built(name)
    # Norms of this one are computed in float32 whatever its weights are in.
    assert_same(*pair(model, inputs, RandK(0.5)), inputs, 1e-6 if name == "llama" else 1e-12)


def test_slice_equals_mask_where_workers_share_the_units() -> None:
    model, inputs = built("mlp")
    masked, sliced = pair(model, inputs, PermK(2))
    for worker in range(2):
        losses = []
        for one in (masked, sliced):
            with one.draw(Key(0, worker=worker)):
                losses.append(float(loss_of(one, inputs).detach()))
        assert losses[1] == pytest.approx(losses[0], abs=1e-12)


@pytest.mark.parametrize("side", ["outgoing", "all"])
def test_slice_equals_mask_on_both_sides(side: ScaleSide) -> None:
    model, inputs = built("mlp")
    assert_same(*pair(model, inputs, RandK(0.5), side=side), inputs)


def test_unscaled_slices_are_the_weights_themselves() -> None:
    model, inputs = built("mlp")
    assert_same(*pair(model, inputs, RandK(0.5), scaled=False), inputs)


def test_widths_that_vary() -> None:
    """Independent units: each choice of widths has a network of its own, and one of none drops the layer."""
    model, inputs = built("mlp")
    masked, sliced = pair(model, inputs, Bernoulli(0.5))
    for step in range(12):
        with masked.draw(Key(0, step)), sliced.draw(Key(0, step)):
            torch.testing.assert_close(sliced(inputs), masked(inputs), rtol=1e-12, atol=1e-12)


def test_networks_of_fixed_widths_are_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    original = Blueprint.narrower
    monkeypatch.setattr(Blueprint, "narrower", lambda *args: made.append(args) or original(*args))
    model, inputs = built("mlp")
    _, sliced = pair(model, inputs, RandK(0.5))
    for step in range(4):
        with sliced.draw(Key(0, step)):
            sliced(inputs)
    assert len(made) == 1


def test_dropout_of_hidden_units_is_the_same_network() -> None:
    """Inverted dropout with the mask of the draw, written out."""
    torch.manual_seed(0)
    first, second, x = nn.Linear(4, 6).double(), nn.Linear(6, 3).double(), torch.randn(5, 4, dtype=torch.float64)
    model = nn.Sequential(first, nn.ReLU(), second)
    _, sliced = pair(model, x, RandK(2))
    (family,) = sliced.families
    assert isinstance(family, Units)
    mask = family.weights(Key(0, 3))
    assert sorted(mask.tolist()) == [0.0] * 4 + [3.0] * 2
    with sliced.draw(Key(0, 3)):
        found = sliced(x)
    torch.testing.assert_close(found, second(torch.relu(first(x)) * mask), rtol=1e-14, atol=1e-14)


class Net(nn.Module):
    """Convolutions with batch normalization between them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.norm(self.a(x))))


def test_running_statistics_of_kept_channels_are_those_of_the_whole_network() -> None:
    torch.manual_seed(0)
    model, x = Net().double().train(), torch.randn(4, 2, 7, 7, dtype=torch.float64)
    masked, sliced = pair(model, x, RandK(3))
    norms = [one.module.get_submodule("norm") for one in (masked, sliced)]
    before = {name: buffer.clone() for name, buffer in norms[1].named_buffers()}
    (family,) = sliced.families
    assert isinstance(family, Units)
    kept = family.weights(Key(1)) != 0
    for one in (masked, sliced):
        with one.draw(Key(1)):
            one(x)
    for name in ("running_mean", "running_var"):
        theirs, ours = (norm.get_buffer(name) for norm in norms)
        torch.testing.assert_close(ours[kept], theirs[kept], rtol=1e-12, atol=1e-12)
        assert torch.equal(ours != before[name], kept)
    assert int(norms[1].get_buffer("num_batches_tracked")) == 1


def test_evaluation_inside_a_draw_leaves_running_statistics() -> None:
    torch.manual_seed(0)
    model, x = Net().double(), torch.randn(4, 2, 7, 7, dtype=torch.float64)
    masked, sliced = pair(model, x, RandK(3))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with masked.eval().draw(Key(0)), sliced.eval().draw(Key(0)):
        torch.testing.assert_close(sliced(x), masked(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sliced(x), model(x), rtol=0, atol=0)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_modes_of_single_modules_are_followed() -> None:
    """A frozen BatchNorm in evaluation mode stays so in the small network."""
    torch.manual_seed(0)
    model, x = Net().double().train(), torch.randn(4, 2, 7, 7, dtype=torch.float64)
    masked, sliced = pair(model, x, RandK(3))
    for one in (masked, sliced):
        one.module.get_submodule("norm").eval()
    assert_same(masked, sliced, x)


class Normed(nn.Module):
    """A normalization over hidden units, which no tracing would let go."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(4, 6), norm, nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.norm(self.a(x)))


@pytest.mark.parametrize("norm", [nn.LayerNorm(6), nn.RMSNorm(6), nn.Softmax(-1)], ids=["layer", "rms", "softmax"])
def test_norm_over_units_is_refused(norm: nn.Module) -> None:
    model, x = Normed(norm), torch.randn(5, 4)
    parts = [UnitSlices("a.weight", 0, "in"), UnitSlices("a.bias", 0, "in"), UnitSlices("b.weight", 1, "out")]
    parts += [UnitSlices(f"norm.{name}", 0, "in") for name, _ in norm.named_parameters()]
    group = GroupSpec(6, parts).coupling(model)
    with pytest.raises(NotEqual, match=r"units of 'a.weight' does not compute .* differs by .*: leave them out"):
        SketchedModule(
            model, RandK(3), shift="zero", granularity="units", groups=[group], example_inputs=x, mode="slice"
        )


def test_units_of_a_stream_with_norms_stay_whole() -> None:
    torch.manual_seed(0)
    model, x = ZOO["gated_rms"]()
    _, sliced = pair(model, x, RandK(0.5))
    assert [family.name for family in sliced.families] == ["fused.weight"]


def test_zeros_at_a_start_do_not_hide_what_differs() -> None:
    model, x = Normed(nn.LayerNorm(6)), torch.randn(5, 4)
    nn.init.zeros_(model.b.weight)
    parts = [UnitSlices(f"{name}", 0, "in") for name in ("a.weight", "a.bias", "norm.weight", "norm.bias")]
    group = GroupSpec(6, [*parts, UnitSlices("b.weight", 1, "out")]).coupling(model)
    with pytest.raises(NotEqual, match="does not compute"):
        SketchedModule(
            model, RandK(3), shift="zero", granularity="units", groups=[group], example_inputs=x, mode="slice"
        )


def test_what_cannot_be_sliced_is_said() -> None:
    model, x = models.mlp((4, 6, 3)), torch.randn(2, 4)
    with pytest.raises(ValueError, match=r"the shift of '3.weight' is not zero, .*; take shift='zero', or mode='mask'"):
        SketchedModule(model, RandK(2), granularity="units", example_inputs=x, mode="slice")
    with pytest.raises(ValueError, match="only whole units can be sliced; take granularity='units'"):
        SketchedModule(model, RandK(2), shift="zero", example_inputs=x, mode="slice")
    with pytest.raises(ValueError, match="mode must be 'mask' or 'slice', got 'cut'"):
        SketchedModule(model, RandK(2), mode="cut")  # pyright: ignore[reportArgumentType]
    masked, sliced = pair(model, x, RandK(2))
    with pytest.raises(ValueError, match="around zero alone; recenter with mode='mask'"):
        sliced.recenter_()
    with pytest.raises(TypeError, match="sliced off by keys; pass a Key"), sliced.draw(masked.sample(Key(0))):
        pass
    with pytest.raises(ValueError, match="take mode='slice'"):
        masked.submodel(Key(0))


class Cells(nn.Module):
    """Two directions of an LSTM, which keep equally many units."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.out = nn.LSTM(3, 4, bidirectional=True, batch_first=True), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.cells(x)[0])


def test_widths_that_must_be_equal_are_not_left_to_chance() -> None:
    model, x = Cells(), torch.randn(2, 3, 3)
    with pytest.raises(ValueError, match=r"Bernoulli keeps a random number .* equally many \(.*\); take RandK"):
        pair(model, x, Bernoulli(0.5))
    assert_same(*pair(model.double(), x.double(), RandK(0.5)), x.double())


def test_a_layer_that_cannot_be_empty_says_so() -> None:
    # The first draw already drops all heads.
    with pytest.raises(NotEqual, match=r"the draw keeps no unit of 'heads.in_proj_weight', .* does not run .*; take a"):
        pair(Heads(), torch.randn(2, 3, 8), Bernoulli(0.3))


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads, self.out = nn.MultiheadAttention(8, 4, batch_first=True), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.heads(x, x, x, need_weights=False)[0])


def test_a_failure_inside_leaves_everything_as_it_was() -> None:
    model, x = models.mlp((4, 6, 3)), torch.randn(2, 4)
    _, sliced = pair(model, x, RandK(2))
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(RuntimeError), sliced.draw(Key(0)):
        sliced(torch.randn(2, 5))
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    torch.testing.assert_close(sliced.eval()(x), model(x), rtol=0, atol=0)


def test_algorithms_train_sliced_networks() -> None:
    losses: list[list[float]] = []
    model, x = built("mlp")
    y = torch.randn(5, 3, dtype=torch.float64)
    for one in pair(model, x, RandK(0.5)):
        algorithm = DSGD(torch.optim.SGD(one.module.parameters(), lr=0.05, momentum=0.9), one)

        def closure(one: SketchedModule = one) -> Tensor:
            loss = (one(x) - y).square().mean()
            loss.backward()
            return loss

        losses.append([float(algorithm.step(closure)) for _ in range(6)])
    assert losses[1] == pytest.approx(losses[0], abs=1e-12)
    assert len(set(losses[0])) == 6


# -- what it costs ----------------------------------------------------------------------------------------------------


def flops(module: SketchedModule, x: Tensor, key: Key) -> int:
    counter = FlopCounterMode(display=False)
    with counter, module.draw(key):
        module(x).sum().backward()
    return counter.get_total_flops()


def saved_bytes(module: SketchedModule, x: Tensor) -> int:
    """Bytes of all storages that the backward pass needs and that are not the module's own."""
    own = {p.untyped_storage().data_ptr() for p in module.module.parameters()}
    seen: dict[int, int] = {}

    def pack(saved: Tensor) -> Tensor:
        if saved.untyped_storage().data_ptr() not in own:
            seen[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
        return saved

    with saved_tensors_hooks(pack, lambda saved: saved), module.draw(Key(0)):
        kept_alive = module(x)
    assert kept_alive.requires_grad
    return sum(seen.values())


def test_work_and_memory_of_a_transformer_block() -> None:
    """Of 12 parts of matrix work per block, 4 are of heads and 8 of hidden units, all of which are halved."""
    torch.manual_seed(0)
    model, x = Block(64, 8, 0.0), torch.randn(16, 32, 64)
    masked, sliced = pair(model, x, RandK(0.5))
    dense = SketchedModule(model, RandK(1.0), shift="zero", granularity="units", example_inputs=x)
    whole, half = flops(dense, x, Key(0)), flops(sliced, x, Key(0))
    assert flops(masked, x, Key(0)) == whole
    assert half == pytest.approx(0.5 * whole, rel=1e-6)
    assert saved_bytes(sliced, x) < 0.7 * saved_bytes(masked, x)


def test_work_of_a_matrix_that_is_cut_on_both_sides() -> None:
    torch.manual_seed(0)
    model, x = models.mlp((8, 64, 64, 8)), torch.randn(4, 8)
    masked, sliced = pair(model, x, RandK(0.25))
    # 6 per entry of a weight and sample, but for gradients of inputs that nobody asks for.
    work = 4 * (4 * 8 * 64 + 6 * 64 * 64 + 6 * 64 * 8)
    assert flops(masked, x, Key(0)) == work
    assert flops(sliced, x, Key(0)) == 4 * (4 * 8 * 16 + 6 * 16 * 16 + 6 * 16 * 8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_memory_and_synchronization_on_a_gpu() -> None:
    torch.manual_seed(0)
    model, x = models.mlp((256, 4096, 256)).cuda(), torch.randn(512, 256, device="cuda")
    peaks: list[int] = []
    for one in pair(model, x, RandK(0.5)):
        one(x).sum().backward()
        one.zero_grad()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        one(x).sum().backward()
        peaks.append(torch.cuda.max_memory_allocated() - before)
        one.zero_grad()
    assert peaks[1] < peaks[0]
    _, sliced = pair(model, x, RandK(0.5), key=Key(0, backend="hash"))
    torch.cuda.set_sync_debug_mode("error")
    try:
        sliced(x).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
