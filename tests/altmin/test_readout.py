"""Refit of the last layer."""

import pytest
import torch
from torch import nn

from openwork.altmin import CrossEntropy, Squared, links_of
from openwork.altmin.readout import refit_readout
from openwork.penalties import L1, Nonnegative, NuclearNorm, Zero
from tests.altmin.tasks import labelled, linear, network, targets


def test_with_a_squared_loss_it_is_ridge_regression() -> None:
    x, y = targets()
    model = network(widths=(5, 3))
    with torch.no_grad():
        linear(model, 0).weight.mul_(10)
        assert refit_readout(links_of(model)[0][0], [(x, y)], Squared(), mu=0.7, penalty=Zero())
    ones = torch.cat([x, torch.ones(40, 1, dtype=torch.float64)], 1)
    ridge = 0.7 * torch.eye(6, dtype=torch.float64)
    ridge[5, 5] = 0
    solution = torch.linalg.solve(ones.T @ ones + ridge, ones.T @ y).T
    torch.testing.assert_close(linear(model, 0).weight.detach(), solution[:, :5], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(linear(model, 0).bias.detach(), solution[:, 5], rtol=1e-5, atol=1e-6)


def test_with_cross_entropy_the_gradient_vanishes() -> None:
    x, y = labelled()
    model = network(widths=(5, 3))
    with torch.no_grad():
        refit_readout(links_of(model)[0][0], [(x, y)], CrossEntropy(), mu=0.5, penalty=Zero())
    loss = nn.functional.cross_entropy(model(x), y, reduction="sum") + 0.25 * linear(model, 0).weight.square().sum()
    loss.backward()
    for p in model.parameters():
        assert p.grad is not None and p.grad.abs().max() < 1e-4


@pytest.mark.parametrize("frozen", [False, True])
def test_zeros_are_frozen_if_asked(frozen: bool) -> None:
    x, y = labelled()
    model = network(widths=(5, 3))
    with torch.no_grad():
        linear(model, 0).weight[:, 1] = 0
        refit_readout(links_of(model)[0][0], [(x, y)], CrossEntropy(), mu=0.1, penalty=L1(1e-3) if frozen else Zero())
    assert bool((linear(model, 0).weight[:, 1] == 0).all()) == frozen


def test_nothing_changes_if_the_loss_would_not_fall() -> None:
    x, y = labelled()
    model = network(widths=(5, 3))
    link = links_of(model)[0][0]
    with torch.no_grad():
        refit_readout(link, [(x[:15], y[:15]), (x[15:], y[15:])], CrossEntropy(), mu=0.0, penalty=Zero())
        before = linear(model, 0).weight.clone()
        assert not refit_readout(link, [(x[:15], y[:15]), (x[15:], y[15:])], CrossEntropy(), mu=50.0, penalty=Zero())
    assert torch.equal(before, linear(model, 0).weight)


def test_the_rank_of_a_penalized_output_layer_stays() -> None:
    x, y = labelled()
    model = network(widths=(5, 3))
    with torch.no_grad():
        weight = linear(model, 0).weight
        weight.copy_(weight[:, :1] * weight[:1])
        before, bias = weight.clone(), linear(model, 0).bias.clone()
        assert refit_readout(links_of(model)[0][0], [(x, y)], CrossEntropy(), mu=0.1, penalty=NuclearNorm(0.1))
    assert torch.equal(weight, before)
    assert not torch.equal(linear(model, 0).bias, bias)


def test_a_refit_does_not_go_where_the_penalty_forbids() -> None:
    x, y = labelled()
    model = network(widths=(5, 3))
    with torch.no_grad():
        weight = linear(model, 0).weight.abs_()
        before = weight.clone()
        assert not refit_readout(links_of(model)[0][0], [(x, y)], CrossEntropy(), 0.1, Nonnegative(L1(1e-3)))
    assert torch.equal(weight, before)
