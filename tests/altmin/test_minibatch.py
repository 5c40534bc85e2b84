"""Mini-batches, which are ours: what a step is, and how they live next to sweeps."""

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from openwork.altmin import (
    AdaptiveRho,
    AMTrainer,
    CrossEntropy,
    MiniBatch,
    QuadraticPenalty,
    Sign,
    SignHomotopy,
    Squared,
    links_of,
)
from openwork.altmin.minibatch import MiniBatches
from openwork.altmin.network import Network
from openwork.penalties import L1, Zero
from tests.altmin.tasks import blobs, labelled, linear, network

D = torch.float64


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_it_learns_from_batches(momentum: float) -> None:
    x, y = blobs(size=300)
    model = network(widths=(2, 16, 3))
    trainer = AMTrainer(model, minibatch=MiniBatch(momentum=momentum))
    for _ in range(8):
        for start in range(0, 300, 50):
            assert trainer.partial_fit(x[start : start + 50], y[start : start + 50]) is trainer
    assert (model(x).argmax(1) == y).double().mean() > 0.95


def test_sign_layers_move() -> None:
    x, y = blobs(size=60)
    model = nn.Sequential(nn.Linear(2, 8), Sign(), nn.Linear(8, 3)).to(D)
    before = linear(model, 0).weight.detach().clone()
    AMTrainer(model).partial_fit(x, y)
    assert not torch.equal(linear(model, 0).weight, before)


@pytest.mark.parametrize("bias", [True, False])
def test_one_layer_takes_the_damped_ridge_step(bias: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 2, bias=bias)).to(D)
    x, y = torch.randn(30, 4, dtype=D), torch.randn(30, 2, dtype=D)
    read = torch.cat([x, torch.ones(30, 1, dtype=D)], 1) if bias else x
    z = model(x).detach()
    code = (y + 0.5 * z) / 1.5
    ridge = torch.linalg.solve(read.T @ read / 30 + 0.7 * torch.eye(read.shape[1], dtype=D), read.T @ (code - z) / 30)
    AMTrainer(model, loss=Squared(), rho=0.5, minibatch=MiniBatch(damping=0.7)).partial_fit(x, y)
    torch.testing.assert_close(model(x), z + read @ ridge)


def test_penalized_weights_take_the_proximal_step() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 2, bias=False)).to(D)
    x, y = torch.randn(30, 4, dtype=D), torch.randn(30, 2, dtype=D)
    weight, z = linear(model, 0).weight.detach().clone(), model(x).detach()
    theta = torch.linalg.matrix_norm(x.T @ x / 30 + 0.7 * torch.eye(4, dtype=D), 2) * 0.5
    gradient = 0.5 * (z - (y + 0.5 * z) / 1.5).T @ x / 30
    point = weight - gradient / theta
    expected = point.sign() * (point.abs() - 0.1 / theta).clamp(min=0)
    options: dict[str, Any] = {"loss": Squared(), "rho": 0.5, "minibatch": MiniBatch(damping=0.7)}
    AMTrainer(model, penalties={"0": L1(0.1)}, **options).partial_fit(x, y)
    torch.testing.assert_close(linear(model, 0).weight.detach(), expected)
    assert (expected == 0).any()


def test_codes_lower_the_objective_of_the_batch() -> None:
    x, y = blobs(size=60)
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3)).to(D)
    links, activations = links_of(model)
    loss = CrossEntropy()
    batches = MiniBatches(Network(model, links, activations, [Zero()] * 3), loss, 0.1, MiniBatch())
    with torch.no_grad():
        batch = batches.begin(x, y)

        def objective() -> float:
            parts = zip(links, batch.inputs, batch.codes, strict=True)
            terms = [(link.bias_add(link.forward(a)) - z).square().sum() * 0.05 for link, a, z in parts]
            return float(loss.value(batch.codes[-1], y) + sum(terms))

        values = [objective()]
        for _ in range(10):
            batches.move_codes(batch)
            values.append(objective())
    assert all(b <= a * (1 + 1e-10) for a, b in pairwise(values))
    assert values[-1] < 0.8 * values[0]


def test_a_loaded_trainer_goes_on_bit_for_bit() -> None:
    x, y = labelled(size=80)
    options: dict[str, Any] = {"minibatch": MiniBatch(momentum=0.6), "penalties": {"2": L1(1e-3)}}
    first, second = AMTrainer(network(), **options), AMTrainer(network(seed=4), **options)
    for start in (0, 20, 40):
        first.partial_fit(x[start : start + 20], y[start : start + 20])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for trainer in (first, second):
        trainer.partial_fit(x[60:], y[60:]).partial_fit(x[:20], y[:20])
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))
    other = AMTrainer(network(widths=(5, 4, 3)))
    with pytest.raises(
        ValueError, match=r"the model has weights of shapes \[\(4, 5\), .*, the state to load \[\(7, 5\)"
    ):
        other.load_state_dict(first.state_dict())


def test_fit_starts_anew_from_the_weights_of_mini_batches() -> None:
    x, y = labelled()
    trainer, alone = AMTrainer(network(), chunk_size=9), AMTrainer(network(), chunk_size=9)
    trainer.fit(x, y, 3)
    trainer.partial_fit(x, y)
    alone.model.load_state_dict(trainer.model.state_dict())
    trainer.fit(x, y, 2)
    alone.fit(x, y, 2)
    assert len(trainer.report()["objective"]) == 2
    assert trainer.report()["objective"] == alone.report()["objective"]


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"MiniBatch: passes must be >= 1, got 0"):
        MiniBatch(passes=0)
    with pytest.raises(ValueError, match=r"MiniBatch: damping must be > 0 and finite, got 0"):
        MiniBatch(damping=0.0)
    with pytest.raises(ValueError, match=r"MiniBatch: momentum must be in \[0, 1\), got 1"):
        MiniBatch(momentum=1.0)
    x, y = labelled()
    with pytest.raises(TypeError, match=r"AMTrainer.partial_fit: training on mini-batches needs linear layers"):
        AMTrainer(nn.Sequential(nn.Conv1d(1, 1, 1))).partial_fit(x, y)
    with pytest.raises(
        ValueError, match=r"rho must be a number, since there are no sweeps to adapt it by, got Adaptive"
    ):
        AMTrainer(network(), rho=AdaptiveRho()).partial_fit(x, y)
    for options in ({"coupling": QuadraticPenalty()}, {"multiplier": True}, {"homotopy": SignHomotopy(3)}):
        arguments: dict[str, Any] = options
        with pytest.raises(
            ValueError, match=r"mini-batches need coupling=Exact\(\) without multiplier and homotopy, got"
        ):
            AMTrainer(network(), **arguments).partial_fit(x, y)
    with pytest.raises(ValueError, match=r"labels must be in 0, \.\.\., 2"):
        AMTrainer(network()).partial_fit(x, y + 1)
