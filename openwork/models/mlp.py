"""Fully connected networks."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn

from openwork.models.arguments import at_least_one
from openwork.models.seeding import seeded


def logistic(features: int = 784, classes: int = 10, *, zero_init: bool = True, seed: int = 0) -> nn.Sequential:
    """Multinomial logistic regression: one linear layer on the flattened input.

    Args:
        features: Numbers in one sample.
        classes: Logits.
        zero_init: Start at the origin, as a convex problem may; else as ``nn.Linear`` does.
        seed: Of the initial weights.

    Returns:
        A module from ``(N, ...)`` with ``features`` entries a sample to logits ``(N, classes)``.

    Raises:
        ValueError: If a size is less than 1.
    """
    at_least_one("logistic", features=features, classes=classes)
    with seeded(seed):
        linear = nn.Linear(features, classes)
    if zero_init:
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.Flatten(), linear)


def mlp(
    widths: Sequence[int] = (64, 128, 64, 10), *, activation: Callable[[], nn.Module] = nn.ReLU, seed: int = 0
) -> nn.Sequential:
    """Linear layers with an activation between them.

    Args:
        widths: Numbers in one sample, units of each hidden layer, and logits. The default suits the 8 x 8 digits.
        activation: Makes one of them.
        seed: Of the initial weights.

    Returns:
        A module from ``(N, ...)`` with ``widths[0]`` entries a sample to logits ``(N, widths[-1])``.

    Raises:
        ValueError: If there are fewer than two widths, or one is less than 1.
    """
    if len(widths) < 2:
        raise ValueError(f"mlp: widths must name at least the inputs and the outputs, got {tuple(widths)}")
    at_least_one("mlp", **{f"widths[{i}]": width for i, width in enumerate(widths)})
    layers: list[nn.Module] = [nn.Flatten()]
    with seeded(seed):
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def mlp7(classes: int = 10, *, seed: int = 0) -> nn.Sequential:
    """The seven linear layers 784-512-256-128-64-32-16-``classes`` of the RAMDA paper's nuclear-norm experiment.

    The experiment is on Fashion-MNIST; the list is that of the authors' code (the paper says six layers). It has
    577 178 parameters at 10 classes.

    Raises:
        ValueError: If ``classes`` is less than 1.

    References:
        Huang & Lee, Regularized adaptive momentum dual averaging (NeurIPS 2024), arXiv:2403.14398.
    """
    at_least_one("mlp7", classes=classes)
    return mlp((784, 512, 256, 128, 64, 32, 16, classes), seed=seed)
