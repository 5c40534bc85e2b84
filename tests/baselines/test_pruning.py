"""Masks hold under any optimizer, and a pruning goes on from its state."""

from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import LBFGS, SGD, Adadelta, Adagrad, AdamW, NAdam, Optimizer, RMSprop

from openwork.baselines import (
    ACDC,
    SET,
    SNIP,
    Baseline,
    Dense,
    GradualMagnitudePruning,
    LotteryTicket,
    MagnitudePruning,
    Pruning,
    RandomPruning,
    RigL,
    Subgradient,
    SynFlow,
)
from openwork.penalties import L1
from openwork.testing import check_baseline
from tests.baselines.loop import assert_zeros, batch, network, sgd, started, step

STEPS, PERIOD = 40, 8
METHODS: dict[str, Baseline] = {
    "dense": Dense(),
    "magnitude": MagnitudePruning(0.25),
    "finetuned": MagnitudePruning(0.25, scope="layerwise", finetune=0.25),
    "gradual": GradualMagnitudePruning(0.25, every=4),
    "random": RandomPruning(0.25),
    "snip": SNIP(0.25),
    "synflow": SynFlow(0.25, iterations=10),
    "set": SET(0.25),
    "rigl": RigL(0.25, every=5),
    "acdc": ACDC(0.25),
    "lottery": LotteryTicket(0.25, rewind=3),
    "subgradient": Subgradient(L1(1e-3), density=0.25),
}
OPTIMIZERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "sgd": lambda m: SGD(m.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adamw": lambda m: AdamW(m.parameters(), lr=0.01, weight_decay=0.1, amsgrad=True),
    "rmsprop": lambda m: RMSprop(m.parameters(), lr=0.005, momentum=0.9, centered=True),
    "nadam": lambda m: NAdam(m.parameters(), lr=0.01),
    "adagrad": lambda m: Adagrad(m.parameters(), lr=0.05),
    "adadelta": lambda m: Adadelta(m.parameters()),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", METHODS)
def test_masked_entries_are_zero_after_every_step(method: str, optimizer: str) -> None:
    pruning = started(METHODS[method], STEPS, PERIOD, OPTIMIZERS[optimizer])
    for _ in range(STEPS):
        step(pruning)
        assert_zeros(pruning)
    pruning.settle_()
    assert_zeros(pruning)
    assert pruning.masks.alive == round(72 * METHODS[method].density)
    moved = {name: weight for name, weight in pruning.masks.weights.items() if bool((weight != 0).any())}
    assert set(moved) == {"0.weight", "2.weight"}


@pytest.mark.parametrize("method", METHODS)
def test_contract(method: str) -> None:
    check_baseline(METHODS[method], steps=STEPS, period=PERIOD)


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS)
def test_masks_hold_on_a_device(method: str) -> None:
    model = network().cuda()
    pruning = Pruning(METHODS[method], model, sgd(model), steps=STEPS, period=PERIOD)
    pruning.begin(cross_entropy, *(x.cuda() for x in batch(0)))
    for number in range(STEPS):
        inputs, targets = (x.cuda() for x in batch(number))
        step(pruning, (inputs, targets))
        assert_zeros(pruning)
    pruning.settle_()
    assert pruning.masks.alive == round(72 * METHODS[method].density)


@pytest.mark.parametrize("method", METHODS)
def test_density_one_is_training_as_it_is(method: str) -> None:
    full: dict[str, Baseline] = {
        **{name: type(m)(1.0) for name, m in METHODS.items() if name not in ("dense", "subgradient")},  # pyright: ignore
        "finetuned": MagnitudePruning(1.0, finetune=0.25),
        "gradual": GradualMagnitudePruning(1.0, every=4),
        "rigl": RigL(1.0, every=1000, end=1.0),
        "dense": Dense(),
        "subgradient": Subgradient(L1(0.0)),
    }
    pruning, plain = started(full[method], 1001, 1001), network()
    optimizer = sgd(plain)
    for number in range(8):
        step(pruning, batch(number))
        cross_entropy(plain(batch(number)[0]), batch(number)[1]).backward()
        optimizer.step()
        optimizer.zero_grad()
    for a, b in zip(pruning.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    pruning.settle_()
    assert all(bool((p != 0).all()) for p in pruning.model.parameters())


def test_a_masked_weight_trains_as_the_smaller_problem() -> None:
    """Masks are no approximation: weights move as if those that are gone did not exist."""
    pruning = started(RandomPruning(0.3), 20)
    wide, narrow = pruning.model, network()
    with torch.no_grad():
        for a, b in zip(narrow.parameters(), wide.parameters(), strict=True):
            a.copy_(b)
    masks, velocity = pruning.masks.kept, {p: torch.zeros_like(p) for p in narrow.parameters()}
    for number in range(20):
        step(pruning, batch(number))
        grads = torch.autograd.grad(cross_entropy(narrow(batch(number)[0]), batch(number)[1]), list(velocity))
        with torch.no_grad():
            for (name, p), grad in zip(narrow.named_parameters(), grads, strict=True):
                velocity[p] = 0.9 * velocity[p] + grad + 1e-3 * p
                p -= 0.1 * velocity[p] * masks.get(name, torch.ones_like(p))
    for a, b in zip(wide.parameters(), narrow.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("method", ["rigl", "subgradient", "set"])
@pytest.mark.parametrize("keyword", [True, False])
def test_a_closure_gives_the_same(method: str, keyword: bool) -> None:
    plain, closed = started(METHODS[method], STEPS, PERIOD), started(METHODS[method], STEPS, PERIOD)
    for number in range(STEPS):
        step(plain)

        def closure(number: int = number) -> Tensor:
            closed.optimizer.zero_grad()
            loss = cross_entropy(closed.model(batch(number)[0]), batch(number)[1])
            loss.backward()
            return loss

        # Torch's own optimizers return what the closure does, a tensor, whatever their signature says.
        given = cast("Callable[[], float]", closure)
        loss = closed.optimizer.step(closure=given) if keyword else closed.optimizer.step(given)
        assert isinstance(loss, Tensor)
        assert_zeros(closed)
    for a, b in zip(plain.model.parameters(), closed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_closure_may_be_evaluated_many_times() -> None:
    pruning = started(Subgradient(L1(1e-3)), 5, make=lambda m: LBFGS(m.parameters(), max_iter=4))
    calls = 0

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        pruning.optimizer.zero_grad()
        loss = cross_entropy(pruning.model(batch(0)[0]), batch(0)[1])
        loss.backward()
        return loss

    pruning.keep_({name: mask & (torch.rand(mask.shape) < 0.5) for name, mask in pruning.masks.kept.items()})
    for _ in range(5):
        pruning.optimizer.step(cast("Callable[[], float]", closure))
        for name, weight in pruning.masks.weights.items():
            assert bool((weight[~pruning.masks.kept[name]] == 0).all())
    assert calls > 5
    assert pruning.step == 5


def test_settled_shows_the_end_and_changes_nothing() -> None:
    pruning = started(METHODS["magnitude"], STEPS)
    for _ in range(3):
        step(pruning)
    before = [p.detach().clone() for p in pruning.model.parameters()]
    with pruning.settled():
        assert sum(int((w != 0).sum()) for w in pruning.masks.weights.values()) == 18
    assert all(torch.equal(a, b) for a, b in zip(before, pruning.model.parameters(), strict=True))
    assert pruning.masks.alive == 72


def test_a_closed_pruning_lets_go() -> None:
    pruning = started(RandomPruning(0.3), 20)
    pruning.close()
    step(pruning)
    assert pruning.step == 0
    assert all(bool((weight != 0).any()) for weight in pruning.masks.weights.values())
    assert sum(int((w != 0).sum()) for w in pruning.masks.weights.values()) > 22


# -- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [0.0, -0.1, 1.5, float("nan")])
@pytest.mark.parametrize(
    "method",
    [MagnitudePruning, GradualMagnitudePruning, RandomPruning, SNIP, SynFlow, SET, RigL, ACDC, LotteryTicket],
)
def test_a_density_out_of_range_is_refused(method: Callable[[float], Baseline], density: float) -> None:
    with pytest.raises(ValueError, match=f"{method.__name__}: density must be above 0 and at most 1, the fraction"):
        method(density)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: MagnitudePruning(0.1, finetune=1.0),
            "MagnitudePruning: finetune must be at least 0 and below 1, got 1",
        ),
        (lambda: MagnitudePruning(0.1, finetune_rate=0.0), "finetune_rate must be above 0, got 0"),
        (lambda: GradualMagnitudePruning(0.1, begin_at=-0.1), "begin_at must be at least 0 and below 1, got -0.1"),
        (lambda: GradualMagnitudePruning(0.1, end_at=0.2), "end_at must be above begin_at=0.2 and at most 1, got 0.2"),
        (lambda: GradualMagnitudePruning(0.1, every=0), "every must be at least 1 step, got 0"),
        (lambda: GradualMagnitudePruning(0.5, initial_sparsity=0.6), "from 0 to 1 - density = 0.5, got 0.6"),
        (lambda: SynFlow(0.1, iterations=0), "SynFlow: iterations must be at least 1, got 0"),
        (lambda: SET(0.1, zeta=1.0), "SET: zeta must be at least 0 and below 1, got 1"),
        (lambda: RigL(0.1, alpha=-1.0), "RigL: alpha must be at least 0 and below 1, got -1"),
        (lambda: RigL(0.1, every=0), "RigL: every must be at least 1 step, got 0"),
        (lambda: RigL(0.1, end=1.1), "RigL: end must be above 0 and at most 1, the fraction of the training, got 1.1"),
        (lambda: ACDC(0.1, warmup=1.0), "ACDC: warmup must be at least 0 and below 1, got 1"),
        (lambda: ACDC(0.1, phase=0.0), "ACDC: phase must be above 0 and below 1, got 0"),
        (lambda: ACDC(0.1, warmup=0.8), "their fractions sum up to 1.1"),
        (lambda: LotteryTicket(0.1, rate=1.0), "LotteryTicket: rate must be above 0 and below 1, got 1"),
        (lambda: LotteryTicket(0.1, rewind=-1), "LotteryTicket: rewind must be at least step 0, got -1"),
    ],
)
def test_options_out_of_range_are_refused(make: Callable[[], Baseline], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("baseline", "steps", "message"),
    [
        (MagnitudePruning(0.1, finetune=0.9), 4, "finetune=0.9 leaves none of 4 steps to train before pruning; take a"),
        (
            GradualMagnitudePruning(0.1, every=100),
            50,
            "every=100 is more than the 28 steps from begin_at to end_at of 50",
        ),
        (RigL(0.1), 100, "every=100 leaves no change of the masks before step T_end = 75 of 100; change them more"),
        (ACDC(0.1), 10, "ACDC: 15 phases do not fit into 10 steps, each with a step of its own; take longer phases"),
        (LotteryTicket(0.1), 11, "density=0.1 takes 12 trainings of at least one step after step 0, and there are 11"),
        (LotteryTicket(0.5, rewind=9), 12, "takes 5 trainings of at least one step after step 9, and there are 12"),
        (Dense(), 0, "Dense: steps must be at least 1, got 0"),
    ],
)
def test_a_schedule_longer_than_the_training_is_refused(baseline: Baseline, steps: int, message: str) -> None:
    model = network()
    with pytest.raises(ValueError, match=message):
        Pruning(baseline, model, sgd(model), steps=steps)


def test_an_optimizer_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="Dense: the optimizer trains no prunable weight of the model; build it over"):
        Pruning(Dense(), network(), sgd(network()), steps=3)


def test_a_step_before_the_beginning_is_refused() -> None:
    model = network()
    pruning = Pruning(SNIP(0.5), model, sgd(model), steps=3)
    with pytest.raises(RuntimeError, match=r"SNIP: call Pruning.begin\(loss, inputs, targets\) before the first step"):
        step(pruning)


def test_a_state_of_other_weights_is_refused() -> None:
    pruning = started(RandomPruning(0.5), 5)
    other = nn.Linear(6, 8).double()
    with pytest.raises(ValueError, match=r"the state has masks of 0.weight, 2.weight, and the model has weight, or of"):
        Pruning(RandomPruning(0.5), other, sgd(other), steps=5).load_state_dict(pruning.state_dict())
