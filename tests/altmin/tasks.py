"""Small networks and samples in double precision that the tests of alternating minimization share."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from openwork.altmin import AMTrainer
from openwork.altmin.sweep import WholeBlocks

Samples = tuple[Tensor, Tensor]


def network(
    seed: int = 0, widths: tuple[int, ...] = (5, 7, 6, 3), activation: Callable[[], nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Linear layers with an activation between them."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs, dtype=torch.float64), activation()]
    return nn.Sequential(*layers[:-1])


def labelled(seed: int = 0, size: int = 40, inputs: int = 5, classes: int = 3) -> Samples:
    """Gaussian inputs with the labels of a random network."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, inputs, dtype=torch.float64, generator=generator)
    first = torch.randn(inputs, 12, dtype=torch.float64, generator=generator)
    second = torch.randn(12, classes, dtype=torch.float64, generator=generator)
    return x, ((x @ first).clamp(min=0) @ second).argmax(1)


def targets(seed: int = 0, size: int = 40, inputs: int = 5, outputs: int = 3) -> Samples:
    """Gaussian inputs with real targets."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, inputs, dtype=torch.float64, generator=generator)
    return x, torch.randn(size, outputs, dtype=torch.float64, generator=generator)


def blobs(seed: int = 0, size: int = 90) -> Samples:
    """Three clusters in the plane that a line separates from one another."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.tensor([[3.0, 0.0], [-2.0, 2.5], [-2.0, -2.5]], dtype=torch.float64)
    y = torch.arange(size) % 3
    return centers[y] + 0.6 * torch.randn(size, 2, dtype=torch.float64, generator=generator), y


def linear(model: nn.Module, index: int) -> nn.Linear:
    """The linear layer at a place of a network."""
    assert isinstance(model, nn.Sequential)
    layer = model[index]
    assert isinstance(layer, nn.Linear)
    return layer


def blocks_of(trainer: AMTrainer) -> WholeBlocks:
    """The blocks of a trainer that has all its samples at once."""
    blocks, _ = trainer._started()
    assert isinstance(blocks, WholeBlocks)
    return blocks
