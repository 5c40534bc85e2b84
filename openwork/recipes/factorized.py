"""Deep weight factorization: weights as products of factors, whose L2 makes single weights or whole units zero."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from openwork import data, models
from openwork.factorizations import Gated, Initialization, Sampled, Split, factorize
from openwork.optim import FactorizedSGD
from openwork.training import Precision, Run, rebuild, supervised
from openwork.wiring import Side

Images = Literal["mnist", "fashion", "kmnist"]


def dwf_digits(
    lam: float = 1.2e-3,
    depth: int = 3,
    lr: float = 0.4,
    momentum: float = 0.9,
    epochs: int = 80,
    warmup: int = 5,
    batch_size: int = 32,
    hidden: tuple[int, ...] = (128, 64),
    clip: float = 1.0,
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
        clip: Largest norm of the gradient of the weights, without which large learning rates diverge.
        refit: Epochs after the others without the penalty, in which zeros stay.
        seed: Of weights, factors, validation split and order of the samples.
    """
    network = models.he_normal_(models.mlp((64, *hidden, 10), seed=seed), seed=seed)
    optimizer = _factorized(network, lam, depth, lr, momentum, seed)
    samples = data.digits(seed=seed)
    return _run(network, optimizer, samples, epochs, warmup, batch_size, seed, clip=clip, refit=refit)


def dwf_finetune(
    lam: float = 1.2e-3,
    depth: int = 3,
    lr: float = 0.4,
    momentum: float = 0.9,
    epochs: int = 80,
    warmup: int = 2,
    batch_size: int = 32,
    hidden: tuple[int, ...] = (128, 64),
    clip: float = 1.0,
    imbalance: float = 0.25,
    dense_epochs: int = 20,
    start: Path | None = None,
    seed: int = 0,
) -> Run:
    """Digits with deep weight factorization from a trained dense network, whose weights are split into factors.

    Args:
        lam: Strength of the factors' L2, which is that of ``sum |w|^(2/depth)``.
        depth: Factors of a weight, at least 2.
        lr: Largest learning rate.
        momentum: Of SGD, in [0, 1).
        epochs: Passes over the training samples, the dense ones not counted.
        warmup: The first of them, in which the learning rate grows; then it falls to 0 along half a cosine.
        batch_size: Samples per step.
        hidden: Units of each hidden layer, where a dense network is trained first.
        clip: Largest norm of the gradient of the weights.
        imbalance: How far apart the factors of a weight start, at least 0; with 0 no weight can change its sign.
        dense_epochs: Epochs of the dense network.
        start: Folder of a run on digits whose network to start from, instead of training one.
        seed: Of weights, factors, validation split and order of the samples.
    """
    samples = data.digits(seed=seed)
    if start is None:
        network = models.he_normal_(models.mlp((64, *hidden, 10), seed=seed), seed=seed)
        dense = torch.optim.SGD(network.parameters(), lr=0.05, momentum=momentum)
        first = _run(network, dense, samples, dense_epochs, 0, batch_size, seed)
        for _ in range(dense_epochs):
            first.advance(first.period)
    else:
        network = rebuild(start).finish()
    optimizer = _factorized(network, lam, depth, lr, momentum, seed, Split(imbalance))
    return _run(network, optimizer, samples, epochs, warmup, batch_size, seed, clip=clip)


def dwf_lenet300(
    lam: float = 1e-3,
    depth: int = 3,
    lr: float = 0.5,
    momentum: float = 0.9,
    epochs: int = 20,
    warmup: int = 1,
    batch_size: int = 256,
    dataset: Images = "mnist",
    refit: int = 0,
    seed: int = 0,
    data_dir: Path | None = None,
) -> Run:
    """LeNet-300-100 with deep weight factorization: single weights become zero (Kolb et al. 2025).

    Args:
        lam: Strength of the factors' L2, which is that of ``sum |w|^(2/depth)``.
        depth: Factors of a weight, at least 2.
        lr: Largest learning rate, several times that of the dense network.
        momentum: Of SGD, in [0, 1).
        epochs: Passes over the training samples.
        warmup: The first of them, in which the learning rate grows; then it falls to 0 along half a cosine.
        batch_size: Samples per step.
        dataset: mnist, fashion or kmnist.
        refit: Epochs after the others without the penalty, in which zeros stay.
        seed: Of weights, factors, validation split and order of the samples.
        data_dir: Folder with mnist/, fashion-mnist/ or kmnist/; default OPENWORK_DATA.
    """
    network = models.he_normal_(models.lenet300(seed=seed), seed=seed)
    optimizer = _factorized(network, lam, depth, lr, momentum, seed)
    samples = _images(dataset, data_dir, seed)
    return _run(network, optimizer, samples, epochs, warmup, batch_size, seed, refit=refit)


def dwf_lenet5(
    lam: float = 5e-4,
    depth: int = 3,
    lr: float = 0.5,
    momentum: float = 0.9,
    epochs: int = 20,
    warmup: int = 1,
    batch_size: int = 256,
    dataset: Images = "mnist",
    channels: tuple[int, int] = (20, 50),
    clip: float = 1.0,
    refit: int = 0,
    seed: int = 0,
    data_dir: Path | None = None,
) -> Run:
    """LeNet-5 with deep weight factorization: single weights become zero (Kolb et al. 2025).

    Args:
        lam: Strength of the factors' L2, which is that of ``sum |w|^(2/depth)``.
        depth: Factors of a weight, at least 2.
        lr: Largest learning rate, several times that of the dense network.
        momentum: Of SGD, in [0, 1).
        epochs: Passes over the training samples.
        warmup: The first of them, in which the learning rate grows; then it falls to 0 along half a cosine.
        batch_size: Samples per step.
        dataset: mnist, fashion or kmnist.
        channels: Of the two convolutions: 20 and 50, or 6 and 16.
        clip: Largest norm of the gradient of the weights, without which large learning rates diverge.
        refit: Epochs after the others without the penalty, in which zeros stay.
        seed: Of weights, factors, validation split and order of the samples.
        data_dir: Folder with mnist/, fashion-mnist/ or kmnist/; default OPENWORK_DATA.
    """
    network = models.he_normal_(models.lenet5(channels, seed=seed), seed=seed)
    optimizer = _factorized(network, lam, depth, lr, momentum, seed)
    samples = _images(dataset, data_dir, seed)
    return _run(network, optimizer, samples, epochs, warmup, batch_size, seed, clip=clip, refit=refit)


def dwf_resnet18_cifar10(
    lam: float = 2e-4,
    depth: int = 3,
    lr: float = 0.3,
    momentum: float = 0.9,
    epochs: int = 200,
    warmup: int = 5,
    batch_size: int = 128,
    subset: int | None = None,
    clip: float = 5.0,
    precision: Precision = "no",
    seed: int = 0,
    data_dir: Path | None = None,
) -> Run:
    """ResNet-18 on CIFAR-10 with deep weight factorization: single weights become zero; for a GPU.

    Args:
        lam: Strength of the factors' L2, which is that of ``sum |w|^(2/depth)``.
        depth: Factors of a weight, at least 2.
        lr: Largest learning rate.
        momentum: Of SGD, in [0, 1).
        epochs: Passes over the training samples.
        warmup: The first of them, in which the learning rate grows; then it falls to 0 along half a cosine.
        batch_size: Samples per step.
        subset: Train on so many samples only, as a processor without a GPU can; None for all.
        clip: Largest norm of the gradient of the weights.
        precision: Of the forward pass: no, bf16 or fp16.
        seed: Of weights, factors, order of the samples and augmentation.
        data_dir: Folder with cifar10/; default OPENWORK_DATA.
    """
    network = models.resnet18(seed=seed)
    optimizer = _factorized(network, lam, depth, lr, momentum, seed)
    samples = _cifar10(data_dir, subset)
    return _run(
        *(network, optimizer, samples, epochs, warmup, batch_size, seed),
        clip=clip,
        precision=precision,
        augment=data.CropFlip(),
    )


def dwf_vgg19_cifar10(
    lam: float = 2e-4,
    depth: int = 3,
    lr: float = 0.3,
    momentum: float = 0.9,
    epochs: int = 200,
    warmup: int = 5,
    batch_size: int = 128,
    subset: int | None = None,
    clip: float = 5.0,
    precision: Precision = "no",
    seed: int = 0,
    data_dir: Path | None = None,
) -> Run:
    """VGG19-BN on CIFAR-10 with deep weight factorization: single weights become zero; for a GPU.

    Args:
        lam: Strength of the factors' L2, which is that of ``sum |w|^(2/depth)``.
        depth: Factors of a weight, at least 2.
        lr: Largest learning rate.
        momentum: Of SGD, in [0, 1).
        epochs: Passes over the training samples.
        warmup: The first of them, in which the learning rate grows; then it falls to 0 along half a cosine.
        batch_size: Samples per step.
        subset: Train on so many samples only, as a processor without a GPU can; None for all.
        clip: Largest norm of the gradient of the weights.
        precision: Of the forward pass: no, bf16 or fp16.
        seed: Of weights, factors, order of the samples and augmentation.
        data_dir: Folder with cifar10/; default OPENWORK_DATA.
    """
    network = models.vgg19_bn(seed=seed)
    optimizer = _factorized(network, lam, depth, lr, momentum, seed)
    samples = _cifar10(data_dir, subset)
    return _run(
        *(network, optimizer, samples, epochs, warmup, batch_size, seed),
        clip=clip,
        precision=precision,
        augment=data.CropFlip(),
    )


def dwf_gate_digits(
    lam: float = 8e-3,
    depth: int = 3,
    lr: float = 0.1,
    momentum: float = 0.9,
    epochs: int = 60,
    warmup: int = 5,
    batch_size: int = 32,
    hidden: tuple[int, ...] = (128, 64),
    side: Side = "producers",
    clip: float = 1.0,
    refit: int = 0,
    seed: int = 0,
) -> Run:
    """Digits with gates on hidden units: whole units become zero, so that they can be removed.

    Args:
        lam: Strength of the L2 of weights and gates, which is that of ``sum ||w_j||^(2/depth)`` over units.
        depth: Factors of a weight, at least 2: itself, and depth - 1 gates that its unit has.
        lr: Largest learning rate.
        momentum: Of SGD, in [0, 1).
        epochs: Passes over the training samples.
        warmup: The first of them, in which the learning rate grows; then it falls to 0 along half a cosine.
        batch_size: Samples per step.
        hidden: Units of each hidden layer.
        side: What has the gates of a unit: what writes it (producers), or what reads it (consumers), pixels included.
        clip: Largest norm of the gradient.
        refit: Epochs after the others without the penalty, in which zeros stay.
        seed: Of weights, validation split and order of the samples.
    """
    network = models.he_normal_(models.mlp((64, *hidden, 10), seed=seed), seed=seed)
    samples = data.digits(seed=seed)
    optimizer = _gated(network, lam, depth, lr, momentum, samples, side)
    return _run(network, optimizer, samples, epochs, warmup, batch_size, seed, clip=clip, refit=refit)


def dwf_gate_lenet5(
    lam: float = 3e-3,
    depth: int = 3,
    lr: float = 0.1,
    momentum: float = 0.9,
    epochs: int = 20,
    warmup: int = 1,
    batch_size: int = 256,
    dataset: Images = "mnist",
    channels: tuple[int, int] = (20, 50),
    side: Side = "producers",
    clip: float = 1.0,
    refit: int = 0,
    seed: int = 0,
    data_dir: Path | None = None,
) -> Run:
    """LeNet-5 with gates on channels and units: they become zero, so that they can be removed (Kolb et al. 2025).

    Args:
        lam: Strength of the L2 of weights and gates, which is that of ``sum ||w_j||^(2/depth)`` over units.
        depth: Factors of a weight, at least 2: itself, and depth - 1 gates that its unit has.
        lr: Largest learning rate.
        momentum: Of SGD, in [0, 1).
        epochs: Passes over the training samples.
        warmup: The first of them, in which the learning rate grows; then it falls to 0 along half a cosine.
        batch_size: Samples per step.
        dataset: mnist, fashion or kmnist.
        channels: Of the two convolutions: 20 and 50, or 6 and 16.
        side: What has the gates of a unit: what writes it (producers), or what reads it (consumers).
        clip: Largest norm of the gradient.
        refit: Epochs after the others without the penalty, in which zeros stay.
        seed: Of weights, validation split and order of the samples.
        data_dir: Folder with mnist/, fashion-mnist/ or kmnist/; default OPENWORK_DATA.
    """
    network = models.he_normal_(models.lenet5(channels, seed=seed), seed=seed)
    samples = _images(dataset, data_dir, seed)
    optimizer = _gated(network, lam, depth, lr, momentum, samples, side)
    return _run(network, optimizer, samples, epochs, warmup, batch_size, seed, clip=clip, refit=refit)


def _gated(
    network: nn.Module, lam: float, depth: int, lr: float, momentum: float, samples: data.Data, side: Side
) -> Optimizer:
    """Gives the units of a network gates, and an optimizer that trains them too."""
    handle = factorize(network, depth, lam, form=Gated(), example_inputs=samples.train.inputs[:2], side=side)
    return torch.optim.SGD(handle.param_groups(), lr=lr, momentum=momentum)


def _run(
    network: nn.Module,
    optimizer: Optimizer,
    samples: data.Data,
    epochs: int,
    warmup: int,
    batch_size: int,
    seed: int,
    *,
    clip: float | None = None,
    refit: int = 0,
    precision: Precision = "no",
    augment: data.CropFlip | None = None,
) -> Run:
    return supervised(
        network,
        cross_entropy,
        optimizer,
        data=samples,
        epochs=epochs,
        schedule="cosine",
        warmup=min(warmup, epochs),
        batch_size=batch_size,
        clip=clip,
        refit=refit,
        precision=precision,
        augment=augment,
        seed=seed,
    )


def _images(dataset: Images, data_dir: Path | None, seed: int) -> data.Data:
    match dataset:
        case "mnist":
            return data.mnist(data_dir, seed=seed)
        case "fashion":
            return data.fashion_mnist(data_dir, seed=seed)
        case "kmnist":
            return data.kmnist(data_dir, seed=seed)


def _cifar10(data_dir: Path | None, subset: int | None) -> data.Data:
    samples = data.cifar10(data_dir)
    if subset is None:
        return samples
    if not 1 <= subset <= len(samples.train):
        raise ValueError(f"cifar10: subset must be from 1 to {len(samples.train)} training samples, got {subset}")
    return replace(samples, train=samples.train.take(torch.arange(subset)))


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
