from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from openwork.optim import RAMDA
from openwork.optim.ramda import ramda_points
from openwork.optim.rmda import rmda_points
from openwork.penalties import GroupLasso
from openwork.testing import check_optimizer


@pytest.mark.parametrize("options", [{}, {"averaging": 1.0}, {"lr": 0.1, "eps": 1e-3}], ids=str)
def test_contract(options: dict[str, float]) -> None:
    check_optimizer(partial(RAMDA, **options))


def test_follows_the_paper_through_a_restart(weight, gradient, follow, solve) -> None:
    lam, eta, eps, c = 0.1, 0.02, 1e-6, 0.3
    param = nn.Parameter(weight.clone())
    optimizer = RAMDA([param], lr=eta, averaging=c, eps=eps, penalty=GroupLasso(lam))
    w, seen = weight.clone(), set()
    for stage in range(2):
        w0, v, u, alpha = w.clone(), torch.zeros_like(w), torch.zeros_like(w), 0.0
        for t in range(1, 21):
            g = gradient(w, 20 * stage + t)
            s = eta * t**0.5
            alpha += s
            v = v + s * g
            u = u + s * g * g
            d = u ** (1 / 3) + eps
            what = solve(d * w0 - v, d, alpha * lam * 5**0.5)
            w = (1 - c) * w + c * what

            follow(optimizer, param, 20 * stage + t)
            torch.testing.assert_close(param.detach(), w, rtol=1e-10, atol=1e-10)
            with optimizer.structured():
                torch.testing.assert_close(param.detach(), what, rtol=1e-10, atol=1e-10)
                assert torch.equal(param != 0, what != 0)
                seen.add(int((param != 0).any(0).sum()))
        eta, eps = 0.1 * eta, 0.1 * eps
        optimizer.param_groups[0].update(lr=eta, eps=eps)
        optimizer.restart()
    assert len(seen) > 1


def test_first_step_by_hand(weight, gradient, follow, solve) -> None:
    param = nn.Parameter(weight.clone())
    optimizer = RAMDA([param], lr=0.1, averaging=1.0, eps=1e-3, penalty=GroupLasso(0.2))
    follow(optimizer, param, 0)
    g = gradient(weight, 0)
    d = (0.1 * g**2) ** (1 / 3) + 1e-3
    torch.testing.assert_close(param.detach(), solve(d * weight - 0.1 * g, d, 0.1 * 0.2 * 5**0.5))


def madgrad(param: Tensor, gradients: list[Tensor], lr: float, momentum: float, eps: float) -> Tensor:
    """The reference code of Defazio & Jelassi, arXiv:2101.11075: it adds eps to lr."""
    x0, grad_sum_sq, s = param.clone(), torch.zeros_like(param), torch.zeros_like(param)
    for k, grad in enumerate(gradients):
        lamb = (lr + eps) * (k + 1) ** 0.5
        grad_sum_sq.addcmul_(grad, grad, value=lamb)
        rms = grad_sum_sq.pow(1 / 3).add_(eps)
        s.add_(grad, alpha=lamb)
        z = x0.addcdiv(s, rms, value=-1)
        param = param * momentum + z * (1 - momentum)
    return param


def test_without_a_penalty_it_is_madgrad(weight, gradient) -> None:
    gradients = [gradient(weight, t) for t in range(50)]
    param = nn.Parameter(weight.clone())
    optimizer = RAMDA([param], lr=0.02, averaging=0.1, eps=1e-6)
    for grad in gradients:
        param.grad = grad
        optimizer.step()
    wanted = madgrad(weight, gradients, lr=0.02 - 1e-6, momentum=0.9, eps=1e-6)
    torch.testing.assert_close(param.detach(), wanted, rtol=1e-12, atol=1e-12)


def test_in_the_metric_sqrt_t_it_is_rmda(weight) -> None:
    sums, t, alpha = weight * 2 + 0.1, 9, 2.0
    metric = torch.full_like(weight, t**0.5)
    adaptive = ramda_points([weight], [sums], [metric**3], penalty=GroupLasso(0.5), penalty_weight=alpha, eps=0.0)
    euclidean = rmda_points([weight], [sums], penalty=GroupLasso(0.5), scale=t**0.5, penalty_step=alpha / t**0.5)
    torch.testing.assert_close(adaptive[0].x, euclidean[0].x)
    assert torch.equal(adaptive[0].kept, euclidean[0].kept)
    assert not adaptive[0].kept.all() and adaptive[0].kept.any()


def test_restart_equals_a_fresh_optimizer(weight, follow) -> None:
    param = nn.Parameter(weight)
    old = RAMDA([param], lr=0.1, penalty=GroupLasso(0.1))
    for t in range(10):
        follow(old, param, t)
    twin = deepcopy(param)
    fresh = RAMDA([twin], lr=0.01, eps=1e-7, penalty=GroupLasso(0.1))
    old.param_groups[0].update(lr=0.01, eps=1e-7)
    old.restart()
    for t in range(10, 30):
        follow(old, param, t)
        follow(fresh, twin, t)
        assert torch.equal(param, twin)


def test_a_group_that_never_receives_a_gradient_dies_when_the_penalty_passes_its_floor() -> None:
    eps, lam, eta = 1e-3, 1e-3, 0.01
    weight = torch.ones(4, 2, dtype=torch.float64)
    param = nn.Parameter(weight.clone())
    optimizer = RAMDA([param], lr=eta, eps=eps, penalty=GroupLasso(lam))
    alpha, deaths = 0.0, []
    for t in range(1, 40):
        param.grad = torch.tensor([0.0, -1.0], dtype=torch.float64).expand(4, 2)
        optimizer.step()
        alpha += eta * t**0.5
        dead = alpha * lam * 2 >= eps * 2  # sqrt(4) entries, of norm 2
        deaths.append(dead)
        assert optimizer.structures()[param].kept.tolist() == [not dead, True]
        with optimizer.structured():
            assert param[:, 0].any().item() is not dead
            if not dead:
                # Along b = eps W0 the metric is constant, so the shrinkage is that of a ball.
                torch.testing.assert_close(param[:, 0].detach(), weight[:, 0] * (1 - alpha * lam / eps))
    assert 0 < sum(deaths) < len(deaths)


def test_a_gradient_free_coordinate_with_no_floor_is_zero() -> None:
    param = nn.Parameter(torch.ones(3, 2, dtype=torch.float64))
    optimizer = RAMDA([param], eps=0.0, penalty=GroupLasso(1e-3))
    param.grad = torch.tensor([0.0, -1.0], dtype=torch.float64).expand(3, 2)
    optimizer.step()
    with optimizer.structured():
        assert param.isfinite().all()
        assert (param[:, 0] == 0).all() and (param[:, 1] != 0).all()


def test_a_penalty_with_a_euclidean_prox_only_is_refused_with_the_way_out() -> None:
    from openwork.penalties import Penalty

    class Euclidean(Penalty):
        def value(self, x: Tensor) -> Tensor:
            return x.abs().sum()

        def prox(self, x: Tensor, step: float | Tensor) -> Tensor:
            return x

        def structure(self, x: Tensor):
            raise NotImplementedError

    with pytest.raises(TypeError, match=r"RAMDA needs .* diagonal metric.*wrap it as ProximalGradient\(Euclidean\("):
        RAMDA([nn.Parameter(torch.ones(2))], penalty=Euclidean())  # pyright: ignore[reportArgumentType]


def test_negative_eps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"RAMDA: eps must be at least 0, got -1"):
        RAMDA([nn.Parameter(torch.ones(2))], eps=-1.0)
