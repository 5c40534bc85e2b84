"""Sketched modules: draws, shifts, ties, units of the dense model, checkpoints, bad input."""

import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parametrize
from torch.testing import assert_close

from openwork.sketches import (
    Bernoulli,
    GroupSpec,
    Identity,
    Key,
    Mixture,
    PermK,
    RandK,
    RandomProjection,
    Sketch,
    SketchedModule,
    UnitSlices,
)


def network(*, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def inputs(*, seed: int = 1) -> Tensor:
    return torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def bits(module: nn.Module) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in (*module.parameters(), *module.buffers())]


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("scaled", [True, False], ids=["scaled", "unscaled"])
def test_at_the_shift_every_draw_is_the_dense_model(scaled: bool) -> None:
    sketched, x = SketchedModule(network(), RandK(0.5), scaled=scaled), inputs()
    for step in range(5):
        with sketched.draw(Key(3, step=step)):
            assert torch.equal(sketched(x), sketched.module(x))


def test_the_gradient_is_the_mask_times_the_gradient_at_the_sketched_weights() -> None:
    shift = {name: p.detach() for name, p in network(seed=7).named_parameters()}
    sketched, x, key = SketchedModule(network(), RandK(0.5), shift=shift), inputs(), Key(5)
    with sketched.draw(key):
        sketched(x).square().sum().backward()
    plain = network()
    drawn = sketched.sample(key)
    with torch.no_grad():
        for name, p in plain.named_parameters():
            p.copy_(shift[name] + drawn[name][0].apply(p - shift[name]))
    plain(x).square().sum().backward()
    for (name, p), q in zip(plain.named_parameters(), sketched.module.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None
        assert_close(q.grad, drawn[name][0].adjoint(p.grad), rtol=0, atol=1e-13)


def test_the_gradient_equals_finite_differences() -> None:
    sketched, x = SketchedModule(network(), RandK(0.5), shift="zero"), inputs()
    weight = sketched.module.get_parameter("0.weight")

    def loss() -> Tensor:
        with sketched.draw(Key(5)):
            return sketched(x).square().sum()

    (gradient,) = torch.autograd.grad(loss(), weight)
    numeric = torch.zeros_like(weight)
    with torch.no_grad():
        for index in range(weight.numel()):
            entry = weight.view(-1)[index : index + 1]
            start = entry.clone()
            entry.copy_(start + 1e-6)
            above = loss()
            entry.copy_(start - 1e-6)
            numeric.view(-1)[index] = (above - loss()) / 2e-6
            entry.copy_(start)
    assert_close(gradient, numeric, rtol=1e-6, atol=1e-7)
    assert (gradient == 0).sum() == 12  # what is dropped


def test_the_identity_is_the_module_itself() -> None:
    sketched, x = SketchedModule(network(), Identity(), shift=network(seed=3).state_dict()), inputs()
    assert sketched.weights(sketched.sample(Key(0))) == {}
    assert torch.equal(sketched(x), sketched.module(x))
    assert torch.equal(SketchedModule(network(), Identity(), scaled=False).eval()(x), sketched.module(x))


def test_a_step_has_one_draw_and_the_next_another() -> None:
    sketched, x = SketchedModule(network(), RandK(0.5), shift="zero"), inputs()
    optimizer = torch.optim.SGD(sketched.parameters(), lr=0.0)
    handle = sketched.follow(optimizer)
    first = sketched(x)
    assert torch.equal(first, sketched(x))
    optimizer.step()
    assert not torch.equal(first, sketched(x))
    with sketched.draw(Key(0, step=0)):
        assert torch.equal(first, sketched(x))
    handle.remove()
    optimizer.step()
    assert sketched.key == Key(0, step=1)


def test_draws_every_few_steps_or_forward_passes() -> None:
    x = inputs()
    steps = SketchedModule(network(), RandK(0.5), shift="zero", every=3)
    outputs = []
    for _ in range(6):
        outputs.append(steps(x))
        steps.advance()
    assert [torch.equal(outputs[0], y) for y in outputs] == [True] * 3 + [False] * 3
    assert [torch.equal(outputs[3], y) for y in outputs] == [False] * 3 + [True] * 3

    passes = SketchedModule(network(), RandK(0.5), shift="zero", resample="forward", every=2)
    outputs = [passes(x) for _ in range(4)]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[1], outputs[2])
    with passes.draw(Key(0, draw=1)):
        assert torch.equal(passes(x), outputs[2])
    passes.eval()(x)  # counts nothing
    assert passes.train().now == Key(0, draw=2)
    passes.advance()
    assert passes.now == Key(0, step=1)


def test_draws_are_nested_and_leave_the_weights_alone_when_something_fails() -> None:
    sketched, x = SketchedModule(network(), RandK(0.5), shift="zero"), inputs()
    before = bits(sketched)
    with sketched.draw(Key(1)):
        outer = sketched(x)
        with sketched.draw(Key(2)):
            assert not torch.equal(sketched(x), outer)
        assert torch.equal(sketched(x), outer)
        with pytest.raises(RuntimeError), sketched.draw(Key(2)):
            sketched(torch.zeros(5, 3, dtype=torch.float64))
        assert torch.equal(sketched(x), outer)
    assert same(bits(sketched), before)
    assert torch.equal(sketched.eval()(x), sketched.module(x))


class Tied(nn.Module):
    """Embedding and output share one tensor; a hidden layer is used twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(7, 4)
        self.hidden = nn.Linear(4, 4)
        self.output = nn.Linear(4, 7, bias=False)
        self.output.weight = self.embedding.weight
        self.double()

    def forward(self, index: Tensor) -> Tensor:
        return self.output(self.hidden(torch.tanh(self.hidden(self.embedding(index)))))


def test_tied_weights_have_one_draw_and_one_shift() -> None:
    index = torch.tensor([[0, 3, 6]])
    sketched = SketchedModule(Tied(), RandK(0.5), shift={"output.weight": torch.ones(7, 4)})
    assert list(sketched.shifts) == ["embedding.weight", "hidden.weight", "hidden.bias"]
    drawn = sketched.sample(sketched.key)
    plain = Tied()
    with torch.no_grad():
        for name, p in plain.named_parameters():
            v = 1.0 if name == "embedding.weight" else 0.0
            p.copy_(v + drawn[name][0].apply(p - v))
    assert torch.equal(sketched(index), plain(index))


class Squared(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.square()


def test_behind_a_parametrization_its_original_is_sketched() -> None:
    model, x = network(), inputs()
    parametrize.register_parametrization(model[0], "weight", Squared())
    sketched = SketchedModule(model, RandK(0.5), shift="zero", include="0.*")
    (name,) = [name for name in sketched.shifts if name.endswith("original")]
    assert name == "0.parametrizations.weight.original"
    drawn, plain = sketched.sample(sketched.key), network()
    with torch.no_grad():
        plain.get_parameter("0.weight").copy_(drawn[name][0].apply(model.get_parameter(name)).square())
        plain.get_parameter("0.bias").copy_(drawn["0.bias"][0].apply(model.get_parameter("0.bias")))
    assert torch.equal(sketched(x), plain(x))


def test_each_parameter_takes_the_first_law_that_matches() -> None:
    sketched = SketchedModule(network(), {"*.bias": Identity(), "2": RandK(0.5), nn.Linear: PermK(2)})
    laws = {family.name: family.law for family in sketched.families}
    assert laws == {"0.weight": PermK(2), "0.bias": Identity(), "2.weight": RandK(0.5), "2.bias": Identity()}
    some = SketchedModule(network(), {"2.*": RandK(0.5)}, exclude="*.bias")
    assert [family.name for family in some.families] == ["2.weight"]
    together = SketchedModule(network(), {"*.bias": RandK(3), nn.Linear: RandK(0.5)}, granularity="model")
    assert {family.name: family.size for family in together.families} == {"model:Linear": 42, "model:*.bias": 9}


def test_a_shift_may_be_a_state_dict_and_what_it_lacks_is_zero() -> None:
    other = network(seed=5)
    sketched = SketchedModule(network(), RandK(0.5), shift=other.state_dict(), include="*.weight")
    assert list(sketched.shifts) == ["0.weight", "2.weight"]
    assert torch.equal(sketched.get_buffer("shift0"), other.get_parameter("0.weight"))
    weight = other.get_parameter("0.weight").detach().float()
    partly = SketchedModule(network(), RandK(0.5), shift={"0.weight": weight})
    assert [v is None for v in partly.shifts.values()] == [False, True, True, True]
    assert partly.get_buffer("shift0").dtype == torch.float64
    assert partly.to(torch.float32).get_buffer("shift0").dtype == torch.float32


def test_frozen_parameters_are_left_out() -> None:
    model = network()
    model[0].requires_grad_(False)
    assert list(SketchedModule(model, RandK(0.5)).shifts) == ["2.weight", "2.bias"]


def frozen() -> nn.Module:
    model = network()
    model[0].weight.requires_grad_(False)
    return model


def whole_numbers() -> nn.Module:
    model = network()
    model.table = nn.Parameter(torch.arange(3), requires_grad=False)
    return model


BAD: dict[str, tuple[Callable[[], object], str]] = {
    "frozen": (lambda: SketchedModule(frozen(), RandK(0.5), include="0.weight"), r"'0.weight' is frozen, and only"),
    "frozen pattern": (lambda: SketchedModule(frozen(), {"0.weight": RandK(0.5)}), r"'0.weight' is frozen, and only"),
    "integers": (lambda: SketchedModule(whole_numbers(), RandK(1), include="table"), r"'table' has integers"),
    "no such parameter": (
        lambda: SketchedModule(network(), {"0.weights": RandK(0.5)}),
        r"sketch '0.weights' matches no parameter of Sequential; nearest are",
    ),
    "no laws": (lambda: SketchedModule(network(), {}), r"sketch is an empty mapping"),
    "nothing left": (lambda: SketchedModule(network(), RandK(0.5), exclude="*"), r"nothing of Sequential is left"),
    "K above d": (lambda: SketchedModule(network(), RandK(5)), r"'2.bias': RandK: keep=5 entries of 3"),
    "no such worker": (
        lambda: SketchedModule(network(), PermK(2), key=Key(0, worker=2)),
        r"'0.weight': PermK: worker 2 of 2",
    ),
    "unknown shift": (
        lambda: SketchedModule(network(), RandK(0.5), shift={"1.weight": torch.zeros(1)}),
        r"shift has '1.weight', which Sequential has not",
    ),
    "shape of a shift": (
        lambda: SketchedModule(network(), RandK(0.5), shift={"0.bias": torch.zeros(5)}),
        r"shift\['0.bias'\] must have shape \(6,\), got \(5,\)",
    ),
    "groups": (lambda: SketchedModule(network(), RandK(0.5), groups=[]), r"with granularity='units' only"),
    "every": (lambda: SketchedModule(network(), RandK(0.5), every=0), r"every must be at least 1, got 0"),
    "no mask": (
        lambda: SketchedModule(network(), RandomProjection(2), scaled=False),
        r"'0.weight' has no mask under RandomProjection, which is not diagonal; use scaled=True",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_refused_in_one_sentence(case: str) -> None:
    build, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        build()


WRONG_TYPES: dict[str, tuple[Callable[[], object], str]] = {
    "key": (lambda: SketchedModule(network(), RandK(0.5), key=3), r"key must be a Key, got 3; pass Key\(seed\)"),  # pyright: ignore[reportArgumentType]
    "draw": (
        lambda: SketchedModule(network(), RandK(0.5)).draw(3).__enter__(),  # pyright: ignore[reportArgumentType]
        r"draw takes a Key or what sample\(key\) gave, got 3",
    ),
    "shift": (
        lambda: SketchedModule(network(), RandK(0.5), shift={"0.bias": 1.0}),  # pyright: ignore[reportArgumentType]
        r"shift\['0.bias'\] must be a tensor, got 1.0",
    ),
    "a spec as group": (
        lambda: SketchedModule(
            network(),
            RandK(0.5),
            granularity="units",
            groups=[GroupSpec(6, [UnitSlices("2.weight", 1, "out")])],  # pyright: ignore[reportArgumentType]
        ),
        r"groups must be couplings, got GroupSpec; of a GroupSpec pass its coupling\(model\)",
    ),
}


@pytest.mark.parametrize("case", WRONG_TYPES)
def test_arguments_of_another_type_are_refused(case: str) -> None:
    build, message = WRONG_TYPES[case]
    with pytest.raises(TypeError, match=message):
        build()


def test_why_no_units_are_left_is_said() -> None:
    with pytest.raises(
        ValueError, match=r"no units of Sequential can be sketched; the units of '0.weight': '2.weight' is"
    ):
        SketchedModule(network(), RandK(0.5), granularity="units", example_inputs=inputs(), exclude="2")


def test_weights_without_a_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'0.weight' has no shape yet; run the module once"):
        SketchedModule(nn.Sequential(nn.LazyLinear(3)), RandK(0.5))


def test_function_transforms_see_the_same_gradients() -> None:
    # Generators are random to vmap, hashes are not.
    sketched, x = SketchedModule(network(), RandK(0.5), key=Key(0, backend="hash")), inputs()

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(sketched, parameters, (x,)).sum()

    parameters = {name: p.detach() for name, p in sketched.named_parameters()}
    found = grad(loss)(parameters, x)
    each = vmap(grad(loss), (None, 0))(parameters, x)
    sketched(x).sum().backward()
    for name, p in sketched.named_parameters():
        assert p.grad is not None
        assert_close(found[name], p.grad, rtol=0, atol=1e-14)
        assert_close(each[name].sum(0), p.grad, rtol=0, atol=1e-13)


def test_sketches_inside_of_each_other() -> None:
    both, x = SketchedModule(SketchedModule(network(), Identity()), RandK(0.5)), inputs()
    assert torch.equal(both(x), SketchedModule(network(), RandK(0.5))(x))


def test_what_is_no_law_is_refused() -> None:
    with pytest.raises(TypeError, match=r"sketch\['0'\] must be a law such as RandK"):
        SketchedModule(network(), {"0": 0.5})  # pyright: ignore[reportArgumentType]


def test_weights_that_change_under_a_standing_draw_warn_once() -> None:
    sketched, x = SketchedModule(network(), RandK(0.5)), inputs()
    optimizer = torch.optim.SGD(sketched.parameters(), lr=0.1)
    sketched(x).sum().backward()
    optimizer.step()
    with pytest.warns(UserWarning, match=r"all steps would train the same mask; call follow\(optimizer\)"):
        sketched(x)
    optimizer.step()
    sketched(x)


# -- unscaled ----------------------------------------------------------------------------------------------------------

LAWS: list[Sketch] = [RandK(0.5), Bernoulli(0.3), PermK(4)]


@pytest.mark.parametrize("law", LAWS, ids=["RandK", "Bernoulli", "PermK"])
@pytest.mark.parametrize("shift", ["zero", "other"])
def test_unscaled_weights_are_those_of_the_model_or_the_shift(law: Sketch, shift: str) -> None:
    v = network(seed=5).state_dict()
    sketched = SketchedModule(network(), law, shift="zero" if shift == "zero" else v, scaled=False)
    drawn = sketched.sample(Key(4))
    for name, y in sketched.weights(drawn).items():
        kept = drawn[name][0].apply(torch.ones_like(y)) != 0
        x = sketched.module.get_parameter(name)
        assert torch.equal(y, torch.where(kept, x, torch.zeros_like(x) if shift == "zero" else v[name]))


def test_the_dense_model_of_unscaled_weights() -> None:
    v, x = network(seed=5), inputs()
    sketched = SketchedModule(network(), {"0.*": PermK(4), "2.*": RandK(0.5)}, shift=v.state_dict(), scaled=False)
    dense = network()
    with torch.no_grad():
        for name, p in dense.named_parameters():
            keep = 0.25 if name.startswith("0") else 2 / 3 if name == "2.bias" else 0.5
            p.copy_(v.get_parameter(name) + keep * (p - v.get_parameter(name)))
    assert_close(sketched.eval()(x), dense(x), rtol=0, atol=1e-14)
    assert torch.equal(sketched.dense()(x), sketched(x))
    assert type(sketched.dense()) is nn.Sequential
    for name, z in sketched.dense_weights().items():
        assert_close(z, dense.get_parameter(name).detach(), rtol=0, atol=1e-15)


def test_conversion_keeps_what_draws_compute() -> None:
    v, x = network(seed=5).state_dict(), inputs()
    sketched = SketchedModule(network(), {"0.*": PermK(4), "2.*": Bernoulli(0.3)}, shift=v, scaled=False)
    start = bits(sketched.module)
    with sketched.draw(Key(8)):
        masked = sketched(x)
        scaled = sketched.to_scaled_()(x)
    assert_close(scaled, masked, rtol=0, atol=1e-13)
    assert sketched.scaled
    assert torch.equal(sketched.eval()(x), sketched.module(x))
    sketched.to_unscaled_()
    assert not sketched.scaled
    for a, b in zip(bits(sketched.module), start, strict=True):
        assert_close(a, b, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "law", [Mixture((Identity(), RandK(0.5)), (0.5, 0.5)), PermK(2, (0.25, 0.75))], ids=["mixture", "shares"]
)
def test_scales_that_differ_between_draws_cannot_be_converted(law: Sketch) -> None:
    for scaled in (True, False):
        sketched = SketchedModule(network(), law, shift="zero", scaled=scaled)
        before = bits(sketched)
        with pytest.raises(ValueError, match=r"'0.weight' has other scales in other draws"):
            sketched.to_unscaled_() if scaled else sketched.to_scaled_()
        assert same(bits(sketched), before) and sketched.scaled == scaled


def test_without_a_mask_there_are_no_unscaled_units() -> None:
    sketched = SketchedModule(network(), {"0.weight": RandK(0.5), "2.weight": RandomProjection(2)})
    before = bits(sketched)
    with pytest.raises(TypeError, match=r"'2.weight': RandomProjection is no diagonal sketch"):
        sketched.to_unscaled_()
    assert same(bits(sketched), before) and sketched.scaled


@pytest.mark.parametrize("scaled", [True, False], ids=["scaled", "unscaled"])
def test_recentring_keeps_the_dense_model_and_moves_the_shift_to_it(scaled: bool) -> None:
    sketched, x = SketchedModule(network(), RandK(0.5), shift="zero", scaled=scaled), inputs()
    dense = sketched.eval()(x)
    sketched.recenter_()
    assert torch.equal(sketched(x), dense)
    for name, v in sketched.shifts.items():
        assert v is not None and torch.equal(v, sketched.module.get_parameter(name))
    with sketched.draw(Key(9)):
        assert torch.equal(sketched(x), dense)


# -- checkpoints -------------------------------------------------------------------------------------------------------


def stored(module: nn.Module) -> dict[str, Tensor]:
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("backend", ["hash", "torch"])
def test_a_loaded_module_goes_on_with_the_same_masks(backend: str) -> None:
    key = Key(6, backend="hash" if backend == "hash" else "torch")
    sketched = SketchedModule(network(), RandK(0.5), shift="zero", resample="forward", key=key)
    for _ in range(3):
        sketched.advance()
    sketched(inputs())
    state = stored(sketched)
    again = SketchedModule(network(seed=9), RandK(0.5), shift="init", resample="forward", key=key)
    again.load_state_dict(state)
    assert again.now == key.at(step=3, draw=1)
    assert list(again.shifts.values()) == [None] * 4
    assert torch.equal(again(inputs()), sketched(inputs()))


def test_a_shift_that_was_recentred_is_loaded_into_one_of_zeros() -> None:
    sketched = SketchedModule(network(), RandK(0.5), shift="zero")
    sketched.recenter_()
    again = SketchedModule(network(seed=9), RandK(0.5), shift="zero")
    again.load_state_dict(stored(sketched))
    assert same(bits(again), bits(sketched))


OTHERS: dict[str, tuple[Callable[[], SketchedModule], str]] = {
    "scaled": (lambda: SketchedModule(network(), PermK(2), scaled=False), r"scaled=True and this module scaled=False"),
    "seed": (lambda: SketchedModule(network(), PermK(2), key=Key(1)), r"seed=0 and .* seed=1, .* pass key=Key\(0\)"),
    "backend": (
        lambda: SketchedModule(network(), PermK(2), key=Key(0, backend="hash")),
        r"backend='torch' and this module backend='hash'",
    ),
    "what is sketched": (
        lambda: SketchedModule(network(), PermK(2), exclude="0.weight"),
        r"sketched='0.weight, .*', .* other draws; build it with the same granularity",
    ),
    "workers": (lambda: SketchedModule(network(), PermK(3)), r"workers=2 and .* workers=3, .* go on with 2 workers"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_state_of_other_draws_is_refused_and_nothing_changes(case: str) -> None:
    build, message = OTHERS[case]
    state = stored(SketchedModule(network(seed=3), PermK(2)))
    other = build()
    before = bits(other)
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(state)
    assert same(bits(other), before)


def test_random_numbers_of_another_torch_warn() -> None:
    sketched = SketchedModule(network(), RandK(0.5))
    state = sketched.state_dict()
    state["_extra_state"]["torch"] = "1.0"
    with pytest.warns(UserWarning, match="drawn by torch 1.0"):
        sketched.load_state_dict(state)
