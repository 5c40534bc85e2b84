"""How factors move: rates of decay and of balancing, what is conserved, what can come back."""

from dataclasses import dataclass
from math import log

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from typing_extensions import override

from openwork.factorizations import Initialization, Sampled, Split, UnitGate, plan_budget
from openwork.factorizations.budget import learning_rates
from openwork.optim import FactorizedSGD


@dataclass(frozen=True)
class Given(Initialization):
    """These very factors."""

    values: tuple[tuple[float, ...], ...]

    @override
    def factors(self, weight: Tensor, depth: int, generator: torch.Generator | None = None) -> list[Tensor]:
        return [torch.tensor(value, dtype=weight.dtype) for value in self.values]


def optimizer_of(count: int, depth: int, init: Initialization, **options) -> tuple[nn.Parameter, FactorizedSGD]:
    weight = nn.Parameter(torch.linspace(0.5, 1.5, count, dtype=torch.float64))
    return weight, FactorizedSGD([{"params": [weight], "depth": depth}], init=init, **options)


def push(weight: nn.Parameter, optimizer: FactorizedSGD, slope: float | Tensor, steps: int) -> None:
    for _ in range(steps):
        weight.grad = torch.zeros_like(weight) + slope
        optimizer.step()


def imbalance(weight: nn.Parameter, optimizer: FactorizedSGD) -> Tensor:
    first, second, *_ = optimizer.factors()[weight]
    return first.square() - second.square()


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_without_a_gradient_weights_and_imbalance_decay_at_their_rates(depth: int, momentum: float) -> None:
    lr, lam = 0.01 * (1 - momentum), 0.05
    weight, optimizer = optimizer_of(5, depth, UnitGate(), lr=lr, lam=lam, momentum=momentum)
    push(weight, optimizer, 0.0, 200)
    before, apart = weight.detach().clone(), imbalance(weight, optimizer)
    budget = optimizer.budget
    push(weight, optimizer, 0.0, 1000)
    spent = optimizer.budget - budget
    assert spent == pytest.approx(2 * lam * lr * 1000 / (1 - momentum))
    decay = (before / weight.detach()).log()
    torch.testing.assert_close(decay, torch.full_like(decay, spent), rtol=0.02, atol=0)
    balancing = (apart / imbalance(weight, optimizer)).log()[apart != 0]
    torch.testing.assert_close(balancing, torch.full_like(balancing, 2 * spent / depth), rtol=0.02, atol=0)


def test_a_gradient_below_the_strength_slows_the_decay_down() -> None:
    lr, lam, momentum = 1e-3, 0.1, 0.9
    for slope in (0.02, 0.05, 0.08):
        weight, optimizer = optimizer_of(3, 2, Split(0.0), lr=lr, lam=lam, momentum=momentum)
        push(weight, optimizer, -slope, 500)
        before = weight.detach().clone()
        push(weight, optimizer, -slope, 2000)
        rate = (before / weight.detach()).log() / 2000
        torch.testing.assert_close(
            rate, torch.full_like(rate, 2 * (lam - slope) * lr / (1 - momentum)), rtol=0.02, atol=0
        )


def test_without_a_penalty_imbalance_is_kept_to_the_order_of_the_step() -> None:
    def drift(lr: float) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        weight, optimizer = optimizer_of(4, 3, Split(0.5), lr=lr, momentum=0.0, generator=generator)
        before = imbalance(weight, optimizer)
        for _ in range(round(0.5 / lr)):
            weight.grad = weight.detach() - 2
            optimizer.step()
        return (imbalance(weight, optimizer) - before).abs().max()

    large, small = drift(1e-3), drift(5e-4)
    assert 0 < small < 1e-3
    assert float(small / large) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_one_zero_factor_comes_back_and_two_do_not(depth: int) -> None:
    # The first weight has one factor of zero, the second two, the third only zeros.
    rows = [[0.5, 0.5, 0.0] for _ in range(depth)]
    rows[0] = [0.0, 0.0, 0.0]
    rows[1][1] = 0.0
    weight, optimizer = optimizer_of(3, depth, Given(tuple(map(tuple, rows))), lr=0.1, lam=0.001)
    assert not weight.any()
    push(weight, optimizer, -1.0, 20)
    assert weight[0] > 0
    assert not weight[1:].any()
    assert not torch.stack(optimizer.factors()[weight])[:, 2].any()


@pytest.mark.parametrize("depth", [2, 3])
def test_only_weights_with_imbalance_change_their_sign(depth: int) -> None:
    for amount, crosses in ((0.0, False), (0.25, True)):
        weight, optimizer = optimizer_of(4, depth, Split(amount), lr=0.05, momentum=0.0)
        for _ in range(3000):
            weight.grad = weight.detach() + 1
            optimizer.step()
        assert bool((weight < 0).all() if crosses else (weight >= 0).all())


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_planned_budget_is_the_one_that_is_spent(schedule) -> None:
    weight, optimizer = optimizer_of(3, 3, Split(), lr=0.05, lam=0.01, momentum=0.9)
    plan = plan_budget(0.01, 0.05, 500, momentum=0.9, schedule=schedule, warmup=50)

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rates(schedule, 500, 50))
    start = weight.detach().clone()
    for _ in range(500):
        push(weight, optimizer, 0.0, 1)
        scheduler.step()
    assert optimizer.budget == pytest.approx(plan.budget)
    # Of the last steps, the momentum has not all arrived yet.
    decay = (start / weight.detach()).log()
    torch.testing.assert_close(decay, torch.full_like(decay, plan.budget), rtol=0.05, atol=0)
    assert log(plan.zeroed / torch.finfo(torch.float32).eps) == pytest.approx(plan.budget)


@dataclass(frozen=True)
class Dense(Initialization):
    """The mistake: every factor has the deviation of the weight."""

    @override
    def factors(self, weight: Tensor, depth: int, generator: torch.Generator | None = None) -> list[Tensor]:
        return [torch.randn_like(weight) * weight.detach().square().mean().sqrt() for _ in range(depth)]


@pytest.mark.slow
@pytest.mark.parametrize("depth", [3, 4])
def test_factors_as_small_as_weights_collapse_to_nothing(depth: int) -> None:
    pixels, digits = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
    pixels = (pixels.float() - 4.9) / 6

    def trained(init: Initialization) -> tuple[float, float]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
        optimizer = FactorizedSGD(model.parameters(), lr=0.5, depth=depth, lam=2.5e-3, init=init)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2000)
        for _ in range(2000):
            batch = torch.randint(1500, (128,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(pixels[batch]), digits[batch]).backward()
            optimizer.step()
            scheduler.step()
        report = optimizer.collapse_(model)
        accuracy = (model(pixels[1500:]).argmax(dim=1) == digits[1500:]).double().mean()
        return float(accuracy), report.compression_ratio

    accuracy, ratio = trained(Sampled())
    assert accuracy > 0.8
    assert 5 < ratio < 500
    accuracy, ratio = trained(Dense())
    assert accuracy < 0.2
    assert ratio == float("inf")
