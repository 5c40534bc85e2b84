from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from openwork.optim import RAMDA, RMDA, OriginalProxSGD, ProxAdamW, ProxSGD, regularize, strength_max
from openwork.penalties import L0, L1, GroupLasso, GroupMCP, Nonnegative, NuclearNorm, SparseGroupLasso, Target

OPTIMIZERS = [
    RMDA,
    partial(RMDA, lr=1.0),
    partial(RAMDA, lr=0.02),
    ProxSGD,
    OriginalProxSGD,
    ProxAdamW,
    ProxAdamW.ssi,
]
PENALTIES = [
    GroupLasso(1.0),
    GroupLasso(1.0, weight="one"),
    L1(1.0),
    L0(1.0),
    SparseGroupLasso(1.0),
    NuclearNorm(1.0),
    GroupMCP(1.0, 3.0),
    Nonnegative(GroupLasso(1.0)),
]


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)).double()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(20, 6, dtype=torch.float64), torch.randint(0, 3, (20,))


def survivors(model, batch, penalty, optimizer) -> int:
    """Structure alive after a first step."""
    stepper = optimizer(regularize(model, penalty))
    with torch.random.fork_rng():
        cross_entropy(model(batch[0]), batch[1]).backward()
    stepper.step()
    model.zero_grad()
    return stepper.read_out().alive


def around(model, batch, penalty, optimizer) -> tuple[int, int]:
    """Structure alive slightly below and slightly above the greatest strength."""
    weights = {name: x.clone() for name, x in model.state_dict().items()}
    lam = strength_max(model, cross_entropy, batch, penalty, optimizer=optimizer)
    assert lam > 0
    alive: list[int] = []
    for factor in (0.9999, 1.0001):
        inner = getattr(penalty, "penalty", None)
        weaker = (
            replace(penalty, penalty=replace(inner, lam=factor * lam)) if inner else replace(penalty, lam=factor * lam)
        )
        alive.append(survivors(model, batch, weaker, optimizer))
        model.load_state_dict(weights)
    return alive[0], alive[1]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_is_where_the_last_group_vanishes(model, batch, optimizer) -> None:
    below, above = around(model, batch, GroupLasso(1.0), optimizer)
    assert below > 0 and above == 0


@pytest.mark.parametrize("optimizer", [RMDA, RAMDA])
@pytest.mark.parametrize("penalty", PENALTIES, ids=repr)
def test_is_right_for_every_kind_of_penalty(model, batch, penalty, optimizer) -> None:
    below, above = around(model, batch, penalty, optimizer)
    assert below > 0 and above == 0


def test_by_hand() -> None:
    # One weight per group: it vanishes when lr * lam >= |w - lr * g|, and the gradient of the mean is 2.
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 3.0)
    batch = torch.full((4, 1), 2.0), torch.zeros(4, 1)
    lam = strength_max(model, lambda y, _: y.mean(), batch, L1(1.0), optimizer=partial(RMDA, lr=0.5))
    assert lam == pytest.approx((3.0 - 0.5 * 2.0) / 0.5, rel=1e-6)


def test_leaves_model_and_random_numbers_alone(model, batch) -> None:
    weights = {name: x.clone() for name, x in model.state_dict().items()}
    random = torch.get_rng_state()
    strength_max(model, cross_entropy, batch, GroupLasso(1.0))
    assert all(torch.equal(x, weights[name]) for name, x in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(random, torch.get_rng_state())


def test_what_is_excluded_does_not_count(model, batch) -> None:
    with torch.no_grad():
        model[3].weight *= 100
    everything = strength_max(model, cross_entropy, batch, GroupLasso(1.0))
    assert strength_max(model, cross_entropy, batch, GroupLasso(1.0), exclude="3") < everything / 10


def test_is_zero_where_everything_is() -> None:
    model = nn.Linear(2, 2)
    nn.init.zeros_(model.weight)
    assert strength_max(model, lambda y, _: y.sum(), (torch.zeros(3, 2), None), GroupLasso(1.0)) == 0


def test_refuses_a_penalty_without_strength(model, batch) -> None:
    for penalty in (Target(GroupLasso(1.0), 0.5), replace(Target(GroupLasso(1.0), 0.5), zero_fraction=0.1)):
        with pytest.raises(TypeError, match=r"strength_max: penalty must have a strength named lam.*got Target\("):
            strength_max(model, cross_entropy, batch, penalty)


def test_says_that_nothing_vanishes_at_lr_zero(model, batch) -> None:
    with pytest.raises(ValueError, match=r"strength_max: something survives every strength; choose a learning rate"):
        strength_max(model, cross_entropy, batch, GroupLasso(1.0), optimizer=partial(RMDA, lr=0.0))
