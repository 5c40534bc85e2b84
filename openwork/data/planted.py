"""Samples made up so that it is known which inputs matter."""

import torch

from openwork.data.generators import generator
from openwork.data.splits import Data, Split

# Units of the hidden layer of the network that labels the samples.
TEACHER = 12


def planted(
    informative: int = 12, noise: int = 24, samples: int = 1000, *, classes: int = 4, valid: float = 0.2, seed: int = 0
) -> Data:
    """Gaussian inputs labelled by a random ReLU network that reads only the first of them.

    Args:
        informative: Inputs that the labels depend on, which come first, >= 1.
        noise: Inputs after them that the labels do not depend on, >= 0.
        samples: For training and validation together; 2000 more are for testing.
        classes: Of the labels, >= 2.
        valid: Samples to hold out, a fraction or a whole number.
        seed: Of all of it.

    Returns:
        Inputs ``(N, informative + noise)`` float32; targets ``(N,)`` int64.

    Raises:
        ValueError: If a number is out of range, or ``valid`` leaves nothing to train on.
    """
    for name, number, least in (
        ("informative", informative, 1),
        ("noise", noise, 0),
        ("samples", samples, 1),
        ("classes", classes, 2),
    ):
        if number < least:
            raise ValueError(f"planted: {name} must be at least {least}, got {number}")
    draw = generator("planted", seed)
    first = torch.randn(informative, TEACHER, generator=draw)
    second = torch.randn(TEACHER, classes, generator=draw)
    x = torch.randn(samples + 2000, informative + noise, generator=draw)
    labels = ((x[:, :informative] @ first).clamp(min=0) @ second).argmax(1)
    train, test = Split(x[:samples], labels[:samples]), Split(x[samples:], labels[samples:])
    data = Data("planted", train=train, valid=train.none(), test=test, classes=classes, note="samples are made up")
    return data.hold_out(valid, seed)
