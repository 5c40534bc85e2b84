"""SynFlow against a transcription of its algorithm, and that it leaves a way through every layer."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from openwork.baselines import Pruning, SynFlow
from tests.baselines.loop import batch, best, convolutional, images, kept, network, sgd, started


def naive(model: nn.Module, shape: tuple[int, ...], density: float, iterations: int) -> dict[str, list[int]]:
    """Algorithm 1: linearize a copy, prune what has the lowest score, again and again."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.zero_() if name.endswith("bias") else value.abs_()
    linear = {name: p for name, p in model.named_parameters() if p.ndim > 1}
    alive = {name: torch.ones_like(p) for name, p in linear.items()}
    total = sum(p.numel() for p in linear.values())
    chosen: dict[str, list[int]] = {}
    for k in range(1, iterations + 1):
        with torch.no_grad():
            for name, p in linear.items():
                p.mul_(alive[name])
        model.zero_grad()
        model(torch.ones(1, *shape, dtype=torch.float64)).sum().backward()
        scores = {}
        for name, p in linear.items():
            assert p.grad is not None
            scores[name] = torch.where(alive[name] > 0, p.grad * p, -1.0).detach()
        chosen = best(scores, round(total * density ** (k / iterations)))
        for name, mask in alive.items():
            mask.zero_().view(-1)[chosen[name]] = 1
    return chosen


@pytest.mark.parametrize(("density", "iterations"), [(0.05, 100), (0.1, 7), (0.3, 1)])
def test_masks_are_the_algorithms(density: float, iterations: int) -> None:
    pruning = started(SynFlow(density, iterations), 3)
    assert kept(pruning) == naive(network(), (6,), density, iterations)
    assert pruning.masks.alive == round(72 * density)


def test_a_convolution_with_normalization_and_signs_that_come_back() -> None:
    model = convolutional()
    with torch.no_grad():
        model[1].running_mean.copy_(torch.randn(4))  # pyright: ignore
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pruning = Pruning(SynFlow(0.1, 5), model, sgd(model), steps=2)
    pruning.begin(cross_entropy, *images())
    copied = convolutional()
    copied.load_state_dict(before)
    assert kept(pruning) == naive(copied, (1, 4, 4), 0.1, 5)
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] * pruning.masks.kept.get(name, torch.ones((), dtype=torch.bool))), name


def narrow() -> nn.Sequential:
    """240 + 160 + 120 + 240 + 24 weights."""
    torch.manual_seed(0)
    widths = (6, 40, 4, 30, 8, 3)
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1]).double()


@pytest.mark.parametrize("alive", [5, 8, 20])
def test_there_is_a_way_through_every_layer(alive: int) -> None:
    """Five layers of very different sizes and five weights: one each."""
    model = narrow()
    pruning = Pruning(SynFlow(alive / 784), model, sgd(model), steps=2)
    pruning.begin(cross_entropy, *batch(0))
    assert pruning.masks.alive == alive
    assert all(kept(pruning).values())
    with torch.no_grad():
        for p in model.parameters():
            p.abs_()
        flow = model(torch.ones(1, 6, dtype=torch.float64)) - model(torch.zeros(1, 6, dtype=torch.float64))
    assert float(flow.abs().sum()) > 0


def test_one_iteration_alone_cuts_layers_off() -> None:
    model = narrow()
    pruning = Pruning(SynFlow(8 / 784, iterations=1), model, sgd(model), steps=2)
    with pytest.warns(UserWarning, match="SynFlow: nothing is left of .* at this density"):
        pruning.begin(cross_entropy, *batch(0))


def test_a_deep_network_stays_in_range() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(60, 60) for _ in range(60)))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3.0)  # the flow grows by about 12 a layer: 1e64 and more, beyond single precision
    pruning = Pruning(SynFlow(0.05, 3), model, sgd(model), steps=2)
    pruning.begin(cross_entropy, torch.ones(3, 60), torch.zeros(3, dtype=torch.int64))
    assert pruning.masks.alive == 10800
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_inputs_that_are_no_numbers_are_refused() -> None:
    pruning = Pruning(SynFlow(0.5), model := network(), sgd(model), steps=2)
    with pytest.raises(
        ValueError, match=r"SynFlow: an input of ones needs real numbers, and the model takes torch.int64"
    ):
        pruning.begin(cross_entropy, torch.ones(2, 6, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
