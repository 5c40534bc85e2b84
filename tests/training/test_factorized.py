"""Runs with factorized weights: schedule, budget, records, phases, and both places of the factors."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from math import cos, pi
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.optimizer import register_optimizer_step_post_hook

from openwork import data, models
from openwork.factorizations import Initialization, Sampled, factorization_of, factorize, plan_budget
from openwork.optim import RMDA, FactorizedSGD, regularize
from openwork.penalties import GroupLasso
from openwork.training import Metrics, Run, fit, supervised

EPOCHS, REFIT, BATCH = 30, 4, 64

Build = Callable[..., Run]


def network(seed: int = 0) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    model = models.mlp((64, 32, 10), seed=seed)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, generator=generator)
    return model


def in_optimizer(lam: float = 8e-3, depth: int = 3, lr: float = 0.3, momentum: float = 0.9, **options: Any) -> Run:
    """Factors inside the optimizer."""
    model = network()
    generator = torch.Generator().manual_seed(1)
    optimizer = FactorizedSGD(
        model.parameters(), lr=lr, depth=depth, lam=lam, momentum=momentum, generator=generator,
        init=options.pop("init", Sampled()), tied=options.pop("tied", False),
    )  # fmt: skip
    return run(model, optimizer, **options)


def in_model(lam: float = 8e-3, depth: int = 3, lr: float = 0.3, momentum: float = 0.9, **options: Any) -> Run:
    """Factors inside the model."""
    model = network()
    handle = factorize(model, depth, lam, generator=torch.Generator().manual_seed(1))
    return run(model, torch.optim.SGD(handle.param_groups(), lr=lr, momentum=momentum), **options)


def run(model: nn.Module, optimizer: torch.optim.Optimizer, **options: Any) -> Run:
    chosen: dict[str, Any] = {"schedule": "cosine", "warmup": 2, "epochs": EPOCHS, "clip": None, **options}
    return supervised(model, cross_entropy, optimizer, data=data.digits(), batch_size=BATCH, **chosen)


def epochs(one: Run, count: int | None = None) -> list[Metrics]:
    return [one.advance(one.period) for _ in range(one.units // one.period if count is None else count)]


def number(metrics: Metrics, key: str) -> float:
    value = metrics[key]
    assert isinstance(value, int | float)
    return value


@dataclass
class Trained:
    """A whole training, for the tests that only look at it."""

    run: Run
    reports: list[Metrics]
    module: nn.Module


@cache
def trained(build: Build, refit: int = 0) -> Trained:
    """Thirty epochs, and some with the zeros kept and without the penalty."""
    one = build(refit=refit, select="best") if refit else build()
    reports = epochs(one)
    return Trained(one, reports, one.finish())


def weights(module: nn.Module) -> list[Tensor]:
    return [p.detach() for p in module.parameters() if p.ndim > 1]


# -- schedule -------------------------------------------------------------------------------------------------------


def test_a_cosine_grows_and_falls_step_by_step() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    one = run(model, optimizer, epochs=4, warmup=1)
    rates: list[float] = []
    optimizer.register_step_pre_hook(lambda *_: rates.append(optimizer.param_groups[0]["lr"]))
    epochs(one)
    period = one.period
    grown = [0.1 * (n + 1) / period for n in range(period)]
    fallen = [0.05 * (1 + cos(pi * n / (3 * period))) for n in range(3 * period)]
    assert rates == pytest.approx(grown + fallen)


def test_a_refit_after_a_cosine_has_its_own_learning_rate() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    one = run(model, optimizer, epochs=3, warmup=1, refit=2, refit_lr=0.03)
    assert [number(report, "lr") for report in epochs(one)][2:] == pytest.approx([0, 0.03, 0.03], abs=1e-12)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    last = epochs(run(model, optimizer, epochs=3, warmup=1, refit=1))[-1]
    # The default is a tenth of the largest, not of what the warm-up began with.
    assert number(last, "lr") == pytest.approx(0.01)


def test_a_cosine_does_for_penalties_too() -> None:
    model = network()
    optimizer = RMDA(regularize(model, GroupLasso(1e-3)), lr=0.3, averaging=0.3)
    last = epochs(run(model, optimizer, epochs=6, warmup=1))[-1]
    assert number(last, "averaging") == 1
    assert number(last, "structured_valid_accuracy") > 0.8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "linear"}, "supervised: schedule must be 'stages' or 'cosine', got 'linear'"),
        ({"milestones": [2]}, r"schedule='cosine' has no stages, got milestones \[2\]; leave them out"),
        ({"schedule": "stages", "warmup": 2}, "warmup=2 needs schedule='cosine', got schedule='stages'"),
        ({"warmup": 31}, "warmup must be from 0 to 30 epochs, got 31"),
        ({"select": "best"}, "select='best' needs a refit where weights are factorized"),
    ],
)
@pytest.mark.parametrize("build", [in_optimizer, in_model])
def test_options_that_contradict_each_other_are_refused(build: Build, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_a_factorized_model_is_not_shrunk_in_between() -> None:
    with pytest.raises(ValueError, match="shrink_after cannot cut a model whose weights are factors; leave it"):
        in_model(shrink_after=[3])


# -- records --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [in_optimizer, in_model])
def test_records_of_an_epoch_and_of_the_end(build: Build) -> None:
    one, reports, module = trained(build).run, trained(build).reports, trained(build).module
    steps = one.units
    planned = plan_budget(8e-3, 0.3, steps, momentum=0.9, warmup=2 * one.period).budget
    assert [number(report, "budget_planned") for report in reports] == pytest.approx([planned] * EPOCHS)
    spent = [number(report, "budget_spent") for report in reports]
    assert spent == sorted(spent)
    assert spent[-1] == pytest.approx(planned)
    last = reports[-1]
    assert number(last, "relative_misalignment") < number(reports[0], "relative_misalignment")
    assert last["factorized"] == 64 * 32 + 320
    assert last["alarms"] == []
    final = one.evaluate(module)
    nonzero = sum(int(w.count_nonzero()) for w in weights(module))
    assert 0 < nonzero < 1000
    assert number(final, "compression_ratio") == pytest.approx(2368 / nonzero)
    assert number(last, "compression_ratio") == pytest.approx(2368 / nonzero)
    assert number(last, "structured_valid_accuracy") == number(final, "valid_accuracy")
    thresholds: Any = final["thresholds"]
    ratios = [entry["compression_ratio"] for entry in thresholds.values()]
    assert ratios == sorted(ratios)
    assert ratios[0] == pytest.approx(2368 / nonzero)
    assert thresholds["1.2e-07"]["valid_accuracy"] == final["valid_accuracy"]
    assert type(module) is nn.Sequential
    assert factorization_of(module) is None
    assert list(module.state_dict()) == list(network().state_dict())


def test_both_places_of_the_factors_are_the_same_training() -> None:
    inside, outside = trained(in_optimizer, REFIT), trained(in_model, REFIT)
    for one, other in zip(inside.reports, outside.reports, strict=True):
        for key in ("train_loss", "lr", "budget_spent", "misalignment", "penalty_weights", "weight_norm", "sign_flips"):
            assert number(one, key) == pytest.approx(number(other, key), rel=2e-2, abs=1e-6), key
    for a, b in zip(weights(inside.module), weights(outside.module), strict=True):
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.02)


def test_too_small_a_budget_is_warned_of_before_training() -> None:
    one = in_optimizer(lam=1e-4)
    with pytest.warns(UserWarning, match=r"hardly any weight will become exactly zero: collapse budget 0\."):
        one.advance(1)
    alarms: Any = one.advance(one.period - 1)["alarms"]
    assert len(alarms) == 1
    assert "for 25, take lr=" in alarms[0]


@pytest.mark.filterwarnings("ignore:supervised:UserWarning")
def test_a_naive_start_is_found_out() -> None:
    class Dense(Initialization):
        """The deviation of the dense weight for each factor, so that the product is far too small."""

        def factors(self, weight: Tensor, depth: int, generator: torch.Generator | None = None) -> list[Tensor]:
            return [0.1 * torch.randn(weight.shape, generator=generator) for _ in range(depth)]

    alarms: Any = epochs(in_optimizer(init=Dense()))[-1]["alarms"]
    assert any("the network collapses: after epoch" in alarm for alarm in alarms)
    assert any("all of 1.weight is zero after epoch" in alarm for alarm in alarms)
    assert len(alarms) == len(set(alarms))


# -- phases ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [in_optimizer, in_model])
def test_a_refit_keeps_the_zeros_and_has_no_penalty(build: Build) -> None:
    plain, refitted = trained(build), trained(build, REFIT)
    before, after = plain.reports, refitted.reports
    assert number(after[-1], "train_loss") < number(before[-1], "train_loss")
    assert number(after[-1], "budget_spent") == pytest.approx(number(before[-1], "budget_spent"))
    assert number(after[-1], "penalty_factors") == 0
    zeros = [[w == 0 for w in weights(one.module)] for one in (plain, refitted)]
    assert sum(int(z.sum()) for z in zeros[0]) > 1000
    # A weight at the threshold may fall below it, and none comes back.
    assert all(bool((now | ~then).all()) for then, now in zip(*zeros, strict=True))


@pytest.mark.parametrize("tied", [False, True])
def test_factors_follow_a_model_that_becomes_smaller(tied: bool) -> None:
    one = in_optimizer(shrink_after=[20], tied=tied, lam=1.2e-2)
    optimizers: list[FactorizedSGD] = []
    hook = register_optimizer_step_post_hook(
        lambda optimizer, *_: optimizers.append(optimizer) if not optimizers else None  # pyright: ignore
    )
    epochs(one, 20)
    hook.remove()
    one.advance(1)
    (optimizer,) = optimizers
    held = optimizer.factors()
    small = [tuple(param.shape) for param in held]
    assert small[0][0] < 32, "nothing was taken out: this test shows nothing"
    for param, factors in held.items():
        assert all(factor.shape == param.shape for factor in factors)
        if not tied:
            assert torch.equal(param, factors[0] * factors[1] * factors[2])
        else:
            assert torch.equal(param, factors[0] ** 3)
        assert optimizer.state[param]["momentum0"].shape == param.shape
    last = epochs(one, 10)[-1]
    assert last["factorized"] == sum(param.numel() for param in held)


@pytest.mark.filterwarnings("ignore:supervised:UserWarning")
@pytest.mark.parametrize("build", [in_optimizer, in_model])
def test_a_run_goes_on_to_the_same_bits(build: Build) -> None:
    options: dict[str, Any] = {"epochs": 12, "refit": 3, "lam": 2e-2, "select": "best"}
    whole = build(**options)
    # Early, when the learning rate is nearly zero, and in the refit; each in the middle of an epoch.
    states = {stop * whole.period + 5: BytesIO() for stop in (3, 12, 14)}
    reports: list[Metrics] = []
    for unit in range(whole.units):
        if unit in states:
            torch.save(whole.state_dict(), states[unit])
        reports.append(whole.advance(1))
    one = whole.finish()
    for unit, file in states.items():
        again = build(**options)
        file.seek(0)
        again.load_state_dict(torch.load(file, weights_only=True))
        assert [again.advance(1) for _ in range(unit, again.units)] == reports[unit:]
        other = again.finish()
        assert whole.evaluate(one) == again.evaluate(other)
        pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_a_folder_has_it_all(tmp_path: Path) -> None:
    final = fit(in_model(), tmp_path, progress=False)
    assert number(final, "compression_ratio") > 5
    assert {"thresholds", "budget_planned", "alarms"} <= set(final)
