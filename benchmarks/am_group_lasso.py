"""Group lasso inside alternating minimization (AM): inputs and hidden units become exact zeros, and are taken out.

Planted inputs: 12 informative ones and 24 of noise, 4 classes by a random ReLU network of the first 12; 800 samples to
train on, 400 to choose, 2000 to test; network 36-32-32-4. The penalty is on the columns of the first weight, one group
per input. AM: 100 sweeps, rho 0.1, mu 4e-4 per sample on all layers. RAMDA, on the same sum of cross-entropy and
penalty: 80 epochs in batches of 100, learning rate 0.01, a tenth in the second half, weight decay 4e-4 where there is
no penalty; about the same time. Both give the weights of the end, AM with its readout refitted.

Digits: 64-64-64-10, the penalty on the columns of the second and third weight, one group per hidden unit, so that
nobody reads a unit that goes. AM as above, but 60 sweeps and rho 1; and with ``remove_dead`` every 10 sweeps, which
takes such units out while it trains. (Groups of rows do worse, tried on one seed with rho 0.1: no unit goes at strength
0.001, and nearly all at 0.002, with a warning.) All in double precision.

Four strengths for AM and for RAMDA on planted inputs, each a range of its own, and three on digits. Chosen for each
seed: the strongest whose validation accuracy is within one standard error of the best. The first layer of every network
is cut to the inputs that it reads, the network is shrunk, and outputs for the test inputs are compared. Too strong: a
strength at which the objective falls since the first weight vanishes while later ones grow, with mu and balancing, and
without; the warnings of AMTrainer are counted. Stopped, the script goes on after the last method. With methods as
arguments it computes these and writes no table, so that several processes can work at once.
"""

import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from statistics import mean, stdev
from typing import Any, cast

import torch
from readme_table import Cell
from record import remembered, write_table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import openwork as ow
from openwork.altmin import AMTrainer
from openwork.data import Batches, Data, Split, digits
from openwork.models import mlp
from openwork.optim import RAMDA, Stages, regularize
from openwork.partitions import Slices
from openwork.penalties import GroupLasso, Penalty
from openwork.shrinking import NothingZero

NAME = "am_group_lasso"
SEEDS = range(5)
PERIOD = 10
INFORMATIVE, NOISE = 12, 24
L2 = 4e-4


def planted(seed: int) -> Data:
    """Informative inputs, then noise."""
    generator = torch.Generator().manual_seed(1000 + seed)  # not the numbers that the weights begin with
    x = torch.randn(3200, INFORMATIVE + NOISE, generator=generator).double()
    first, second = (torch.randn(12, n, generator=generator).double() for n in (12, 4))
    samples = Split(x, ((x[:, :INFORMATIVE] @ first).clamp(min=0) @ second).argmax(1))
    train, valid, test = (samples.take(rows) for rows in torch.arange(3200).split([800, 400, 2000]))
    return Data("planted", train=train, valid=valid, test=test, classes=4)


def doubled(seed: int) -> Data:
    """Digits in double precision."""
    data = digits(0.2, seed=seed)
    parts = (Split(part.inputs.double(), part.targets) for part in (data.train, data.valid, data.test))
    return Data(data.name, *parts, classes=10)


@dataclass(frozen=True)
class Task:
    """What is to be learned, and what is penalized.

    Args:
        data: Of a seed.
        widths: Of the network.
        layers: Names of the penalized ones.
        dim: Whose slices are the groups.
        sweeps: Of AM.
        epochs: Of RAMDA.
        rho: Of AM.
    """

    data: Callable[[int], Data]
    widths: tuple[int, ...]
    layers: tuple[str, ...]
    dim: int
    sweeps: int
    epochs: int
    rho: float = 0.1

    def network(self, seed: int) -> nn.Sequential:
        """At the start."""
        return mlp(self.widths, seed=seed).to(self.data(seed).train.inputs.dtype)

    def penalty(self, strength: float) -> GroupLasso:
        """One group per slice."""
        return GroupLasso(strength, Slices(self.dim))


PLANTED = Task(cache(planted), (INFORMATIVE + NOISE, 32, 32, 4), ("1",), 1, 100, 80)
DIGITS = Task(cache(doubled), (64, 64, 64, 10), ("3", "5"), 1, 60, 0, 1.0)


@dataclass(frozen=True)
class Method:
    """A way to train.

    Args:
        task: What.
        train: Gives the network and other numbers of interest.
        strengths: To choose from.
    """

    task: Task
    train: Callable[[Task, int, float], tuple[nn.Module, dict[str, Any]]]
    strengths: tuple[float, ...]


def alternating(
    task: Task, seed: int, strength: float, options: Mapping[str, Any] | None = None, *, removal: bool = False
) -> tuple[nn.Module, dict[str, Any]]:
    """AM; the weights of the last sweep."""
    data, model = task.data(seed), task.network(seed)
    penalties: dict[str, Penalty] = {name: task.penalty(strength) for name in task.layers} if strength else {}
    trainer = AMTrainer(model, penalties=penalties, rho=task.rho, **(options or {}))
    trainer.start(data.train.inputs, data.train.targets)
    began, removed = time.process_time(), 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for sweep in range(1, task.sweeps + 1):
            trainer.sweep()
            if removal and sweep % PERIOD == 0:
                removed += trainer.remove_dead()
    seconds = time.process_time() - began
    report = trainer.report()
    first, last = (cast("list[float]", report["weight_norm"][at]) for at in (0, -1))
    more: dict[str, Any] = {"warnings": len(caught), "removed": removed, "seconds": seconds}
    more["objective"] = [report["objective"][0], report["objective"][-1]]
    more["growth"] = [b / a for a, b in zip(first, last, strict=True)]
    return trainer.finish(), more


def removing(task: Task, seed: int, strength: float) -> tuple[nn.Module, dict[str, Any]]:
    """AM that takes units out on the way."""
    return alternating(task, seed, strength, removal=True)


def unguarded(task: Task, seed: int, strength: float) -> tuple[nn.Module, dict[str, Any]]:
    """AM without the remedies for layers that escape from their penalty."""
    return alternating(task, seed, strength, {"balance": 0, "mu": 0.0})


def ramda(task: Task, seed: int, strength: float) -> tuple[nn.Module, dict[str, Any]]:
    """RAMDA in two stages; the structured weights of the end."""
    data, model = task.data(seed), task.network(seed)
    groups: Any = model.parameters()
    if strength:
        groups = regularize(model, task.penalty(strength), include=[f"{name}.weight" for name in task.layers])
        groups[0]["weight_decay"] = 0.0
    optimizer = RAMDA(groups, lr=0.01, weight_decay=L2)
    batches = Batches(data.train, 100, seed=seed, drop_last=True)
    Stages(optimizer, [task.epochs // 2], steps_per_epoch=len(data.train) // 100)
    began = time.process_time()
    for epoch in range(task.epochs):
        for inputs, targets in batches.epoch(epoch):
            optimizer.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    optimizer.settle_()
    return model, {"seconds": time.process_time() - began}


STRENGTHS, UNITS = (4e-4, 8e-4, 1.2e-3, 1.6e-3), (1e-3, 2e-3, 3e-3)
WIDER = (2e-3, 4e-3, 8e-3, 1.6e-2)
TOO_STRONG = (0.0128,)
METHODS: dict[str, Method] = {
    "AM, no penalty": Method(PLANTED, alternating, (0.0,)),
    "AM, group lasso": Method(PLANTED, alternating, STRENGTHS),
    "RAMDA, no penalty": Method(PLANTED, ramda, (0.0,)),
    "RAMDA, group lasso": Method(PLANTED, ramda, WIDER),
    "AM, too strong": Method(PLANTED, alternating, TOO_STRONG),
    "AM, too strong, no mu or balance": Method(PLANTED, unguarded, TOO_STRONG),
    "AM, no penalty (digits)": Method(DIGITS, alternating, (0.0,)),
    "AM, group lasso (digits)": Method(DIGITS, alternating, UNITS),
    "AM, group lasso, removal (digits)": Method(DIGITS, removing, UNITS),
}


def accuracy(model: nn.Module, samples: Split) -> float:
    """Fraction of samples."""
    with torch.no_grad():
        return float((model(samples.inputs).argmax(1) == samples.targets).double().mean())


def kept(task: Task, model: nn.Module) -> Tensor:
    """Which slices of the penalized weights are not zero."""
    weights = [model.get_parameter(f"{name}.weight") for name in task.layers]
    return torch.cat([weight.any(1 - task.dim) for weight in weights])


def shrunk(model: nn.Module, samples: Split) -> tuple[int, float, float]:
    """Parameters without what is zero, how far outputs move, and how large they are."""
    small = deepcopy(model)
    first = next(layer for layer in small.modules() if isinstance(layer, nn.Linear))
    read = first.weight.any(0)
    first.weight = nn.Parameter(first.weight[:, read].detach())
    first.in_features = int(read.sum())
    inputs = samples.inputs[:, read]
    if len(inputs[0]):
        with suppress(NothingZero):
            small = ow.shrink(small, inputs[:8], low_rank=False).model
    with torch.no_grad():
        outputs = model(samples.inputs)
        difference = float((small(inputs) - outputs).abs().max())
    return sum(p.numel() for p in small.parameters()), difference, float(outputs.abs().max())


def choose(valid: list[float], size: int) -> int:
    """The last whose accuracy is within one standard error of the best."""
    best = max(valid)
    return max(at for at, v in enumerate(valid) if v >= best - (best * (1 - best) / size) ** 0.5)


def measure(method: Method) -> list[dict[str, Any]]:
    """Train with all strengths and seeds; the chosen networks are tested and shrunk."""
    found: list[dict[str, Any]] = []
    for seed in SEEDS:
        data = method.task.data(seed)
        runs = [method.train(method.task, seed, strength) for strength in method.strengths]
        valid = [accuracy(model, data.valid) for model, _ in runs]
        best = choose(valid, len(data.valid))
        model, more = runs[best]
        alive = kept(method.task, model)
        parameters, difference, size = shrunk(model, data.test)
        found.append(
            more
            | {
                "strength": method.strengths[best],
                "valid": valid,
                "kept": alive.tolist(),
                "test": accuracy(model, data.test),
                "parameters": [sum(p.numel() for p in model.parameters()), parameters],
                "difference": difference,
                "size": size,
            }
        )
        print(method.task.layers, method.strengths, f"seed {seed}", found[-1], flush=True)
    return found


def listed(numbers: Sequence[float]) -> str:
    """Numbers as a reader wants them."""
    return ", ".join(f"{number:g}" for number in numbers)


def row(name: str, method: Method, found: list[dict[str, Any]]) -> list[Cell]:
    """One line of the table."""
    planted_task = method.task is PLANTED
    units = [sum(one["kept"]) for one in found]
    informative = [sum(one["kept"][:INFORMATIVE]) for one in found]
    noise = [sum(one["kept"][INFORMATIVE:]) for one in found]
    growth = [one["growth"] for one in found if "growth" in one]
    test = [100 * one["test"] for one in found]
    return [
        name,
        listed([one["strength"] for one in found]),
        f"{mean(informative):.1f}" if planted_task else None,
        f"{mean(noise):.1f}" if planted_task else None,
        None if planted_task else f"{mean(units):.1f}",
        f"{mean(test):.1f} ± {stdev(test):.1f}",
        f"{mean(one['parameters'][0] for one in found):.0f}",
        f"{mean(one['parameters'][1] for one in found):.0f}",
        f"{max(one['difference'] for one in found):.1e}",
        ", ".join(f"{mean(column):.2g}" for column in zip(*growth, strict=True)) if growth else None,
        f"{sum(one['warnings'] > 0 for one in found)} of {len(found)}" if growth else None,
        f"{mean(one['seconds'] for one in found):.2f}",
    ]


def main() -> None:
    """Measure what is missing, and write the table."""
    torch.set_num_threads(1)
    wanted = sys.argv[1:]
    rows: list[list[Cell]] = []
    for name, method in METHODS.items():
        if wanted and name not in wanted:
            continue
        part = "".join(letter if letter.isalnum() else "-" for letter in name)
        found = remembered(NAME, part, lambda method=method: {"seeds": measure(method)})["seeds"]
        rows.append(row(name, method, found))
    if wanted:
        return
    columns = ["method", "strengths, by seed", "informative inputs kept, of 12", "noise inputs kept, of 24",
               "hidden units kept", "test accuracy, %", "parameters", "after shrink", "largest difference after shrink",
               "weights: norm at the end / start", "seeds with a warning", "seconds"]  # fmt: skip
    write_table(
        NAME,
        "Group lasso inside alternating minimization (AM): inputs and hidden units become zero and are taken out",
        columns,
        rows,
        f"Means over {len(SEEDS)} seeds, accuracy with its deviation. Planted inputs: 12 informative, 24 of noise, 4 "
        "classes by a random ReLU network; 800 samples to train on, 400 to choose, 2000 to test; network 36-32-32-4; "
        "one group per input. Digits: 1150, 288 and 359 samples; 64-64-64-10, one group per hidden unit, what "
        "reads it, rho 1. Double precision. Strength: of GroupLasso beside a mean over samples, for each seed the "
        f"strongest within a standard error of the best validation accuracy, from {listed(STRENGTHS)} (AM), "
        f"{listed(WIDER)} (RAMDA) and {listed(UNITS)} (digits). AM: {PLANTED.sweeps} and {DIGITS.sweeps} sweeps, "
        f"defaults of AMTrainer. RAMDA: {PLANTED.epochs} epochs, batch 100, learning rate "
        "0.01, a tenth in the second half, the same L2 on other layers. All weights are those of the end. Removal: "
        f"remove_dead every {PERIOD} sweeps, so that the trained network already has fewer parameters. Difference: of "
        "outputs for the test samples before and after the first layer is cut to the inputs that it reads and "
        "ow.shrink takes out the rest. Warning: that a layer escapes from its penalty. Seconds: processor "
        "time of one training, one thread.",
    )


if __name__ == "__main__":
    main()
