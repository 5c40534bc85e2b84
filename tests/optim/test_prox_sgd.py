from functools import partial

import pytest
import torch
from torch import Tensor, nn

from openwork.optim import OriginalProxSGD, ProxSGD
from openwork.penalties import L1, GroupLasso
from openwork.testing import check_optimizer


@pytest.mark.parametrize("options", [{}, {"averaging": 1.0}], ids=str)
def test_contract(options: dict[str, float]) -> None:
    check_optimizer(partial(ProxSGD, **options))


def test_contract_of_the_original() -> None:
    check_optimizer(OriginalProxSGD)


def soft(x: Tensor, threshold: Tensor | float) -> Tensor:
    return x.sign() * (x.abs() - threshold).clamp(min=0)


def test_follows_the_papers_baseline(weight, gradient, follow) -> None:
    lam, eta, mu = 0.3, 0.1, 0.1
    param = nn.Parameter(weight.clone())
    optimizer = ProxSGD([param], lr=eta, averaging=mu, penalty=GroupLasso(lam))
    w, m = weight.clone(), torch.zeros_like(weight)
    for t in range(50):
        m = (1 - mu) * m + mu * gradient(w, t)
        x = w - eta * m
        w = torch.stack([c * max(0, 1 - eta * lam * 5**0.5 / (float(c.norm()) or 1.0)) for c in x.unbind(1)], 1)
        follow(optimizer, param, t)
        torch.testing.assert_close(param.detach(), w, rtol=1e-11, atol=1e-11)
        assert torch.equal(param != 0, w != 0)
    assert 0 < optimizer.read_out().alive < 6


def test_without_a_penalty_it_is_sgd_with_averaged_gradients(weight, follow, gradient) -> None:
    ours, theirs = nn.Parameter(weight.clone()), nn.Parameter(weight.clone())
    optimizer = ProxSGD([ours], lr=0.1, averaging=0.1)
    # torch starts its momentum at the first gradient, ours starts at zero: a first gradient of zero makes them agree.
    sgd = torch.optim.SGD([theirs], lr=0.1 * 0.1, momentum=0.9)
    for param, each in ((ours, optimizer), (theirs, sgd)):
        param.grad = torch.zeros_like(param)
        each.step()
    for t in range(50):
        follow(optimizer, ours, t)
        follow(sgd, theirs, t)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_the_original_follows_its_paper(weight, gradient, follow) -> None:
    lam, beta = 0.3, 0.999
    param = nn.Parameter(weight.clone())
    optimizer = OriginalProxSGD([param], lr=0.06, rho=0.9, beta=beta, penalty=L1(lam))
    w, v, r = weight.clone(), torch.zeros_like(weight), torch.zeros_like(weight)
    for t in range(1, 51):
        rho, e = 0.9 / (t + 4) ** 0.5, 0.06 / (t + 4) ** 0.5
        g = gradient(w, t)
        v = (1 - rho) * v + rho * g
        r = beta * r + (1 - beta) * g**2
        tau = (r / (1 - beta ** (t + 1))).sqrt() + 1e-8
        what = soft(w - v / tau, lam / tau)
        w = w + e * (what - w)

        follow(optimizer, param, t)
        torch.testing.assert_close(param.detach(), w, rtol=1e-11, atol=1e-11)
        with optimizer.structured():
            torch.testing.assert_close(param.detach(), what, rtol=1e-11, atol=1e-11)
            assert torch.equal(param != 0, what != 0)
    assert (w != 0).all()
    assert 0 < optimizer.read_out().alive < 30


def test_restart_has_nothing_to_do(weight, follow) -> None:
    param, twin = nn.Parameter(weight.clone()), nn.Parameter(weight.clone())
    optimizer, other = ProxSGD([param]), ProxSGD([twin])
    for t in range(5):
        follow(optimizer, param, t)
        follow(other, twin, t)
        optimizer.restart()
        assert torch.equal(param, twin)


def test_options_out_of_range_are_refused() -> None:
    params = [nn.Parameter(torch.ones(2))]
    with pytest.raises(ValueError, match=r"ProxSGD: averaging must be above 0 and at most 1, got 0"):
        ProxSGD(params, averaging=0.0)
    with pytest.raises(ValueError, match=r"OriginalProxSGD: rho must be above 0 and at most 2.23607, got 3"):
        OriginalProxSGD(params, rho=3.0)
    with pytest.raises(ValueError, match=r"OriginalProxSGD: beta must be at least 0 and below 1, got 1"):
        OriginalProxSGD(params, beta=1.0)
