"""Tasks to compare methods on, by name: functions without arguments."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import torch
from torch import nn

from openwork import data, models
from openwork.comparison.task import Task
from openwork.recipes.language import next_token_loss

# Samples and windows that a machine without a GPU trains on.
FEW_IMAGES, FEW_WINDOWS = 2000, 500
# Characters in a window.
CONTEXT = 128


def digits() -> Task:
    """Scikit-learn's 8 x 8 digits, a network with 128 and 64 hidden units."""
    return Task(
        "digits",
        model=lambda seed: models.he_normal_(models.mlp((64, 128, 64, 10), seed=seed), seed=seed),
        data=lambda seed: data.digits(seed=seed),
        epochs=40,
        batch_size=64,
    )


def fashion_lenet300() -> Task:
    """Fashion-MNIST, LeNet-300-100."""
    return Task(
        "fashion_lenet300",
        model=lambda seed: models.he_normal_(models.lenet300(seed=seed), seed=seed),
        data=lambda seed: data.fashion_mnist(seed=seed),
        epochs=20,
        batch_size=256,
    )


def fashion_lenet5() -> Task:
    """Fashion-MNIST, LeNet-5 with 6 and 16 channels."""
    return Task(
        "fashion_lenet5",
        model=lambda seed: models.he_normal_(models.lenet5((6, 16), seed=seed), seed=seed),
        data=lambda seed: data.fashion_mnist(seed=seed),
        epochs=20,
        batch_size=256,
    )


def mnist_logistic() -> Task:
    """MNIST, logistic regression."""
    return Task(
        "mnist_logistic",
        model=lambda seed: models.logistic(784, 10, zero_init=False, seed=seed),
        data=lambda seed: data.mnist(seed=seed),
        epochs=20,
        batch_size=128,
    )


def a5a_logistic() -> Task:
    """The census data a5a with 123 binary features, logistic regression; tested on a9a.t."""
    return Task(
        "a5a_logistic",
        model=lambda seed: models.logistic(123, 2, zero_init=False, seed=seed),
        data=_a5a,
        epochs=40,
        batch_size=128,
    )


def cifar10_resnet18() -> Task:
    """CIFAR-10, ResNet-18, 100 epochs on a GPU; without one 2 epochs of 2000 images, to see that everything works."""
    return _cifar10("cifar10_resnet18", lambda seed: models.resnet18(seed=seed))


def cifar10_vgg19() -> Task:
    """CIFAR-10, VGG19-BN, 100 epochs on a GPU; without one 2 epochs of 2000 images, to see that everything works."""
    return _cifar10("cifar10_vgg19", lambda seed: models.vgg19_bn(seed=seed))


def shakespeare_gpt() -> Task:
    """Tiny Shakespeare, a character-level GPT, 10 epochs on a GPU; without one 2 of 500 windows of 128 characters."""
    full = torch.cuda.is_available()
    return Task(
        _name("shakespeare_gpt", full),
        model=lambda seed: models.gpt(len(_shakespeare().vocabulary), CONTEXT, 128, 4, 4, seed=seed),
        data=lambda seed: _some(_shakespeare().windows(CONTEXT), None if full else FEW_WINDOWS),
        epochs=10 if full else 2,
        batch_size=32,
        loss=next_token_loss,
    )


def _cifar10(name: str, model: Callable[[int], nn.Module]) -> Task:
    full = torch.cuda.is_available()
    return Task(
        _name(name, full),
        model=model,
        data=lambda seed: _some(data.cifar10(seed=seed), None if full else FEW_IMAGES),
        epochs=100 if full else 2,
        batch_size=128,
        augment=data.CropFlip(),
    )


def _name(name: str, full: bool) -> str:
    """Another name for fewer samples, so that no study mixes the two."""
    return name if full else f"{name}_small"


def _some(samples: data.Data, count: int | None) -> data.Data:
    """The first training samples, and half as many of the others; all if no number is given."""
    if count is None:
        return samples

    def first(split: data.Split, most: int) -> data.Split:
        return split.take(torch.arange(min(most, len(split))))

    half = count // 2
    return replace(
        samples,
        train=first(samples.train, count),
        valid=first(samples.valid, half),
        test=first(samples.test, half),
        note=f"only {count} of the training samples",
    )


def _a5a(seed: int) -> data.Data:
    # Without a test set beside it, a5a would give up a part of its samples: they are put together again.
    samples, test = data.svmlight("a5a", valid=0.0), data.svmlight("a9a", valid=0.0).test
    parts = samples.train, samples.test
    train = data.Split(*(torch.cat(tensors) for tensors in zip(*((p.inputs, p.targets) for p in parts), strict=True)))
    return replace(samples, train=train, test=test, note="tested on a9a.t").hold_out(0.1, seed)


@lru_cache(maxsize=1)
def _shakespeare() -> data.Corpus:
    return data.shakespeare()


__all__ = [
    "a5a_logistic",
    "cifar10_resnet18",
    "cifar10_vgg19",
    "digits",
    "fashion_lenet5",
    "fashion_lenet300",
    "mnist_logistic",
    "shakespeare_gpt",
]
