"""Units are taken out in the middle of training, and the penalty's bias is trained away."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from openwork import data, models
from openwork.optim import RAMDA, RMDA, regularize
from openwork.penalties import GroupLasso
from openwork.training import Run, fit, supervised


def run(optimizer: Callable[..., Any] = RMDA, **options: Any) -> Run:
    network = models.mlp((64, 24, 10))
    lr, lam = (0.3, 4e-3) if optimizer is RMDA else (0.01, 2e-3)
    made = optimizer(regularize(network, GroupLasso(lam)), lr=lr, averaging=0.3)
    return supervised(
        network, cross_entropy, made, data=data.digits(), epochs=12, milestones=[6], batch_size=64, **options
    )


def widths(model: nn.Module) -> list[int]:
    return [layer.out_features for layer in model.modules() if isinstance(layer, nn.Linear)]


@pytest.mark.parametrize("optimizer", [RMDA, RAMDA])
def test_training_goes_on_with_a_smaller_model(optimizer: Any, tmp_path: Path) -> None:
    one = run(optimizer, shrink_after=[9])
    final = fit(one, tmp_path, progress=False)
    model = one.finish()
    assert widths(model)[0] < 24
    assert float(final["valid_accuracy"]) > 0.8  # pyright: ignore[reportArgumentType]


def test_a_run_that_was_shrunk_resumes_to_the_same_bits() -> None:
    options: dict[str, Any] = {"shrink_after": [9], "refit": 3}
    whole, first, second = run(**options), run(**options), run(**options)
    while _unit(whole) < whole.units:
        whole.advance(whole.period)
    for _ in range(10):
        first.advance(first.period)
    first.advance(5)
    second.load_state_dict(first.state_dict())
    while _unit(second) < second.units:
        second.advance(second.period)
    a, b = whole.finish().state_dict(), second.finish().state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def _unit(one: Run) -> int:
    unit = one.state_dict()["unit"]
    assert isinstance(unit, int)
    return unit


@pytest.mark.parametrize("optimizer", [RMDA, RAMDA])
def test_refit_keeps_the_zeros_and_lowers_the_loss(optimizer: Any) -> None:
    plain, refitted = run(optimizer), run(optimizer, refit=6)
    losses: list[float] = []
    zeros: list[dict[str, torch.Tensor]] = []
    for one in (plain, refitted):
        history = [one.advance(one.period) for _ in range(one.units // one.period)]
        loss = history[-1]["train_loss"]
        assert isinstance(loss, float)
        losses.append(loss)
        zeros.append({n: p == 0 for n, p in one.finish().named_parameters() if p.ndim > 1})
    assert losses[1] < losses[0]
    assert sum(int(z.sum()) for z in zeros[0].values()) > 0
    assert all(torch.equal(zeros[0][name], zeros[1][name]) for name in zeros[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"refit": -1}, "supervised: refit must be at least 0, got -1"),
        ({"refit_lr": 0.0}, "supervised: refit_lr must be above 0, got 0.0; leave it out for the default"),
        ({"shrink_after": [9, 9]}, r"shrink_after must increase from 1 to 12 epochs at most, got \[9, 9\]"),
        ({"shrink_after": [13]}, r"shrink_after must increase from 1 to 12 epochs at most, got \[13\]"),
    ],
)
def test_wrong_phases_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(**options)
