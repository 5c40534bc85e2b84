"""Refit of the last layer."""

import pytest
import torch
from torch import nn

from openwork.altmin import CrossEntropy, Squared, links_of
from openwork.altmin.readout import refit_readout
from tests.altmin.tasks import labelled, linear, network, targets


def test_with_a_squared_loss_it_is_ridge_regression() -> None:
    x, y = targets()
    model = network(widths=(5, 3))
    with torch.no_grad():
        linear(model, 0).weight.mul_(10)
        assert refit_readout(links_of(model)[0][0], [(x, y)], Squared(), mu=0.7, frozen=False)
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
        refit_readout(links_of(model)[0][0], [(x, y)], CrossEntropy(), mu=0.5, frozen=False)
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
        refit_readout(links_of(model)[0][0], [(x, y)], CrossEntropy(), mu=0.1, frozen=frozen)
    assert bool((linear(model, 0).weight[:, 1] == 0).all()) == frozen


def test_nothing_changes_if_the_loss_would_not_fall() -> None:
    x, y = labelled()
    model = network(widths=(5, 3))
    link = links_of(model)[0][0]
    with torch.no_grad():
        refit_readout(link, [(x[:15], y[:15]), (x[15:], y[15:])], CrossEntropy(), mu=0.0, frozen=False)
        before = linear(model, 0).weight.clone()
        assert not refit_readout(link, [(x[:15], y[:15]), (x[15:], y[15:])], CrossEntropy(), mu=50.0, frozen=False)
    assert torch.equal(before, linear(model, 0).weight)
