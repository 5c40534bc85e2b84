"""RigL against a transcription of its algorithm."""

from math import cos, pi

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from openwork.baselines import RigL
from openwork.baselines.allocation import Layers, counts
from tests.baselines.loop import assert_zeros, batch, kept, started, step, weights


def moved(weight: Tensor, grad: Tensor, active: list[int], fraction: float) -> tuple[list[int], list[int]]:
    """What stays, and what is grown, of one weight."""
    k = int(fraction * len(active))
    stays = sorted(active, key=lambda i: (-abs(float(weight.flatten()[i])), i))[: len(active) - k]
    others = [i for i in range(weight.numel()) if i not in stays]
    return sorted(stays), sorted(others, key=lambda i: (-abs(float(grad.flatten()[i])), i))[:k]


@pytest.mark.parametrize("layers", ["erk", "uniform"])
@pytest.mark.parametrize("alpha", [0.3, 0.9])
def test_every_step_is_the_algorithms(layers: Layers, alpha: float) -> None:
    steps, every, end = 40, 4, 0.75
    pruning = started(RigL(0.4, layers, alpha=alpha, every=every, end=end), steps)
    numbers = counts(pruning.masks.weights, 0.4, layers)
    changes = 0
    for t in range(1, steps + 1):
        before, active = weights(pruning), kept(pruning)
        momenta = {
            name: pruning.optimizer.state.get(w, {}).get("momentum_buffer", torch.zeros_like(w)).clone()
            for name, w in pruning.masks.weights.items()
        }
        inputs, targets = batch(t)
        loss = cross_entropy(pruning.model(inputs), targets)
        grads = dict(zip(before, torch.autograd.grad(loss, list(pruning.masks.weights.values())), strict=True))
        bias = pruning.model.get_parameter("0.bias").detach().clone()
        step(pruning, (inputs, targets))
        assert_zeros(pruning)
        assert {name: len(places) for name, places in kept(pruning).items()} == numbers
        if t % every or t >= end * steps:
            assert kept(pruning) == active
            assert not torch.equal(bias, pruning.model.get_parameter("0.bias"))
            continue
        # No weight moves in such a step, not even those that have no mask.
        assert torch.equal(bias, pruning.model.get_parameter("0.bias"))
        for name, weight in pruning.masks.weights.items():
            stays, grown = moved(before[name], grads[name], active[name], alpha / 2 * (1 + cos(pi * t / (end * steps))))
            assert kept(pruning)[name] == sorted(stays + grown)
            again = [i for i in stays + grown if i in active[name]]
            new = [i for i in grown if i not in active[name]]
            changes += len(new)
            momentum = pruning.optimizer.state[weight]["momentum_buffer"].flatten()
            assert torch.equal(weight.detach().flatten()[again], before[name].flatten()[again])
            assert torch.equal(momentum[again], momenta[name].flatten()[again])
            assert not weight.detach().flatten()[new].any()
            assert not momentum[new].any()
    assert changes >= 5


def test_uniform_keeps_the_first_layer_dense() -> None:
    pruning = started(RigL(0.25, "uniform", every=2), 20)
    assert {name: len(places) for name, places in kept(pruning).items()} == {"0.weight": 48, "2.weight": 6}
    for _ in range(20):
        step(pruning)
    pruning.settle_()
    assert {name: len(places) for name, places in kept(pruning).items()} == {"0.weight": 48, "2.weight": 6}


def test_a_weight_without_gradient_keeps_its_mask() -> None:
    pruning = started(RigL(0.4, every=1), 20)
    before = kept(pruning)
    for _ in range(5):
        pruning.model[0](batch(pruning.step)[0]).sum().backward()  # pyright: ignore[reportIndexIssue]
        pruning.optimizer.step()
        pruning.optimizer.zero_grad()
    assert kept(pruning)["2.weight"] == before["2.weight"]
    assert kept(pruning)["0.weight"] != before["0.weight"]
