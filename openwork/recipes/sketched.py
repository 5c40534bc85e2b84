"""MAST: sketched training, so that models survive being pruned, shrink, or differ little from a base model."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch.nn.functional import cross_entropy

from openwork import data, models
from openwork.recipes.sketching import sketched_run
from openwork.sketches import Key, RandK, SketchedModule
from openwork.sketches.export import Rule
from openwork.training import Run, supervised

# To trace with: only its shape matters.
IMAGE = torch.zeros(1, 1, 28, 28)


def mast_digits(
    ratio: float = 0.5,
    keep: float = 0.5,
    rule: Rule = "best_of",
    lr: float = 1e-2,
    epochs: int = 60,
    batch_size: int = 64,
    hidden: tuple[int, ...] = (128, 64),
    seed: int = 0,
) -> Run:
    """Digits with MAST: hidden units are dropped at random in training, and for good at the end.

    Args:
        ratio: Fraction of the units that each step keeps, in (0, 1].
        keep: Fraction of the units that the model at the end keeps, in (0, 1].
        rule: Which ones: random, the best of 16 random masks (best_of), the largest (magnitude) or the first (nested).
        lr: Largest learning rate of Adam; it falls to 0 along half a cosine.
        epochs: Passes over the training samples.
        batch_size: Samples per step.
        hidden: Units of each hidden layer.
        seed: Of weights, sketches, masks, validation split and order of the samples.
    """
    network, samples = models.mlp((64, *hidden, 10), seed=seed), data.digits(seed=seed)
    sketched = SketchedModule(
        network,
        _law(ratio),
        shift="zero",
        granularity="units",
        example_inputs=samples.train.inputs[:2],
        key=Key(seed),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    return sketched_run(
        sketched, optimizer, samples, keep=keep, rule=rule, epochs=epochs, batch_size=batch_size, seed=seed
    )


def mast_logistic(
    dataset: str = "a5a",
    ratio: float = 0.5,
    keep: float = 0.5,
    rule: Rule = "random",
    shift: Literal["zero", "erm"] = "zero",
    lr: float = 0.1,
    weight_decay: float = 1e-4,
    erm_fraction: float = 0.1,
    epochs: int = 20,
    batch_size: int = 256,
    seed: int = 0,
    data_dir: Path | None = None,
) -> Run:
    """Logistic regression with MAST on a LIBSVM set: single weights are dropped, to zero or to those of a first model.

    Args:
        dataset: A file in libsvm/ such as a5a, a9a, w8a, mushrooms or phishing.
        ratio: Fraction of the weights that each step keeps, in (0, 1].
        keep: Fraction of the weights that the model at the end keeps, in (0, 1].
        rule: Which ones: random, the best of 16 random masks (best_of), the largest (magnitude) or the first (nested).
        shift: What dropped weights are: zero, or those of a model trained on part of the samples before (erm).
        lr: Largest learning rate of SGD; it falls to 0 along half a cosine.
        weight_decay: Of SGD, on the weights that are not sketched.
        erm_fraction: Of the training samples, for that first model.
        epochs: Passes over the training samples.
        batch_size: Samples per step.
        seed: Of sketches, masks, validation split and order of the samples.
        data_dir: Folder with libsvm/; default OPENWORK_DATA.
    """
    samples = data.svmlight(dataset, data_dir, seed=seed)
    network = models.logistic(samples.train.inputs.shape[1], samples.classes)
    if shift == "erm":
        part = replace(samples, train=_first(samples.train, erm_fraction, "erm_fraction"))
        dense = torch.optim.SGD(network.parameters(), lr=lr, weight_decay=weight_decay)
        _train(supervised(network, cross_entropy, dense, data=part, epochs=epochs, batch_size=batch_size, seed=seed))
    sketched = SketchedModule(network, _law(ratio), shift="zero" if shift == "zero" else "init", key=Key(seed))
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, weight_decay=weight_decay)
    return sketched_run(
        sketched, optimizer, samples, keep=keep, rule=rule, epochs=epochs, batch_size=batch_size, seed=seed
    )


def mast_finetune(
    ratio: float = 0.1,
    keep: float = 0.1,
    rule: Rule = "best_of",
    lr: float = 1e-3,
    epochs: int = 30,
    batch_size: int = 64,
    hidden: tuple[int, ...] = (128, 64),
    base_fraction: float = 0.2,
    base_epochs: int = 20,
    seed: int = 0,
) -> Run:
    """Digits with MAST from a model that was trained on part of them: the result is that base and a sparse delta.

    Args:
        ratio: Fraction of the delta that each step keeps, in (0, 1].
        keep: Fraction of the delta that the model at the end keeps, in (0, 1].
        rule: Which entries: random, the best of 16 random masks (best_of), or the first (nested).
        lr: Largest learning rate of Adam; it falls to 0 along half a cosine.
        epochs: Passes over the training samples, those of the base model not counted.
        batch_size: Samples per step.
        hidden: Units of each hidden layer.
        base_fraction: Of the training samples, for the base model.
        base_epochs: Passes over these.
        seed: Of weights, sketches, masks, validation split and order of the samples.
    """
    network, samples = models.mlp((64, *hidden, 10), seed=seed), data.digits(seed=seed)
    part = replace(samples, train=_first(samples.train, base_fraction, "base_fraction"))
    dense = torch.optim.Adam(network.parameters(), lr=3e-3)
    _train(supervised(network, cross_entropy, dense, data=part, epochs=base_epochs, batch_size=batch_size, seed=seed))
    base = deepcopy(network)
    sketched = SketchedModule(network, _law(ratio), key=Key(seed))
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    return sketched_run(
        sketched, optimizer, samples, keep=keep, rule=rule, epochs=epochs, batch_size=batch_size, seed=seed, base=base
    )


def mast_fashion(
    ratio: float = 0.5,
    keep: float = 0.5,
    rule: Rule = "best_of",
    lr: float = 1e-3,
    epochs: int = 20,
    batch_size: int = 128,
    seed: int = 0,
    data_dir: Path | None = None,
) -> Run:
    """LeNet-5 (20-50) on Fashion-MNIST with MAST: channels and hidden units are dropped, so that they can be removed.

    Args:
        ratio: Fraction of the units that each step keeps, in (0, 1].
        keep: Fraction of the units that the model at the end keeps, in (0, 1].
        rule: Which ones: random, the best of 16 random masks (best_of), the largest (magnitude) or the first (nested).
        lr: Largest learning rate of Adam; it falls to 0 along half a cosine.
        epochs: Passes over the training samples.
        batch_size: Samples per step.
        seed: Of weights, sketches, masks, validation split and order of the samples.
        data_dir: Folder with fashion-mnist/; default OPENWORK_DATA.
    """
    network, samples = models.lenet5((20, 50), seed=seed), data.fashion_mnist(data_dir, seed=seed)
    sketched = SketchedModule(
        network, _law(ratio), shift="zero", granularity="units", example_inputs=IMAGE, key=Key(seed)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    return sketched_run(
        sketched, optimizer, samples, keep=keep, rule=rule, epochs=epochs, batch_size=batch_size, seed=seed
    )


def _law(ratio: float) -> RandK:
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio must be above 0 and at most 1, the fraction that each step keeps, got {ratio}")
    return RandK(float(ratio))


def _first(samples: data.Split, fraction: float, name: str) -> data.Split:
    if not 0 < fraction <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, got {fraction}")
    count = max(1, round(fraction * len(samples)))
    return samples.take(torch.arange(count, device=samples.targets.device))


def _train(run: Run) -> None:
    for _ in range(run.units // run.period):
        run.advance(run.period)


__all__ = ["mast_digits", "mast_fashion", "mast_finetune", "mast_logistic"]
