"""The optimizer that holds the factors, against the factors in the model and against its definition."""

import copy
import gc
import weakref
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openwork.factorizations import Sampled, Split, UnitGate, factorize, product
from openwork.optim import FactorizedSGD
from openwork.shrinking import shrink
from openwork.testing.optimizers import CASES, _expect_same

SHAPES = ((5, 4), (3, 4, 2, 2), (3,))


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def weights(seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def loss(params: list[Tensor], time: int) -> Tensor:
    """A smooth function that couples all weights and changes with time."""
    total = torch.zeros(())
    for param in params:
        target = torch.linspace(-1, 1, param.numel()).view(param.shape) * (1 + 0.1 * time)
        total = total + (param - target).square().sum() / 2
    return total + sum(p.square().sum() for p in params).square() / 100  # pyright: ignore[reportAttributeAccessIssue]


def in_the_model(depth: int, lam: float, steps: int, **options) -> list[Tensor]:
    """Transcription: factors as leaves, L2 on them, torch's SGD, autograd of the product."""
    generator = torch.Generator().manual_seed(7)
    params = weights()
    factors = [[nn.Parameter(f) for f in Sampled().factors(p, depth, generator)] if p.ndim > 1 else [p] for p in params]
    groups = [
        {"params": [f for fs in factors if len(fs) > 1 for f in fs], "weight_decay": 2 * lam / depth},
        {"params": [f for fs in factors if len(fs) == 1 for f in fs]},
    ]
    optimizer = torch.optim.SGD(groups, **options)

    def product(fs: list[nn.Parameter]) -> Tensor:
        result = fs[0] * 1.0
        for f in fs[1:]:
            result = result * f
        return result

    for time in range(steps):
        optimizer.zero_grad()
        for part in range(2):
            (loss([product(fs) for fs in factors], time + part) / 2).backward()
        optimizer.step()
    return [product(fs).detach() for fs in factors]


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "options", [{"momentum": 0.0}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}], ids=str
)
@pytest.mark.parametrize("foreach", [None, False])
def test_is_sgd_on_the_factors(depth: int, options: dict, foreach: bool | None) -> None:
    params = weights()
    optimizer = FactorizedSGD(
        params, lr=0.01, depth=depth, lam=0.05, generator=torch.Generator().manual_seed(7), foreach=foreach, **options
    )
    for time in range(100):
        optimizer.zero_grad()
        for part in range(2):
            (loss(list(params), time + part) / 2).backward()
        optimizer.step()
    wanted = in_the_model(depth, 0.05, 100, lr=0.01, **options)
    for got, want in zip(params, wanted, strict=True):
        torch.testing.assert_close(got.detach(), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_tied_is_a_balanced_start(depth: int, momentum: float) -> None:
    """Also the same as powerprop at learning rate lr / D and weight decay 2 lam."""
    one, other = weights(), weights()
    options = {"lr": 0.01, "depth": depth, "lam": 0.05, "momentum": momentum}
    optimizers = (
        FactorizedSGD(one, init=Split(imbalance=0.0), **options),
        FactorizedSGD(other, init=Split(imbalance=0.0), tied=True, **options),
    )
    roots = [nn.Parameter(p.detach().sign() * p.detach().abs() ** (1 / depth)) for p in weights()[:2]]
    free = weights()[2]
    power = torch.optim.SGD(
        [
            {"params": roots, "lr": 0.01 / depth, "weight_decay": 2 * 0.05},
            {"params": [free], "lr": 0.01},
        ],
        momentum=momentum,
    )
    for time in range(60):
        for optimizer, params in zip(optimizers, (one, other), strict=True):
            optimizer.zero_grad()
            loss(list(params), time).backward()
            optimizer.step()
        power.zero_grad()
        loss([r * r.abs() ** (depth - 1) for r in roots] + [free], time).backward()
        power.step()
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-12, atol=1e-12)
    same = [(r * r.abs() ** (depth - 1)).detach() for r in roots]
    for a, b, start in zip(other[:2], same, weights()[:2], strict=True):
        # Powerprop and balanced factors part where an even power would change its sign.
        stays = a.detach().sign() == start.detach().sign()
        assert stays.double().mean() > 0.5
        if bool((b.sign() == start.detach().sign()).all()) or depth % 2:
            torch.testing.assert_close(a.detach(), b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("init", [Sampled(), UnitGate(), Split()])
def test_the_weight_is_the_product_of_its_factors_from_the_beginning(init) -> None:
    params = weights()
    before = [p.detach().clone() for p in params]
    optimizer = FactorizedSGD(params, depth=3, init=init)
    for param, factors in optimizer.factors().items():
        assert torch.equal(param.detach(), factors[0] * factors[1] * factors[2])
    assert torch.equal(params[2].detach(), before[2])
    if not isinstance(init, Sampled):
        torch.testing.assert_close([p.detach() for p in params], before, rtol=1e-14, atol=0)


def test_a_killed_run_goes_on_to_the_same_bits() -> None:
    params = weights()
    optimizer = FactorizedSGD(params, lr=0.02, lam=0.01)
    for time in range(3):
        optimizer.zero_grad()
        loss(list(params), time).backward()
        optimizer.step()
    saved = copy.deepcopy((optimizer.state_dict(), [p.detach() for p in params]))
    others = weights(1)
    other = FactorizedSGD(others, lr=0.5, lam=0.01)
    with torch.no_grad():
        for param, weight in zip(others, saved[1], strict=True):
            param.copy_(weight)
    other.load_state_dict(saved[0])
    for time in range(3, 6):
        for one, ps in ((optimizer, params), (other, others)):
            one.zero_grad()
            loss(list(ps), time).backward()
            one.step()
    assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))


def test_memory_is_that_of_the_table() -> None:
    for depth, bytes_each in ((2, 16), (3, 24), (4, 32)):
        weight = nn.Parameter(torch.randn(10, 10, dtype=torch.float32))
        weight.grad = torch.zeros_like(weight)
        optimizer = FactorizedSGD([weight], depth=depth)
        optimizer.step()
        state = sum(t.numel() * t.element_size() for t in optimizer.state[weight].values())
        assert state == bytes_each * 100
    weight = nn.Parameter(torch.randn(10, 10, dtype=torch.float32))
    weight.grad = torch.zeros_like(weight)
    optimizer = FactorizedSGD([weight], tied=True)
    optimizer.step()
    assert sum(t.numel() * t.element_size() for t in optimizer.state[weight].values()) == 8 * 100


# -- torch's own cases ----------------------------------------------------------------------------------------------

# Those for any optimizer; the factors here are made at once, and whole groups have no meaning.
LEFT_OUT = (
    "_lr_may_be_zero",
    "_parameters_without_gradients_wait",
    "_some_groups_vanish",
    "_no_strength_kills_nothing",
    "_great_strength_kills_all_for_good",
)
GENERIC = [case for case in CASES if case.__name__ not in LEFT_OUT]


@pytest.mark.parametrize("case", GENERIC, ids=lambda case: case.__name__[1:])
@pytest.mark.parametrize("tied", [False, True])
def test_as_any_optimizer(case, tied: bool) -> None:
    if tied and case.__name__ in ("_hooks_run_around_a_step", "_structured_weights_come_and_go"):
        pytest.skip("a root is not to the bit the weight")
    torch.set_default_dtype(torch.float32)

    def factory(groups: list[dict[str, Any]]) -> FactorizedSGD:
        """Its penalties as strengths; and a start that is the weight to the bit."""
        found: list[dict[str, Any]] = []
        for group in groups:
            penalty = group.get("penalty")
            options = {"depth": 1} if penalty is None else {"depth": 3, "lam": penalty.lam}
            found.append({key: value for key, value in group.items() if key != "penalty"} | options)
        return FactorizedSGD(found, lr=0.02, init=UnitGate(), tied=tied)

    case(factory)


def train(optimizer: FactorizedSGD, params: list[nn.Parameter], times: Iterable[int] = range(5)) -> None:
    for time in times:
        optimizer.zero_grad(set_to_none=time % 2 == 0)
        loss(list(params), time).backward()
        optimizer.step()


def test_a_learning_rate_of_zero_moves_nothing() -> None:
    params = weights()
    optimizer = FactorizedSGD(params, lr=0.0, lam=0.1, init=UnitGate())
    train(optimizer, params)
    assert all(torch.equal(a.detach(), b.detach()) for a, b in zip(params, weights(), strict=True))
    assert optimizer.budget == 0


def test_parameters_without_gradients_wait() -> None:
    params, waiting = weights(), nn.Parameter(torch.ones(5, 4))
    optimizer = FactorizedSGD([*params, waiting], lr=0.01, lam=0.1, init=UnitGate())
    train(optimizer, params)
    assert torch.equal(waiting.detach(), torch.ones(5, 4))
    alone = weights()
    train(FactorizedSGD(alone, lr=0.01, lam=0.1, init=UnitGate()), alone)
    assert all(torch.equal(a, b) for a, b in zip(params, alone, strict=True))
    train(optimizer, [*params, waiting], [5])
    assert not torch.equal(waiting.detach(), torch.ones(5, 4))


@pytest.mark.slow
# torch's own compiler still uses what torch deprecates.
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_compiled_it_takes_the_same_steps() -> None:
    for tied in (False, True):
        found: list[list[nn.Parameter]] = []
        for compile in (False, True):
            params = weights()
            optimizer = FactorizedSGD(
                params, lr=0.01, depth=4, lam=0.05, nesterov=True, init=Split(0.0), tied=tied, compile=compile,
                generator=torch.Generator().manual_seed(0),
            )  # fmt: skip
            train(optimizer, params)
            with optimizer.structured():
                pass
            before = [p.detach().clone() for p in params]
            for p in params:
                p.grad = torch.full_like(p, torch.nan)
            optimizer.step()
            assert all(map(torch.equal, params, before))
            train(optimizer, params, range(5, 7))
            found.append(params)
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


# -- factors --------------------------------------------------------------------------------------------------------


def test_what_is_not_a_matrix_is_trained_by_plain_sgd() -> None:
    params = weights()
    optimizer = FactorizedSGD(params, lr=0.05, momentum=0.9, nesterov=True, lam=0.1, weight_decay=0.01)
    assert [(g["depth"], len(g["params"]), g["weight_decay"]) for g in optimizer.param_groups] == [
        (3, 2, 0.0),
        (1, 1, 0.01),
    ]
    same = nn.Parameter(weights()[2].detach())
    other = torch.optim.SGD([same], lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)
    for time in range(10):
        params[2].grad = params[2].detach() * time
        same.grad = same.detach() * time
        optimizer.step()
        other.step()
    torch.testing.assert_close(params[2], same, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("nesterov", [False, True])
def test_tying_balanced_factors_changes_nothing(depth: int, nesterov: bool) -> None:
    params, others = weights(), weights()
    options = {"lr": 0.01, "depth": depth, "lam": 0.05, "nesterov": nesterov, "init": Split(0.0)}
    optimizer, other = FactorizedSGD(params, **options), FactorizedSGD(others, **options)
    train(optimizer, params, range(20))
    train(other, others, range(20))
    before = [p.detach().clone() for p in params]
    optimizer.tie_()
    for a, b in zip(params, before, strict=True):
        torch.testing.assert_close(a.detach(), b, rtol=1e-14, atol=0)
    assert {name for name in optimizer.state[params[0]]} == {"factor0", "momentum0"}
    train(optimizer, params, range(20, 60))
    train(other, others, range(20, 60))
    for a, b in zip(params, others, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    # It is resumed as what it is now.
    twins = copy.deepcopy(params)
    twin = FactorizedSGD(twins, **options, tied=True)
    twin.load_state_dict(optimizer.state_dict())
    train(optimizer, params, range(60, 65))
    train(twin, twins, range(60, 65))
    assert all(torch.equal(a, b) for a, b in zip(params, twins, strict=True))


def test_tying_waits_for_balance() -> None:
    params = weights()
    optimizer = FactorizedSGD(params, lr=0.05, depth=3, lam=0.5, init=Split(0.5), momentum=0.0)
    train(optimizer, params, [0])
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(
        ValueError, match=r"tie_: the factors of parameter 0 .* are not balanced \(relative misalignmen"
    ):
        optimizer.tie_()
    _expect_same(optimizer.state_dict(), before)
    signs = [p.sign() for p in params[:2]]
    for _ in range(1000):
        # Weights that only decay do not become balanced in proportion: these are held.
        for p, sign in zip(params[:2], signs, strict=True):
            p.grad = p.detach() - 3 * sign
        optimizer.step()
    optimizer.tie_()


def test_tied_weights_of_even_depth_keep_their_sign_and_others_cross() -> None:
    for depth, crosses in ((2, False), (3, True), (4, False)):
        weight = nn.Parameter(torch.full((2, 3), 0.5))
        optimizer = FactorizedSGD([weight], lr=0.4, depth=depth, init=Split(0.0), tied=True, momentum=0.9)
        signs: set[float] = set()
        for _ in range(60):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
            signs |= set(weight.sign().flatten().tolist())
        assert (-1.0 in signs) == crosses


def test_weights_that_are_no_numbers_are_not_taken_for_written_by_others() -> None:
    params = weights()
    optimizer = FactorizedSGD(params, lr=0.01)
    with torch.no_grad():
        optimizer.factors()[params[0]][0][0] = float("nan")
        params[0].copy_(product(*optimizer.factors()[params[0]]))
    loss(list(params), 0).backward()
    optimizer.step()
    assert optimizer.skipped == 1


def test_parameters_that_are_gone_are_let_go() -> None:
    first, last = nn.Linear(4, 6), nn.Linear(6, 2)
    model: nn.Module = nn.Sequential(first, nn.Tanh(), last)
    optimizer = FactorizedSGD(model.parameters(), lr=0.01)
    with torch.no_grad():
        first.weight[0] = first.bias[0] = last.weight[:, 0] = 0
    optimizer.resplit()
    old = weakref.ref(first.weight)
    del first, last
    model = shrink(model, torch.ones(2, 4), optimizer=optimizer).model
    gc.collect()
    assert old() is None


def test_weights_that_something_else_wrote_are_noticed() -> None:
    params = weights()
    optimizer = FactorizedSGD([{"params": [params[0]]}, {"params": params[1:]}], lr=0.01, lam=0.01)
    train(optimizer, params)
    with torch.no_grad():
        # The same numbers are fine.
        params[1].copy_(params[1].clone())
    train(optimizer, params)
    with torch.no_grad():
        params[1][0, 0] += 1e-6
    saved = copy.deepcopy((optimizer.state_dict(), params))
    loss(list(params), 0).backward()
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"parameter 0 of shape \(3, 4, 2, 2\) was written by something else .*; call"
        ):
            optimizer.step()
    # Nothing has moved, in the group before neither.
    _expect_same((optimizer.state_dict(), params), saved)
    optimizer.resplit()
    torch.testing.assert_close(params[1], saved[1][1])
    assert not any(optimizer.state[params[1]][f"momentum{i}"].any() for i in range(3))
    train(optimizer, params)


def test_only_some_are_split_again() -> None:
    params = weights()
    optimizer = FactorizedSGD(params, lr=0.01)
    train(optimizer, params)
    before = copy.deepcopy(optimizer.state[params[1]])
    optimizer.resplit(UnitGate(), [params[0]])
    assert torch.equal(optimizer.factors()[params[0]][1], torch.ones(5, 4))
    _expect_same(optimizer.state[params[1]], before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tied", [False, True])
def test_small_weights_in_half_precision_are_not_lost(dtype: torch.dtype, tied: bool) -> None:
    """A product below the smallest half precision number is zero in the model, and goes on in the master."""
    torch.set_default_dtype(torch.float32)
    weight = nn.Parameter(torch.tensor([[1e-3, -1e-3]], dtype=dtype))
    optimizer = FactorizedSGD([weight], lr=0.5, depth=2, lam=1.0, init=Split(0.0), tied=tied, momentum=0.0)
    start = weight.detach().float()
    for _ in range(13):
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
    master = optimizer.state[weight]["master"]
    torch.testing.assert_close(master, start * 0.25**13, rtol=1e-5, atol=0)
    assert torch.equal(weight.detach(), master.to(dtype))
    weight.grad = torch.full_like(weight, 0.0)
    with optimizer.structured():
        assert not weight.any()
    optimizer.step()
    torch.testing.assert_close(optimizer.state[weight]["master"], start * 0.25**14, rtol=1e-5, atol=0)


# -- zeros ----------------------------------------------------------------------------------------------------------


def decayed() -> tuple[list[nn.Parameter], FactorizedSGD]:
    """Weights of which every other column is tiny."""
    params = weights()
    with torch.no_grad():
        params[0][:, ::2] *= 1e-9
        params[0][0, 0] = 1e-13
    return params, FactorizedSGD(params, lr=0.01, lam=0.01, init=Split(0.0))


def test_structured_weights_have_zeros_and_go_again() -> None:
    params, optimizer = decayed()
    optimizer.init_state()
    saved = copy.deepcopy((optimizer.state_dict(), params))
    with optimizer.structured():
        assert not params[0][:, ::2].any()
        assert bool(params[0][:, 1::2].all())
        assert bool(params[1].all())
    _expect_same((optimizer.state_dict(), params), saved)
    (kept, all_kept) = (structure.kept for structure in optimizer.structures().values())
    assert torch.equal(kept, torch.tensor([False, True, False, True]).expand(5, 4))
    assert bool(all_kept.all())
    assert (optimizer.read_out().alive, optimizer.read_out().total) == (10 + 48, 20 + 48)
    train(optimizer, params, [0])


def test_settled_weights_are_zero_for_good() -> None:
    params, optimizer = decayed()
    optimizer.snap_()
    assert int((params[0] == 0).sum()) == 1
    optimizer.snap_(1e-30)
    assert int((params[0] == 0).sum()) == 1
    optimizer.settle_()
    train(optimizer, params, range(5))
    assert torch.equal(params[0] == 0, torch.tensor([True, False, True, False]).expand(5, 4))
    for tensor in optimizer.state[params[0]].values():
        assert not tensor[:, ::2].any()
        assert bool(tensor[:, 1::2].any())
    for value in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"snap_: threshold must be at least 0 and finite, got"):
            optimizer.snap_(value)


def test_collapse_reports_what_it_did() -> None:
    first = nn.Linear(4, 6)
    model = nn.Sequential(first, nn.Tanh(), nn.Linear(6, 2))
    with torch.no_grad():
        first.weight[:, 0] *= 1e-9
    optimizer = FactorizedSGD(model.parameters(), init=UnitGate(), threshold=1e-6)
    report = optimizer.collapse_(model, torch.randn(3, 4))
    assert report.nonzero == {"0.weight": 18, "2.weight": 12}
    assert report.total == {"0.weight": 24, "2.weight": 12}
    assert report.threshold == 1e-6
    assert report.change is not None
    assert 0 < report.change < 1e-8
    assert not first.weight[:, 0].any()
    with pytest.raises(
        ValueError, match=r"collapse_: parameter 0 .* is not in this Linear; pass the model that is trained"
    ):
        optimizer.collapse_(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="collapse_: no parameter of this optimizer is factorized"):
        FactorizedSGD([nn.Parameter(torch.ones(3))]).collapse_(model)


# -- wrong input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": -0.1}, "lr must be at least 0, got -0.1"),
        ({"lr": float("nan")}, "lr must be at least 0, got nan"),
        ({"lr": float("inf")}, "lr must be at least 0 and finite, got inf"),
        ({"depth": 1}, "depth must be an integer of at least 2, got 1; for a dense network use torch.optim.SGD"),
        ({"depth": True}, "depth must be an integer of at least 2, got True"),
        ({"depth": 2.5}, "depth must be an integer of at least 2, got 2.5"),
        ({"lam": -1.0}, "lam must be at least 0 and finite, got -1"),
        ({"lam": float("nan")}, "lam must be at least 0 and finite, got nan"),
        ({"lam": float("inf")}, "lam must be at least 0 and finite, got inf"),
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1, got 1"),
        ({"momentum": -0.1}, "momentum must be at least 0 and below 1, got -0.1"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov needs a momentum above 0"),
        ({"threshold": -1e-3}, "threshold must be at least 0 and finite, got -0.001"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0, got -1"),
        ({"lam": None}, "lam must be a number, got None"),
        ({"momentum": "much"}, "momentum must be a number, got 'much'"),
    ],
    ids=str,
)
def test_options_out_of_range(options: dict[str, Any], words: str) -> None:
    params = weights()
    with pytest.raises(ValueError) as caught:
        FactorizedSGD(params, **options)
    assert str(caught.value).startswith(f"FactorizedSGD: {words}")
    assert all(torch.equal(a, b) for a, b in zip(params, weights(), strict=True))


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ({"params": [torch.ones(2, 2)], "depth": 0}, "depth must be a positive integer, got 0; 1 leaves a"),
        ({"params": [torch.ones(2, 2)], "depth": True}, "depth must be a positive integer, got True"),
        ({"params": [torch.ones(2, 2)], "depth": 3, "weight_decay": 0.1}, "a group of depth 3 has weight_decay 0.1"),
        ({"params": [torch.ones(2, 2)], "lam": -1.0}, "lam must be at least 0 and finite, got -1"),
        ({"params": [torch.ones(2, 2)], "init": "sampled"}, "init must be an initialization such as Sampled()"),
        ({"params": [nn.Parameter(torch.ones(2, 2), requires_grad=False)]}, "parameter 0 of shape (2, 2) is frozen"),
        ({"params": [torch.ones(2, 2, dtype=torch.complex64)]}, "parameter 0 of shape (2, 2) is complex"),
        ({"params": [("body.w", torch.ones(2, 2, dtype=torch.int64))]}, "parameter 'body.w' is of type torch.int64"),
        ({"params": [torch.ones(2, 2)], "depth": 3}, "parameter 0 of shape (2, 2) is frozen and cannot be factorized"),
    ],
    ids=str,
)  # fmt: skip
def test_bad_groups_change_nothing(group: dict[str, Any], words: str) -> None:
    good = nn.Parameter(torch.ones(2, 3))
    state = torch.get_rng_state()
    named = isinstance(group["params"][0], tuple)
    first = [("good", good)] if named else [good]
    if "frozen" not in words and not named:
        group["params"][0].requires_grad_()
    with pytest.raises((ValueError, TypeError)) as caught:
        FactorizedSGD([{"params": first}, group])
    assert str(caught.value).startswith(f"FactorizedSGD: {words}")
    # The weights of the group before are as they were, too.
    assert torch.equal(good.detach(), torch.ones(2, 3))
    optimizer = FactorizedSGD(first, init=UnitGate())
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises((ValueError, TypeError)):
        optimizer.add_param_group(group)
    _expect_same(optimizer.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_has_no_shape_or_shares_memory_is_refused() -> None:
    with pytest.raises(
        ValueError, match="FactorizedSGD: parameter 1 has no shape yet; call the model on one batch first"
    ):
        FactorizedSGD([nn.Parameter(torch.ones(2, 2)), nn.LazyLinear(3).weight])
    whole = torch.ones(6, 4)
    with pytest.raises(
        ValueError, match=r"parameter 1 of shape \(4, 4\) shares memory with parameter 0 of shape \(4, 4"
    ):
        FactorizedSGD([nn.Parameter(whole[:4]), nn.Parameter(whole[2:])])
    assert torch.equal(whole, torch.ones(6, 4))
    # Side by side in one storage is fine.
    FactorizedSGD([nn.Parameter(whole[:3]), nn.Parameter(whole[3:])])


def test_states_of_others_are_refused() -> None:
    params = weights()
    optimizer = FactorizedSGD(params, depth=3)
    train(optimizer, params)
    before = copy.deepcopy((optimizer.state_dict(), params))
    for options, words in (
        ({"depth": 2}, "has depth 2, and this optimizer has 3"),
        ({"tied": True}, "has tied True, and"),
    ):
        other = FactorizedSGD(weights(), **options)  # pyright: ignore[reportArgumentType]
        with pytest.raises(ValueError, match=f"the state to load {words}.*; build it as it was, or call resplit"):
            optimizer.load_state_dict(other.state_dict())
    shorter = {**before[0], "state": {}}
    with pytest.raises(ValueError, match="the state to load has no factors for parameter 0"):
        optimizer.load_state_dict(shorter)
    another = FactorizedSGD([nn.Parameter(torch.ones(9, 9)), *weights()[1:]])
    with pytest.raises(
        ValueError, match=r"the state to load has shape \(9, 9\) as 'factor0' for a parameter of shape \(5"
    ):
        optimizer.load_state_dict(another.state_dict())
    _expect_same((optimizer.state_dict(), params), before)


def test_a_state_brings_the_weights_with_it() -> None:
    """In whatever order the model and the optimizer are loaded: building an optimizer draws new weights."""
    for tied in (False, True):
        for depth in (2, 3):
            params, others = weights(), weights(1)
            optimizer = FactorizedSGD(params, depth=depth, tied=tied)
            train(optimizer, params)
            with torch.no_grad():
                for a, b in zip(others, params, strict=True):
                    a.copy_(b)
            other = FactorizedSGD(others, depth=depth, tied=tied)
            assert not torch.equal(others[0], params[0])
            other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            train(optimizer, params, range(5, 8))
            train(other, others, range(5, 8))
            assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))


@pytest.mark.parametrize("depth", [2, 3])
def test_diagnostics_are_those_of_the_model(depth: int) -> None:
    """The same factors in the optimizer and in the model give the same numbers."""
    network = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    twin = copy.deepcopy(network)
    handle = factorize(twin, depth, 0.1, generator=torch.Generator().manual_seed(0))
    optimizer = FactorizedSGD(
        network.named_parameters(), depth=depth, lam=0.1, generator=torch.Generator().manual_seed(0)
    )
    one, other = optimizer.diagnostics(), handle.diagnostics()
    assert list(one.layers) == [f"parameter {name!r}" for name in other.layers]
    assert one.relative_misalignment == pytest.approx(other.relative_misalignment, rel=1e-12)
    assert one.mean_penalty == pytest.approx(other.mean_penalty, rel=1e-12)
    assert one.relative_misalignment > 0
