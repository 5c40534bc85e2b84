"""TIAM: training without backpropagation, by alternating minimization on all samples at once."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from torch import nn

from openwork import data, models
from openwork.altmin import AMTrainer, ExactWeights, Sign, SignHomotopy, bcd, dladmm, mdlam, tiam
from openwork.penalties import GroupLasso, Penalty
from openwork.training import Metrics, Run, alternating_run, processes

Activation = Literal["relu", "leaky_relu", "elu", "tanh"]
Method = Literal["ours", "tiam", "mdlam", "dladmm", "bcd"]


def tiam_digits(
    lam: float = 5e-3,
    rho: float = 0.3,
    mu: float = 0.1,
    sweeps: int = 300,
    hidden: tuple[int, ...] = (128, 64),
    activation: Activation = "relu",
    method: Method = "ours",
    seed: int = 0,
) -> Run:
    """Digits without backpropagation: alternating minimization, hidden units that nothing needs are dropped.

    Args:
        lam: Strength of the group lasso on what reads a hidden unit; 0 for a dense network.
        rho: Weight of the links between layers, above 0; other methods than ours have their own.
        mu: Weight of the L2 term, against a loss summed over samples; other methods than ours have their own.
        sweeps: Passes over all blocks, each with all training samples.
        hidden: Units of each hidden layer.
        activation: Between the layers.
        method: Ours, or a published one (tiam, mdlam, dladmm, bcd) with its own numbers.
        seed: Of weights and validation split.
    """
    return _classifier(data.digits(seed=seed), lam, rho, mu, sweeps, hidden, activation, method, seed)


def tiam_mnist(
    lam: float = 0.0,
    rho: float = 0.03,
    mu: float = 20.0,
    sweeps: int = 100,
    hidden: tuple[int, ...] = (100, 100),
    activation: Activation = "relu",
    method: Method = "ours",
    chunk_size: int | None = None,
    seed: int = 0,
    data_dir: Path | None = None,
) -> Run:
    """MNIST, 784-100-100-10, without backpropagation: alternating minimization on all training samples at once.

    Args:
        lam: Strength of the group lasso on what reads a hidden unit; 0 for a dense network.
        rho: Weight of the links between layers, above 0; other methods than ours have their own.
        mu: Weight of the L2 term, against a loss summed over samples; other methods than ours have their own.
        sweeps: Passes over all blocks, each with all training samples.
        hidden: Units of each hidden layer.
        activation: Between the layers.
        method: Ours, or a published one (tiam, mdlam, dladmm, bcd) with its own numbers.
        chunk_size: Samples at a time, for less memory and nearly the same steps, with our method only; default all.
        seed: Of weights and validation split.
        data_dir: Folder with mnist/; default OPENWORK_DATA.
    """
    samples = data.mnist(data_dir, seed=seed)
    return _classifier(samples, lam, rho, mu, sweeps, hidden, activation, method, seed, chunk_size)


def tiam_fashion(
    lam: float = 0.0,
    rho: float = 0.1,
    mu: float = 20.0,
    sweeps: int = 100,
    hidden: tuple[int, ...] = (100, 100),
    activation: Activation = "relu",
    method: Method = "ours",
    chunk_size: int | None = None,
    seed: int = 0,
    data_dir: Path | None = None,
) -> Run:
    """Fashion-MNIST, 784-100-100-10, without backpropagation: alternating minimization on all training samples at once.

    Args:
        lam: Strength of the group lasso on what reads a hidden unit; 0 for a dense network.
        rho: Weight of the links between layers, above 0; other methods than ours have their own.
        mu: Weight of the L2 term, against a loss summed over samples; other methods than ours have their own.
        sweeps: Passes over all blocks, each with all training samples.
        hidden: Units of each hidden layer.
        activation: Between the layers.
        method: Ours, or a published one (tiam, mdlam, dladmm, bcd) with its own numbers.
        chunk_size: Samples at a time, for less memory and nearly the same steps, with our method only; default all.
        seed: Of weights and validation split.
        data_dir: Folder with fashion-mnist/; default OPENWORK_DATA.
    """
    samples = data.fashion_mnist(data_dir, seed=seed)
    return _classifier(samples, lam, rho, mu, sweeps, hidden, activation, method, seed, chunk_size)


def tiam_tabular(
    lam: float = 0.0,
    rho: float = 0.3,
    mu: float = 1.0,
    sweeps: int = 200,
    hidden: tuple[int, ...] = (100, 100),
    activation: Activation = "relu",
    method: Method = "ours",
    seed: int = 0,
    data_dir: Path | None = None,
) -> Run:
    """Letter Recognition, 16 numbers and 26 classes, without backpropagation, by alternating minimization.

    Args:
        lam: Strength of the group lasso on what reads a hidden unit; 0 for a dense network.
        rho: Weight of the links between layers, above 0; other methods than ours have their own.
        mu: Weight of the L2 term, against a loss summed over samples; other methods than ours have their own.
        sweeps: Passes over all blocks, each with all training samples.
        hidden: Units of each hidden layer.
        activation: Between the layers.
        method: Ours, or a published one (tiam, mdlam, dladmm, bcd) with its own numbers.
        seed: Of weights and validation split.
        data_dir: Folder with letter-recognition/; default OPENWORK_DATA.
    """
    samples = data.letter_recognition(data_dir, seed=seed)
    return _classifier(samples, lam, rho, mu, sweeps, hidden, activation, method, seed)


def tiam_sign(
    hidden: int = 64,
    rho: float = 0.03,
    mu: float = 0.05,
    sweeps: int = 200,
    ramp: int = 100,
    margin: float = 0.5,
    seed: int = 0,
) -> Run:
    """Digits through one layer of signs, whose gradient is zero everywhere: alternating minimization trains it anyway.

    Args:
        hidden: Units of the sign layer.
        rho: Weight of the links between layers, above 0.
        mu: Weight of the L2 term, against a loss summed over samples.
        sweeps: Passes over all blocks, each with all training samples.
        ramp: Sweeps at the beginning in which signs are ramps that get steeper; 0 for none, at most as many as sweeps.
        margin: Distance that codes keep from the step, in units of the pre-activation; 0 for none.
        seed: Of weights and validation split.
    """
    samples = _centered(data.digits(seed=seed))
    network = models.mlp((64, hidden, 10), activation=lambda: Sign(margin), seed=seed)
    models.he_normal_(network, seed=seed)
    trainer = AMTrainer(network.to(processes().device), rho=_positive(rho), mu=mu, homotopy=_homotopy(ramp, sweeps))
    return alternating_run(trainer, samples, sweeps=sweeps, choose_from=ramp)


def tiam_sparse(
    lam: float = 0.004,
    lam_units: float = 0.01,
    rho: float = 1.0,
    mu: float = 0.1,
    sweeps: int = 300,
    informative: int = 12,
    noise: int = 24,
    samples: int = 1000,
    hidden: tuple[int, ...] = (32, 32),
    seed: int = 0,
) -> Run:
    """Made-up samples most of whose inputs are noise: alternating minimization drops these, and units, exactly.

    Args:
        lam: Strength of the group lasso on what reads an input.
        lam_units: Strength of the group lasso on what reads a hidden unit.
        rho: Weight of the links between layers, above 0.
        mu: Weight of the L2 term, against a loss summed over samples.
        sweeps: Passes over all blocks, each with all training samples.
        informative: Inputs that the labels depend on.
        noise: Inputs that they do not depend on.
        samples: For training and validation.
        hidden: Units of each hidden layer.
        seed: Of samples, weights and validation split.
    """
    made = data.planted(informative, noise, samples, seed=seed)
    network = _network(informative + noise, hidden, made.classes, "relu", seed)
    first, *others = _weights(network)
    penalties = {first: GroupLasso(lam), **{name: GroupLasso(lam_units) for name in others}}
    trainer = AMTrainer(network, rho=_positive(rho), mu=mu, penalties=penalties)
    run = alternating_run(trainer, made, sweeps=sweeps)

    def evaluate(module: nn.Module) -> Metrics:
        if module is not network:
            return run.evaluate(module)
        read = next(layer for layer in module.modules() if isinstance(layer, nn.Linear)).weight.any(0)
        kept: Metrics = {
            "informative": [int(read[:informative].sum()), informative],
            "noise": [int(read[informative:].sum()), noise],
        }
        return run.evaluate(module) | {"inputs": kept}

    return replace(run, evaluate=evaluate)


def _classifier(
    samples: data.Data,
    lam: float,
    rho: float,
    mu: float,
    sweeps: int,
    hidden: tuple[int, ...],
    activation: Activation,
    method: Method,
    seed: int,
    chunk_size: int | None = None,
) -> Run:
    """A fully connected network on samples, with a group lasso on what reads its hidden units."""
    centered = _centered(samples)
    network = _network(centered.train.inputs.shape[1], hidden, samples.classes, activation, seed)
    penalties = {name: GroupLasso(lam) for name in _weights(network)[1:]} if lam else {}
    trainer = _trainer(network, method, rho, mu, penalties, chunk_size)
    # The codes of large data sets take a while to write: a report, and thus a checkpoint, every so many samples.
    every = min(10, max(5, len(samples.train) // 5000))
    return alternating_run(trainer, centered, sweeps=sweeps, every=every)


def _network(inputs: int, hidden: tuple[int, ...], classes: int, activation: Activation, seed: int) -> nn.Sequential:
    match activation:
        case "relu":
            between: type[nn.Module] = nn.ReLU
        case "leaky_relu":
            between = nn.LeakyReLU
        case "elu":
            between = nn.ELU
        case "tanh":
            between = nn.Tanh
    network = models.mlp((inputs, *hidden, classes), activation=between, seed=seed)
    models.he_normal_(network, seed=seed)
    return network.to(processes().device)


def _trainer(
    network: nn.Sequential,
    method: Method,
    rho: float,
    mu: float,
    penalties: Mapping[str, Penalty],
    chunk_size: int | None,
) -> AMTrainer:
    if chunk_size is not None and method != "ours":
        raise ValueError(
            f"chunk_size must be left out with method={method!r}, whose couplings need all samples at once"
        )
    match method:
        case "ours":
            solver = ExactWeights()  # which penalized weights cannot have
            return AMTrainer(
                network, rho=_positive(rho), mu=mu, penalties=penalties, w_solver=solver, chunk_size=chunk_size
            )
        case "tiam":
            return tiam(network, penalties=penalties)
        case "mdlam":
            return mdlam(network, penalties=penalties)
        case "dladmm":
            return dladmm(network, penalties=penalties)
        case "bcd":
            return bcd(network, penalties=penalties)


def _homotopy(ramp: int, sweeps: int) -> SignHomotopy | None:
    if not 0 <= ramp <= sweeps:
        raise ValueError(f"tiam_sign: ramp must be from 0 to the number of sweeps, which is {sweeps}, got {ramp}")
    return SignHomotopy(ramp) if ramp else None


def _positive(rho: float) -> float:
    if not rho > 0:
        raise ValueError(f"rho must be above 0, since it holds the layers together, got {rho}")
    return rho


def _weights(network: nn.Module) -> list[str]:
    """Names of the weight layers, in order."""
    return [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]


def _centered(samples: data.Data) -> data.Data:
    """Rows of numbers around 0, of unit size altogether, as the training samples say.

    The mean of all samples is the direction of largest curvature by far, and curvature is what bounds the steps.
    """
    flat = replace(samples, train=_flat(samples.train), valid=_flat(samples.valid), test=_flat(samples.test))
    x = flat.train.inputs
    return flat.standardize(x.mean(0), float(x.std(0, correction=0).square().mean().sqrt()))


def _flat(split: data.Split) -> data.Split:
    return data.Split(split.inputs.flatten(1), split.targets)


__all__ = ["tiam_digits", "tiam_fashion", "tiam_mnist", "tiam_sign", "tiam_sparse", "tiam_tabular"]
