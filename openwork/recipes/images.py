"""MNIST, Fashion-MNIST and CIFAR-10, at the settings of the papers where they have the task."""

from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from openwork import data, models
from openwork.optim import RAMDA, RMDA, ProximalOptimizer, regularize
from openwork.penalties import GroupLasso, NuclearNorm
from openwork.training import Precision, Run, supervised
from openwork.wiring import Side

# To trace with: only its shape matters.
IMAGE = torch.zeros(1, 1, 28, 28)


def rmda_mnist_logistic(
    lam: float = 1e-3,
    lr: float = 0.1,
    averaging: float = 0.1,
    epochs: int = 500,
    batch_size: int = 128,
    seed: int = 0,
    data_dir: Path | None = None,
) -> Run:
    """Logistic regression on MNIST with RMDA, pixels dropped (Huang & Lee 2024, table 7).

    Args:
        lam: Strength of the group lasso, per unit of weight norm.
        lr: Learning rate; a tenth after every fifth of the epochs.
        averaging: Fraction moved towards the prox point at each step, in (0, 1].
        epochs: Passes over the training samples.
        batch_size: Samples per step.
        seed: Of the validation split and the order of the samples.
        data_dir: Folder with mnist/; default OPENWORK_DATA.
    """
    network = models.logistic()
    optimizer = RMDA(regularize(network, GroupLasso(lam)), lr=lr, averaging=averaging)
    return _fifths(network, optimizer, data.mnist(data_dir, seed=seed), epochs, batch_size, seed)


def ramda_mnist_logistic(
    lam: float = 1e-3,
    lr: float = 0.01,
    averaging: float = 0.01,
    epochs: int = 500,
    batch_size: int = 128,
    seed: int = 0,
    data_dir: Path | None = None,
) -> Run:
    """Logistic regression on MNIST with RAMDA, pixels dropped (Huang & Lee 2024, table 7).

    Args:
        lam: Strength of the group lasso, per unit of weight norm.
        lr: Learning rate; a tenth after every fifth of the epochs.
        averaging: Fraction moved towards the prox point at each step, in (0, 1].
        epochs: Passes over the training samples.
        batch_size: Samples per step.
        seed: Of the validation split and the order of the samples.
        data_dir: Folder with mnist/; default OPENWORK_DATA.
    """
    network = models.logistic()
    optimizer = RAMDA(regularize(network, GroupLasso(lam)), lr=lr, averaging=averaging)
    return _fifths(network, optimizer, data.mnist(data_dir, seed=seed), epochs, batch_size, seed)


def rmda_fashion_lenet5(
    lam: float = 3e-4,
    lr: float = 0.1,
    averaging: float = 0.1,
    epochs: int = 20,
    batch_size: int = 128,
    side: Side = "consumers",
    refit: int = 0,
    shrink_after: tuple[int, ...] = (),
    seed: int = 0,
    data_dir: Path | None = None,
) -> Run:
    """LeNet-5 (20-50) on Fashion-MNIST with RMDA: channels and hidden units dropped, so that they can be removed.

    Args:
        lam: Strength of the group lasso, per unit of weight norm.
        lr: Learning rate; a tenth in the second half.
        averaging: Fraction moved towards the prox point at each step, in (0, 1].
        epochs: Passes over the training samples.
        batch_size: Samples per step.
        side: What is zero of a channel that goes: what reads it (consumers) or what writes it (producers).
        refit: Epochs after the others without the penalty, in which zeros stay.
        shrink_after: Epochs after which what is zero is taken out, so that the rest runs on a smaller network.
        seed: Of weights, validation split and order of the samples.
        data_dir: Folder with fashion-mnist/; default OPENWORK_DATA.
    """
    network = models.lenet5((20, 50), seed=seed)
    optimizer = RMDA(regularize(network, GroupLasso(lam), IMAGE, side), lr=lr, averaging=averaging)
    return _halves(network, optimizer, epochs, batch_size, refit, shrink_after, seed, data_dir)


def ramda_fashion_lenet5(
    lam: float = 3e-4,
    lr: float = 0.01,
    averaging: float = 0.1,
    epochs: int = 20,
    batch_size: int = 128,
    side: Side = "consumers",
    refit: int = 0,
    shrink_after: tuple[int, ...] = (),
    seed: int = 0,
    data_dir: Path | None = None,
) -> Run:
    """LeNet-5 (20-50) on Fashion-MNIST with RAMDA: channels and hidden units dropped, so that they can be removed.

    Args:
        lam: Strength of the group lasso, per unit of weight norm.
        lr: Learning rate; a tenth in the second half.
        averaging: Fraction moved towards the prox point at each step, in (0, 1].
        epochs: Passes over the training samples.
        batch_size: Samples per step.
        side: What is zero of a channel that goes: what reads it (consumers) or what writes it (producers).
        refit: Epochs after the others without the penalty, in which zeros stay.
        shrink_after: Epochs after which what is zero is taken out, so that the rest runs on a smaller network.
        seed: Of weights, validation split and order of the samples.
        data_dir: Folder with fashion-mnist/; default OPENWORK_DATA.
    """
    network = models.lenet5((20, 50), seed=seed)
    optimizer = RAMDA(regularize(network, GroupLasso(lam), IMAGE, side), lr=lr, averaging=averaging)
    return _halves(network, optimizer, epochs, batch_size, refit, shrink_after, seed, data_dir)


def _halves(
    network: nn.Module,
    optimizer: ProximalOptimizer,
    epochs: int,
    batch_size: int,
    refit: int,
    shrink_after: tuple[int, ...],
    seed: int,
    data_dir: Path | None,
) -> Run:
    """Fashion-MNIST, with a new stage in the second half."""
    return supervised(
        network,
        cross_entropy,
        optimizer,
        data=data.fashion_mnist(data_dir, seed=seed),
        epochs=epochs,
        milestones=[epochs // 2] if epochs > 1 else [],
        batch_size=batch_size,
        refit=refit,
        shrink_after=shrink_after,
        seed=seed,
    )


def ramda_fashion_mlp7_nuclear(
    lam: float = 1e-3,
    lr: float = 0.01,
    averaging: float = 0.1,
    epochs: int = 15,
    batch_size: int = 128,
    seed: int = 0,
    data_dir: Path | None = None,
) -> Run:
    """Seven-layer MLP on Fashion-MNIST with RAMDA and the nuclear norm (Huang & Lee 2024, table 8, shortened).

    Args:
        lam: Strength of the nuclear norm.
        lr: Learning rate; a tenth after every third of the epochs.
        averaging: Fraction moved towards the prox point at each step, in (0, 1].
        epochs: Passes over the training samples; 300 in the paper.
        batch_size: Samples per step.
        seed: Of weights, validation split and order of the samples.
        data_dir: Folder with fashion-mnist/; default OPENWORK_DATA.
    """
    network = models.mlp7(seed=seed)
    return supervised(
        network,
        cross_entropy,
        RAMDA(regularize(network, NuclearNorm(lam)), lr=lr, averaging=averaging),
        data=data.fashion_mnist(data_dir, seed=seed),
        epochs=epochs,
        milestones=_parts(epochs, 3),
        batch_size=batch_size,
        seed=seed,
    )


def rmda_cifar10_vgg19(
    lam: float = 1.5e-4,
    lr: float = 0.1,
    averaging: float = 0.1,
    epochs: int = 1000,
    batch_size: int = 128,
    precision: Precision = "no",
    seed: int = 0,
    data_dir: Path | None = None,
) -> Run:
    """VGG19-BN on CIFAR-10 with RMDA, channels dropped (Huang & Lee 2024, table 7); for a GPU.

    Args:
        lam: Strength of the group lasso, per unit of weight norm.
        lr: Learning rate; a tenth after every fifth of the epochs.
        averaging: Fraction moved towards the prox point at each step, in (0, 1].
        epochs: Passes over the training samples.
        batch_size: Samples per step.
        precision: Of the forward pass: no, bf16 or fp16.
        seed: Of weights, order of the samples and augmentation.
        data_dir: Folder with cifar10/; default OPENWORK_DATA.
    """
    network = models.vgg19_bn(seed=seed)
    optimizer = RMDA(regularize(network, GroupLasso(lam)), lr=lr, averaging=averaging)
    return _cifar10(network, optimizer, epochs, batch_size, precision, seed, data_dir)


def ramda_cifar10_resnet50(
    lam: float = 1e-6,
    lr: float = 0.01,
    averaging: float = 0.01,
    epochs: int = 1000,
    batch_size: int = 128,
    precision: Precision = "no",
    seed: int = 0,
    data_dir: Path | None = None,
) -> Run:
    """ResNet-50 on CIFAR-10 with RAMDA, channels dropped (Huang & Lee 2024, table 7); for a GPU.

    Args:
        lam: Strength of the group lasso, per unit of weight norm.
        lr: Learning rate; a tenth after every fifth of the epochs.
        averaging: Fraction moved towards the prox point at each step, in (0, 1].
        epochs: Passes over the training samples.
        batch_size: Samples per step.
        precision: Of the forward pass: no, bf16 or fp16.
        seed: Of weights, order of the samples and augmentation.
        data_dir: Folder with cifar10/; default OPENWORK_DATA.
    """
    network = models.resnet50(seed=seed)
    optimizer = RAMDA(regularize(network, GroupLasso(lam)), lr=lr, averaging=averaging)
    return _cifar10(network, optimizer, epochs, batch_size, precision, seed, data_dir)


def _cifar10(
    network: nn.Module,
    optimizer: ProximalOptimizer,
    epochs: int,
    batch_size: int,
    precision: Precision,
    seed: int,
    data_dir: Path | None,
) -> Run:
    """Crops and flips, and a new stage after every fifth of the epochs."""
    samples = data.cifar10(data_dir)
    return _fifths(network, optimizer, samples, epochs, batch_size, seed, precision=precision, augment=data.CropFlip())


def _fifths(
    network: nn.Module,
    optimizer: ProximalOptimizer,
    samples: data.Data,
    epochs: int,
    batch_size: int,
    seed: int,
    *,
    precision: Precision = "no",
    augment: data.CropFlip | None = None,
) -> Run:
    return supervised(
        network,
        cross_entropy,
        optimizer,
        data=samples,
        epochs=epochs,
        milestones=_parts(epochs, 5),
        batch_size=batch_size,
        precision=precision,
        augment=augment,
        seed=seed,
    )


def _parts(epochs: int, parts: int) -> list[int]:
    """Ends of all but the last of ``parts`` equal stages, fewer if there are fewer epochs."""
    return sorted({epochs * part // parts for part in range(1, parts)} - {0})
