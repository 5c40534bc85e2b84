"""TIAM: training without backpropagation, by alternating minimization on all samples at once."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from torch import nn

from openwork import data, models
from openwork.altmin import AMTrainer, bcd, dladmm, mdlam, tiam
from openwork.penalties import GroupLasso, Penalty
from openwork.training import Run, alternating_run, processes

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
    samples = _centered(data.digits(seed=seed))
    network = _network(64, hidden, 10, activation, seed)
    penalties = {name: GroupLasso(lam) for name in _weights(network)[1:]} if lam else {}
    trainer = _trainer(network, method, rho, mu, penalties)
    return alternating_run(trainer, samples, sweeps=sweeps, choose_from=_last_quarter(sweeps) if lam else 0)


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
    network: nn.Sequential, method: Method, rho: float, mu: float, penalties: Mapping[str, Penalty] | None = None
) -> AMTrainer:
    match method:
        case "ours":
            return AMTrainer(network, rho=rho, mu=mu, penalties=penalties)
        case "tiam":
            return tiam(network, penalties=penalties)
        case "mdlam":
            return mdlam(network, penalties=penalties)
        case "dladmm":
            return dladmm(network, penalties=penalties)
        case "bcd":
            return bcd(network, penalties=penalties)


def _weights(network: nn.Module) -> list[str]:
    """Names of the weight layers, in order."""
    return [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]


def _last_quarter(sweeps: int) -> int:
    """Zeros are still coming before: weights from there would be chosen for those that they do not have yet."""
    return 3 * sweeps // 4


def _centered(samples: data.Data) -> data.Data:
    """Rows of numbers around 0, of unit size altogether, as the training samples say.

    The mean of all samples is the direction of largest curvature by far, and curvature is what bounds the steps.
    """
    flat = replace(samples, train=_flat(samples.train), valid=_flat(samples.valid), test=_flat(samples.test))
    x = flat.train.inputs
    return flat.standardize(x.mean(0), float(x.std(0, correction=0).square().mean().sqrt()))


def _flat(split: data.Split) -> data.Split:
    return data.Split(split.inputs.flatten(1), split.targets)


__all__ = ["tiam_digits"]
