from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from openwork.optim import RMDA
from openwork.optim.rmda import rmda_points
from openwork.penalties import L1, GroupLasso
from openwork.testing import check_optimizer


@pytest.mark.parametrize("options", [{}, {"averaging": 1.0}, {"lr": 1.0, "averaging": 0.01}], ids=str)
def test_contract(options: dict[str, float]) -> None:
    check_optimizer(partial(RMDA, **options))


def shrink(x: Tensor, threshold: float) -> Tensor:
    columns = [c * max(0.0, 1 - threshold / float(c.norm())) for c in x.unbind(1)]
    return torch.stack(columns, 1)


def test_follows_the_paper_through_a_restart(weight, gradient, follow) -> None:
    lam, eta, c = 0.2, 0.1, 0.3
    param = nn.Parameter(weight.clone())
    optimizer = RMDA([param], lr=eta, averaging=c, penalty=GroupLasso(lam))
    w, seen = weight.clone(), set()
    for stage in range(2):
        w0, v, alpha = w.clone(), torch.zeros_like(w), 0.0
        for t in range(1, 31):
            g = gradient(w, 30 * stage + t)
            s = eta * t**0.5
            alpha += s
            v = v + s * g
            what = shrink(w0 - v / t**0.5, alpha / t**0.5 * lam * 5**0.5)
            w = (1 - c) * w + c * what

            follow(optimizer, param, 30 * stage + t)
            torch.testing.assert_close(param.detach(), w, rtol=1e-11, atol=1e-11)
            with optimizer.structured():
                torch.testing.assert_close(param.detach(), what, rtol=1e-11, atol=1e-11)
                seen.add(int((param != 0).any(0).sum()))
        eta *= 0.1
        optimizer.param_groups[0]["lr"] = eta
        optimizer.restart()
    assert len(seen) > 1 and max(seen) <= 6


def test_first_step_by_hand() -> None:
    param = nn.Parameter(torch.tensor([[3.0, 0.2], [4.0, 0.1]], dtype=torch.float64))
    param.grad = torch.tensor([[1.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    optimizer = RMDA([param], lr=0.5, averaging=0.25, penalty=GroupLasso(0.4, weight="one"))
    optimizer.step()
    # W0 - 0.5 G has columns (2.5, 3) and (0.2, 0.1); both lose 0.5 * 0.4 of their norm.
    norm = (2.5**2 + 3**2) ** 0.5
    point = torch.tensor([[2.5, 0.0], [3.0, 0.0]], dtype=torch.float64) * (1 - 0.2 / norm)
    point[:, 1] = torch.tensor([0.2, 0.1]) * (1 - 0.2 / 0.05**0.5)
    with optimizer.structured():
        torch.testing.assert_close(param.detach(), point)
    torch.testing.assert_close(param.detach(), 0.75 * torch.tensor([[3.0, 0.2], [4.0, 0.1]]).double() + 0.25 * point)


def test_without_a_penalty_it_is_dual_averaging(weight, gradient, follow) -> None:
    param = nn.Parameter(weight.clone())
    optimizer = RMDA([param], lr=0.1, averaging=1.0)
    total = torch.zeros_like(weight)
    for t in range(1, 21):
        total += 0.1 * t**0.5 * gradient(param, t)
        follow(optimizer, param, t)
        torch.testing.assert_close(param.detach(), weight - total / t**0.5)


def test_the_prox_point_is_the_closed_form(weight) -> None:
    sums = torch.randn_like(weight)
    (solution,) = rmda_points([weight], [sums], penalty=L1(0.3), scale=2.0, penalty_step=0.5)
    torch.testing.assert_close(solution.x, L1(0.3).prox(weight - sums / 2, 0.5), rtol=0, atol=0)


def test_restart_equals_a_fresh_optimizer(weight, follow) -> None:
    param = nn.Parameter(weight)
    old = RMDA([param], lr=0.1, penalty=GroupLasso(0.1))
    for t in range(10):
        follow(old, param, t)
    twin = deepcopy(param)
    fresh = RMDA([twin], lr=0.01, penalty=GroupLasso(0.1))
    old.param_groups[0]["lr"] = 0.01
    old.restart()
    for t in range(10, 30):
        follow(old, param, t)
        follow(fresh, twin, t)
        assert torch.equal(param, twin)


def test_with_averaging_one_the_weights_are_the_prox_point(weight, follow) -> None:
    param = nn.Parameter(weight)
    optimizer = RMDA([param], averaging=1.0, penalty=GroupLasso(0.5))
    for t in range(20):
        follow(optimizer, param, t)
        before = param.detach().clone()
        with optimizer.structured():
            assert torch.equal(param, before)
    assert 0 < optimizer.read_out().alive < 6
    assert torch.equal((param != 0).any(0), optimizer.structures()[param].kept)


def test_below_one_the_zeros_are_in_the_prox_point_only(weight, follow) -> None:
    param = nn.Parameter(weight)
    optimizer = RMDA([param], averaging=0.5, penalty=GroupLasso(0.5))
    for t in range(20):
        follow(optimizer, param, t)
    assert (param != 0).all()
    with optimizer.structured():
        assert (param == 0).any()


@pytest.mark.parametrize("averaging", [0.0, -0.1, 1.5, float("nan")])
def test_averaging_out_of_range_is_refused(averaging: float) -> None:
    with pytest.raises(ValueError, match=r"RMDA: averaging must be above 0 and at most 1, got"):
        RMDA([nn.Parameter(torch.ones(2))], averaging=averaging)
