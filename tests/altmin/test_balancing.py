"""Scales moved between layers: the network stays, the weights become equally long."""

import pytest
import torch
from torch import nn

from openwork.altmin import AMTrainer, QuadraticPenalty
from openwork.altmin.balancing import balance
from tests.altmin.tasks import labelled, linear, network


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU])
def test_the_network_stays_and_units_are_balanced(activation: type[nn.Module]) -> None:
    model = network(activation=activation)
    trainer = AMTrainer(model, coupling=QuadraticPenalty(), balance=0)
    x, y = labelled()
    trainer.start(x, y)
    for _ in range(4):
        trainer.sweep()
    problem = trainer._started()[0].problem
    outputs, before = model(x), [layer.weight.now.square().sum() for layer in problem.layers]
    for _ in range(40):
        balance(problem)
    torch.testing.assert_close(model(x), outputs, rtol=1e-12, atol=1e-12)
    assert sum(layer.weight.now.square().sum() for layer in problem.layers) < sum(before)
    for layer, following in zip(problem.layers, problem.layers[1:], strict=False):
        torch.testing.assert_close(layer.weight.now.norm(dim=1), following.weight.now.norm(dim=0), rtol=1e-6, atol=0)
    residuals = [layer.residual for layer in problem.layers]
    problem.recompute()
    for old, layer in zip(residuals, problem.layers, strict=True):
        torch.testing.assert_close(old, layer.residual, rtol=1e-9, atol=1e-11)


def test_histories_are_rescaled_along() -> None:
    """A sweep of a balanced problem has the inertia it would have had, in the new scales."""
    trainer = AMTrainer(network(), balance=0)
    trainer.start(*labelled())
    for _ in range(4):
        trainer.sweep()
    problem = trainer._started()[0].problem
    layer, following = problem.layers[:2]
    balance(problem)
    assert layer.weight.before is not None and layer.weight_push is not None
    torch.testing.assert_close(layer.weight_push, problem.x @ (layer.weight.now - layer.weight.before).T)
    assert layer.a is not None and layer.a.before is not None
    torch.testing.assert_close(layer.a.before, layer.z.before.clamp(min=0) if layer.z.before is not None else None)
    assert following.weight.before is not None


def test_units_without_weights_and_other_activations_stay() -> None:
    model = network(activation=nn.ReLU)
    with torch.no_grad():
        linear(model, 0).weight[2] = 0
        linear(model, 2).weight[:, 4] = 0
    trainer = AMTrainer(model)
    trainer.start(*labelled())
    problem = trainer._started()[0].problem
    balance(problem)
    assert torch.equal(problem.layers[0].weight.now[2], torch.zeros(5, dtype=torch.float64))
    assert torch.equal(problem.layers[1].weight.now[:, 4], torch.zeros(6, dtype=torch.float64))
    assert all(layer.weight.now.isfinite().all() for layer in problem.layers)


def test_units_that_are_all_bias_do_not_grow_without_bound() -> None:
    """Inputs that say nothing: the first weight decays to nothing, and its scale would be without bound."""
    x, y = labelled()
    trainer = AMTrainer(network())
    trainer.start(torch.zeros_like(x), y)
    with pytest.warns(UserWarning, match="shrank more than tenfold"):
        objectives = [trainer.sweep().objective for _ in range(25)]
    assert objectives[-1] < objectives[0]
    assert all(layer.z.now.abs().max() < 100 for layer in trainer._started()[0].problem.layers)
