"""A tiny network, its batches, and a plain training loop under masks."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Optimizer

from openwork.baselines import Baseline, Pruning


def network(*middle: nn.Module) -> nn.Sequential:
    """48 + 24 weights, whose biases are not zero."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), *middle, nn.ReLU(), nn.Linear(8, 3)).double()


def convolutional() -> nn.Sequential:
    """36 + 216 + 288 weights."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 3),
    ).double()


def images(samples: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(samples, 1, 4, 4, generator=generator, dtype=torch.float64), torch.arange(samples) % 3


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 6, generator=generator, dtype=torch.float64), torch.arange(8) % 3


def sgd(model: nn.Module) -> Optimizer:
    return SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)


def started(
    baseline: Baseline, steps: int, period: int = 1, make: Callable[[nn.Module], Optimizer] = sgd, seed: int = 0
) -> Pruning:
    model = network()
    pruning = Pruning(baseline, model, make(model), steps=steps, period=period, seed=seed)
    pruning.begin(cross_entropy, *batch(0))
    return pruning


def step(pruning: Pruning, samples: tuple[Tensor, Tensor] | None = None) -> None:
    inputs, targets = samples or batch(pruning.step)
    cross_entropy(pruning.model(inputs), targets).backward()
    pruning.optimizer.step()
    pruning.optimizer.zero_grad()


def weights(pruning: Pruning) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in pruning.masks.weights.items()}


def kept(pruning: Pruning) -> dict[str, list[int]]:
    """Places of what is kept, in the order of the flat weight."""
    return places(pruning.masks.kept)


def places(masks: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {name: mask.flatten().nonzero().flatten().tolist() for name, mask in masks.items()}


def best(scores: Mapping[str, Tensor], count: int) -> dict[str, list[int]]:
    """Naively: sort all entries of all weights, take the first so many."""
    entries = [
        (-float(score), position, name, place)
        for position, (name, tensor) in enumerate(scores.items())
        for place, score in enumerate(tensor.flatten().tolist())
    ]
    chosen: dict[str, list[int]] = {name: [] for name in scores}
    for _, _, name, place in sorted(entries, key=lambda e: (e[0], e[1], e[3]))[:count]:
        chosen[name].append(place)
    return {name: sorted(found) for name, found in chosen.items()}


def assert_zeros(pruning: Pruning) -> None:
    for name, weight in pruning.masks.weights.items():
        gone = ~pruning.masks.kept[name]
        assert bool((weight[gone] == 0).all()), name
        for key, value in pruning.optimizer.state.get(weight, {}).items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                assert bool((value[gone] == 0).all()), f"{key} of {name}"
