"""Scikit-learn's 8 x 8 digits: real data that is always there, a few seconds a run."""

from torch import nn
from torch.nn.functional import cross_entropy

from openwork import data, models
from openwork.optim import RAMDA, RMDA, ProxAdamW, ProximalOptimizer, ProxSGD, regularize
from openwork.optim.regularize import ParamGroups
from openwork.penalties import GroupLasso, NuclearNorm, Penalty
from openwork.training import Run, supervised


def ramda_digits(
    lam: float = 6e-4,
    lr: float = 0.01,
    averaging: float = 0.1,
    epochs: int = 60,
    batch_size: int = 64,
    hidden: tuple[int, ...] = (128, 64),
    refit: int = 0,
    shrink_after: tuple[int, ...] = (),
    seed: int = 0,
) -> Run:
    """Digits with RAMDA: pixels and hidden units that the next layer does not need are dropped.

    Args:
        lam: Strength of the group lasso, per unit of weight norm; 3e-3 drops everything.
        lr: Learning rate.
        averaging: Fraction moved towards the prox point at each step, in (0, 1].
        epochs: Passes over the training samples; new stages begin after a half and three quarters of them.
        batch_size: Samples per step.
        hidden: Units of each hidden layer.
        refit: Epochs after the others without the penalty, in which zeros stay.
        shrink_after: Epochs after which what is zero is taken out, so that the rest runs on a smaller network.
        seed: Of weights, validation split and order of the samples.
    """
    groups, network, samples = _setup(GroupLasso(lam), hidden, seed)
    return _run(
        network, RAMDA(groups, lr=lr, averaging=averaging), samples, epochs, batch_size, seed, refit, shrink_after
    )


def rmda_digits(
    lam: float = 1e-3,
    lr: float = 0.3,
    averaging: float = 0.1,
    epochs: int = 60,
    batch_size: int = 64,
    hidden: tuple[int, ...] = (128, 64),
    seed: int = 0,
) -> Run:
    """Digits with RMDA: the same with a Euclidean metric.

    Args:
        lam: Strength of the group lasso, per unit of weight norm.
        lr: Learning rate.
        averaging: Fraction moved towards the prox point at each step, in (0, 1].
        epochs: Passes over the training samples; new stages begin after a half and three quarters of them.
        batch_size: Samples per step.
        hidden: Units of each hidden layer.
        seed: Of weights, validation split and order of the samples.
    """
    groups, network, samples = _setup(GroupLasso(lam), hidden, seed)
    return _run(network, RMDA(groups, lr=lr, averaging=averaging), samples, epochs, batch_size, seed)


def proxsgd_digits(
    lam: float = 1e-3,
    lr: float = 0.3,
    averaging: float = 0.1,
    epochs: int = 60,
    batch_size: int = 64,
    hidden: tuple[int, ...] = (128, 64),
    seed: int = 0,
) -> Run:
    """Digits with ProxSGD, whose support does not settle.

    Args:
        lam: Strength of the group lasso, per unit of weight norm.
        lr: Learning rate.
        averaging: Fraction of the new gradient in the averaged one, in (0, 1].
        epochs: Passes over the training samples; ``lr`` falls to a tenth after a half and three quarters of them.
        batch_size: Samples per step.
        hidden: Units of each hidden layer.
        seed: Of weights, validation split and order of the samples.
    """
    groups, network, samples = _setup(GroupLasso(lam), hidden, seed)
    return _run(network, ProxSGD(groups, lr=lr, averaging=averaging), samples, epochs, batch_size, seed)


def proxadamw_digits(
    lam: float = 3e-4,
    lr: float = 3e-3,
    epochs: int = 60,
    batch_size: int = 64,
    hidden: tuple[int, ...] = (128, 64),
    seed: int = 0,
) -> Run:
    """Digits with proximal AdamW.

    Args:
        lam: Strength of the group lasso, per unit of weight norm.
        lr: Learning rate.
        epochs: Passes over the training samples; ``lr`` falls to a tenth after a half and three quarters of them.
        batch_size: Samples per step.
        hidden: Units of each hidden layer.
        seed: Of weights, validation split and order of the samples.
    """
    groups, network, samples = _setup(GroupLasso(lam), hidden, seed)
    return _run(network, ProxAdamW(groups, lr=lr), samples, epochs, batch_size, seed)


def nuclear_digits(
    lam: float = 3e-3,
    lr: float = 0.1,
    averaging: float = 0.1,
    epochs: int = 60,
    batch_size: int = 64,
    hidden: tuple[int, ...] = (128, 64),
    seed: int = 0,
) -> Run:
    """Digits with RMDA and the nuclear norm: weights of low rank.

    Args:
        lam: Strength of the nuclear norm.
        lr: Learning rate.
        averaging: Fraction moved towards the prox point at each step, in (0, 1].
        epochs: Passes over the training samples; new stages begin after a half and three quarters of them.
        batch_size: Samples per step.
        hidden: Units of each hidden layer.
        seed: Of weights, validation split and order of the samples.
    """
    groups, network, samples = _setup(NuclearNorm(lam), hidden, seed)
    return _run(network, RMDA(groups, lr=lr, averaging=averaging), samples, epochs, batch_size, seed)


def _setup(penalty: Penalty, hidden: tuple[int, ...], seed: int) -> tuple[ParamGroups, nn.Module, data.Data]:
    network = models.mlp((64, *hidden, 10), seed=seed)
    return regularize(network, penalty), network, data.digits(seed=seed)


def _run(
    network: nn.Module,
    optimizer: ProximalOptimizer,
    samples: data.Data,
    epochs: int,
    batch_size: int,
    seed: int,
    refit: int = 0,
    shrink_after: tuple[int, ...] = (),
) -> Run:
    return supervised(
        network,
        cross_entropy,
        optimizer,
        data=samples,
        epochs=epochs,
        milestones=sorted({epochs // 2, 3 * epochs // 4} - {0}),
        batch_size=batch_size,
        refit=refit,
        shrink_after=shrink_after,
        seed=seed,
    )
