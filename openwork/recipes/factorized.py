"""Deep weight factorization: weights as products of factors, whose L2 makes single weights or whole units zero."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from openwork import data, models
from openwork.factorizations import Initialization, Sampled
from openwork.optim import FactorizedSGD
from openwork.training import Precision, Run, supervised

Images = Literal["mnist", "fashion", "kmnist"]


def dwf_digits(
    lam: float = 5e-3,
    depth: int = 3,
    lr: float = 0.5,
    momentum: float = 0.9,
    epochs: int = 60,
    warmup: int = 3,
    batch_size: int = 64,
    hidden: tuple[int, ...] = (128, 64),
    refit: int = 0,
    seed: int = 0,
) -> Run:
    """Digits with deep weight factorization: single weights become zero.

    Args:
        lam: Strength of the factors' L2, which is that of ``sum |w|^(2/depth)``.
        depth: Factors of a weight, at least 2.
        lr: Largest learning rate, several times that of the dense network.
        momentum: Of SGD, in [0, 1).
        epochs: Passes over the training samples.
        warmup: The first of them, in which the learning rate grows; then it falls to 0 along half a cosine.
        batch_size: Samples per step.
        hidden: Units of each hidden layer.
        refit: Epochs after the others without the penalty, in which zeros stay.
        seed: Of weights, factors, validation split and order of the samples.
    """
    network = _he_normal(models.mlp((64, *hidden, 10), seed=seed), seed)
    optimizer = _factorized(network, lam, depth, lr, momentum, seed)
    return supervised(
        network,
        cross_entropy,
        optimizer,
        data=data.digits(seed=seed),
        epochs=epochs,
        schedule="cosine",
        warmup=min(warmup, epochs),
        batch_size=batch_size,
        refit=refit,
        seed=seed,
    )


def _factorized(
    network: nn.Module,
    lam: float,
    depth: int,
    lr: float,
    momentum: float,
    seed: int,
    init: Initialization = Sampled(),  # noqa: B008 (frozen)
) -> FactorizedSGD:
    generator = torch.Generator().manual_seed(seed)
    return FactorizedSGD(
        network.named_parameters(), lr=lr, depth=depth, lam=lam, momentum=momentum, init=init, generator=generator
    )


def _he_normal(network: nn.Module, seed: int) -> nn.Module:
    """Normal weights of variance 2 / fan-in, and biases of zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
        else:
            nn.init.zeros_(parameter)
    return network
