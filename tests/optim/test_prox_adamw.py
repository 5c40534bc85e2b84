from functools import partial

import pytest
import torch
from torch import nn

from openwork.optim import ProxAdamW
from openwork.penalties import GroupLasso
from openwork.testing import check_optimizer


@pytest.mark.parametrize(
    "factory", [ProxAdamW, partial(ProxAdamW, amsgrad=True), ProxAdamW.ssi, partial(ProxAdamW.ssi, as_coded=True)]
)
def test_contract(factory) -> None:
    check_optimizer(factory)


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_without_a_penalty_it_is_adamw(weight, follow, amsgrad: bool, weight_decay: float) -> None:
    ours, theirs = nn.Parameter(weight.clone()), nn.Parameter(weight.clone())
    options = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": weight_decay, "amsgrad": amsgrad}
    optimizer, adamw = ProxAdamW([ours], **options), torch.optim.AdamW([theirs], **options)
    for t in range(100):
        follow(optimizer, ours, t)
        follow(adamw, theirs, t)
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_follows_the_paper(weight, gradient, follow, solve) -> None:
    lam, eta, b1, b2, eps = 0.3, 0.02, 0.9, 0.99, 1e-8
    param = nn.Parameter(weight.clone())
    optimizer = ProxAdamW([param], lr=eta, betas=(b1, b2), eps=eps, penalty=GroupLasso(lam))
    w, m, v, seen = weight.clone(), torch.zeros_like(weight), torch.zeros_like(weight), set()
    for t in range(1, 41):
        g = gradient(w, t)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        d = (v / (1 - b2**t)).sqrt() + eps
        w = solve(d * w - eta / (1 - b1**t) * m, d, eta * lam * 5**0.5)
        follow(optimizer, param, t)
        torch.testing.assert_close(param.detach(), w, rtol=1e-10, atol=1e-10)
        assert torch.equal(param != 0, w != 0)
        seen.add(optimizer.read_out().alive)
    assert len(seen) > 1


@pytest.mark.parametrize("as_coded", [False, True])
def test_ssi_follows_its_paper(weight, gradient, follow, solve, as_coded: bool) -> None:
    """Its prox is that of ``(1 / (2 eta)) ||x - W+||^2`` in the metric ``sqrt(v) + eps``."""
    lam, eta, b1, b2, eps = 0.05, 0.02, 0.9, 0.99, 1e-6
    param = nn.Parameter(weight.clone())
    optimizer = ProxAdamW.ssi([param], eta, (b1, b2), eps, penalty=GroupLasso(lam), as_coded=as_coded)
    w, m, v = weight.clone(), torch.zeros_like(weight), torch.zeros_like(weight)
    for t in range(1, 41):
        g = gradient(w, t)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        d = v.sqrt() + eps
        forward = w - eta * (1 - b2**t) ** 0.5 / (1 - b1**t) * m / d
        kappa = eta * lam * 5**0.5 * (1 if as_coded else (1 - b2**t) ** 0.5)
        w = solve(d * forward, d, kappa)
        follow(optimizer, param, t)
        torch.testing.assert_close(param.detach(), w, rtol=1e-10, atol=1e-10)
    assert 0 < optimizer.read_out().alive < 6


def test_ssi_without_a_floor_is_prox_adamw(weight, follow) -> None:
    ours, theirs = nn.Parameter(weight.clone()), nn.Parameter(weight.clone())
    ssi = ProxAdamW.ssi([ours], eps=0.0, penalty=GroupLasso(0.1))
    adamw = ProxAdamW([theirs], eps=0.0, penalty=GroupLasso(0.1))
    for t in range(50):
        follow(ssi, ours, t)
        follow(adamw, theirs, t)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_ssi_as_coded_is_too_strong_by_the_bias_correction(weight, follow) -> None:
    ours, theirs = nn.Parameter(weight.clone()), nn.Parameter(weight.clone())
    coded = ProxAdamW.ssi([ours], penalty=GroupLasso(0.01), as_coded=True)
    consistent = ProxAdamW.ssi([theirs], penalty=GroupLasso(0.01))
    for t in range(1, 51):
        consistent.param_groups[0]["penalty_scale"] = (1 - 0.999**t) ** -0.5
        follow(coded, ours, t)
        follow(consistent, theirs, t)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("beta", [-0.1, 1.0])
def test_betas_out_of_range_are_refused(beta: float) -> None:
    with pytest.raises(ValueError, match=r"ProxAdamW: betas must be at least 0 and below 1, got"):
        ProxAdamW([nn.Parameter(torch.ones(2))], betas=(0.9, beta))
