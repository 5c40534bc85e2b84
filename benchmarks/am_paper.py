"""The setting of the TIAM paper: three linear layers, 100 hidden units, full batch; its method, relatives, optimizers.

Every method minimizes the same thing, the mean cross-entropy plus 2e-4 ||W||^2 over all weights (mu = 4e-4 for each
sample), from the same He normal start. Alternating methods have K sweeps, full-batch optimizers 3 K steps: a sweep
costs up to three times as much (am_cost). Data: digits, 10 000 samples each of letter-recognition and MNIST, with three
activations and five seeds (of the start and of the validation split), and all training images of MNIST and
Fashion-MNIST with ReLU and two seeds, where the methods with the exact coupling work in chunks of 10 000.

Each method has one number to tune, out of five: rho of the links, or the learning rate. The lowest validation loss of a
run of half the length chooses it, once per data set, with ReLU and seed 0; the larger sets take that of MNIST-10k. A
run gives the weights of the sweep with the lowest validation loss, looked at every third sweep; test images only ever
see these. "exact" is the exact coupling with the three inertias and majorized weights; "W solved" solves for the
weights instead, and both refit their last layer. dlADMM may also take the rule of its released code.

Seconds per sweep are measured apart from all that, in one process and round by round, since a long run shares its
machine; nothing but sweeps or steps is in them.

Stopped, the script goes on after the last finished part. With names of parts as arguments, or beginnings of
names such as digits-relu-s0, it computes these and writes no table, so that several processes can work at once; with
"table" it writes the table of what there is.
"""

import sys
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from math import inf, isfinite
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any, Protocol

import torch
from readme_table import RESULTS, Cell
from record import data_dir, remembered, write_table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from openwork.altmin import AMTrainer, ExactWeights, FixedRho, MajorizedWeights, RisingCostRho, bcd, dladmm, mdlam, tiam
from openwork.data import Data, digits, fashion_mnist, letter_recognition, mnist
from openwork.files import read_json
from openwork.models import mlp

NAME = "am_paper"
# mu per sample; the weight decay of a mean loss.
DECAY = 4e-4
STEPS_PER_SWEEP, LOOK_EVERY = 3, 3
CHUNK = 10_000
ROUNDS, FEW_ROUNDS = 7, 3


@dataclass(frozen=True)
class Task:
    """Data and how long they are trained on.

    Args:
        load: Gives the data, split by a seed.
        size: Training samples; None for all.
        sweeps: Of alternating methods.
        seeds: How many.
        activations: Names of those that are tried.
        tuned_on: Name of the task whose choices are taken; None for its own.
    """

    load: Callable[[int], Data]
    size: int | None
    sweeps: int
    seeds: int
    activations: tuple[str, ...]
    tuned_on: str | None = None


ALL = ("relu", "leaky", "elu")
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "leaky": nn.LeakyReLU, "elu": nn.ELU}
TASKS = {
    "digits": Task(lambda seed: digits(seed=seed), None, 150, 5, ALL),
    "letter": Task(lambda seed: letter_recognition(data_dir(), seed=seed), 10_000, 40, 5, ALL),
    "mnist10k": Task(lambda seed: mnist(data_dir(), seed=seed), 10_000, 40, 5, ALL),
    "mnist": Task(lambda seed: mnist(data_dir(), seed=seed), None, 20, 2, ("relu",), "mnist10k"),
    "fashion": Task(lambda seed: fashion_mnist(data_dir(), seed=seed), None, 20, 2, ("relu",), "mnist10k"),
}


class Method(Protocol):
    """A method on one network and its samples."""

    def sweep(self) -> float | None:
        """Train by the work of a sweep; the objective, if the method has one of its own."""
        ...

    def finish(self) -> None:
        """Whatever follows the last sweep, once the chosen weights are in the network."""
        ...


class Alternating:
    """A trainer of this library."""

    def __init__(self, trainer: AMTrainer, x: Tensor, y: Tensor, refit: bool) -> None:
        self.trainer, self.refit = trainer, refit
        trainer.start(x, y)

    def sweep(self) -> float | None:
        """One sweep."""
        return self.trainer.sweep().objective

    def finish(self) -> None:
        """Refit the last layer, if that is on."""
        if self.refit:
            self.trainer.finish()


class FirstOrder:
    """An optimizer on the full batch."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        self.model, self.optimizer, self.x, self.y = model, optimizer, x, y

    def sweep(self) -> float | None:
        """Three steps."""
        for _ in range(STEPS_PER_SWEEP):
            self.optimizer.zero_grad()
            cross_entropy(self.model(self.x), self.y).backward()
            self.optimizer.step()

    def finish(self) -> None:
        """Nothing."""


def alternating(method: str, model: nn.Sequential, rho: float, size: int) -> AMTrainer:
    """A trainer with the name of a row of the table.

    Raises:
        ValueError: If there is none.
    """
    mu = DECAY * size
    none = (0.0, 0.0, 0.0)
    chunk = CHUNK if size > 2 * CHUNK else None
    majorized, solved = MajorizedWeights(fresh=chunk is not None), ExactWeights()
    match method:
        case "exact, W solved":
            return AMTrainer(model, rho=rho, mu=mu, w_solver=solved, chunk_size=chunk)
        case "exact, W solved, no inertia, same rho":
            return AMTrainer(model, rho=rho, mu=mu, w_solver=solved, inertia=none, chunk_size=chunk)
        case "exact":
            return AMTrainer(model, rho=rho, mu=mu, w_solver=majorized, chunk_size=chunk)
        case "exact, no inertia" | "exact, no inertia, same rho":
            return AMTrainer(model, rho=rho, mu=mu, w_solver=majorized, inertia=none, chunk_size=chunk)
        case "TIAM (band)":
            return tiam(model, rho=rho, mu=mu)
        case "mDLAM":
            return mdlam(model, rho=rho, mu=mu)
        case "dlADMM":
            # The smallest number of the grid stands for the released code's rule, which starts at 1e-6.
            return dladmm(model, rho=RisingCostRho() if rho == RHOS[0] else FixedRho(rho), mu=mu)
        case "BCD":
            return bcd(model, rho=rho, gamma=rho, mu=mu)
        case _:
            raise ValueError(method)


def optimizer(method: str, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """An optimizer with the name of a row of the table; biases are not decayed, as in the trainers.

    Raises:
        ValueError: If there is none.
    """
    weights = [p for p in model.parameters() if p.ndim > 1]
    biases = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": weights, "weight_decay": DECAY}, {"params": biases, "weight_decay": 0.0}]
    match method:
        case "SGD, momentum":
            return torch.optim.SGD(groups, lr=lr, momentum=0.9)
        case "Adam":
            return torch.optim.Adam(groups, lr=lr)
        case "Adagrad":
            return torch.optim.Adagrad(groups, lr=lr)
        case "Adadelta":
            return torch.optim.Adadelta(groups, lr=lr)
        case _:
            raise ValueError(method)


RHOS = (0.001, 0.01, 0.1, 1.0, 10.0)
GRIDS: dict[str, tuple[float, ...]] = {
    "exact, W solved": RHOS,
    "exact, W solved, no inertia, same rho": RHOS,
    "exact": RHOS,
    "exact, no inertia, same rho": RHOS,
    "exact, no inertia": RHOS,
    "TIAM (band)": RHOS,
    "mDLAM": RHOS,
    "dlADMM": RHOS,
    "BCD": RHOS,
    "SGD, momentum": (0.01, 0.03, 0.1, 0.3, 1.0),
    "Adam": (1e-3, 3e-3, 1e-2, 3e-2, 0.1),
    "Adagrad": (3e-3, 1e-2, 3e-2, 0.1, 0.3),
    "Adadelta": (0.3, 1.0, 3.0, 10.0, 30.0),
}
# What is added to the name of a method to try it without inertia.
SAME = ", no inertia, same rho"
OPTIMIZERS = ("SGD, momentum", "Adam", "Adagrad", "Adadelta")
REFITS = tuple(method for method in GRIDS if method.startswith("exact"))


def build(method: str, knob: float, model: nn.Sequential, x: Tensor, y: Tensor) -> Method:
    """A method, ready for its first sweep."""
    if method in OPTIMIZERS:
        return FirstOrder(model, optimizer(method, model, knob), x, y)
    return Alternating(alternating(method, model, knob, len(x)), x, y, method in REFITS)


def network(task: str, activation: str, seed: int) -> nn.Sequential:
    """The start of all methods."""
    data = samples(task, seed)
    model = mlp((data.train.inputs[0].numel(), 100, 100, data.classes), seed=seed)
    layers = [ACTIVATIONS[activation]() if isinstance(layer, nn.ReLU) else layer for layer in model]
    return nn.Sequential(*layers)


@lru_cache(2)
def samples(task: str, seed: int) -> Data:
    """Data of a task; only the last ones used are kept."""
    return TASKS[task].load(seed)


@torch.no_grad()
def loss_and_accuracy(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Mean cross-entropy, and the fraction of samples that are right."""
    outputs = model(x)
    return float(cross_entropy(outputs, y)), float((outputs.argmax(1) == y).double().mean())


def run(task: str, activation: str, method: str, knob: float, seed: int, test: bool) -> dict[str, Any]:
    """Train once: curves, and what the weights with the lowest validation loss do on the test samples.

    A run that is only to choose a number has half of the sweeps, and does not look at test samples.
    """
    sweeps = TASKS[task].sweeps if test else TASKS[task].sweeps // 2
    data = samples(task, seed)
    size = TASKS[task].size
    x, y = data.train.inputs[:size].flatten(1), data.train.targets[:size]
    valid_x, valid_y = data.valid.inputs.flatten(1), data.valid.targets
    model = network(task, activation, seed)
    torch.manual_seed(seed)
    weights = [p for p in model.parameters() if p.ndim > 1]
    looks: list[list[float]] = []
    objectives: list[float] = []
    best, best_state = inf, deepcopy(model.state_dict())
    failed = None
    trained = build(method, knob, model, x, y)
    for done in range(sweeps + 1):
        if done:
            try:
                objective = trained.sweep()
            except FloatingPointError as error:
                failed = str(error)
                break
            if objective is not None:
                objectives.append(objective / len(x))
        if done % LOOK_EVERY == 0:
            loss, accuracy = loss_and_accuracy(model, x, y)
            decay = DECAY / 2 * sum(float(w.detach().double().square().sum()) for w in weights)
            held, right = loss_and_accuracy(model, valid_x, valid_y)
            looks.append([done, loss + decay, loss, accuracy, held, right])
            if held < best:
                best, best_state = held, deepcopy(model.state_dict())
    model.load_state_dict(best_state)
    result: dict[str, Any] = {"knob": knob, "looks": looks, "objective": objectives, "validation": best}
    result["failed"] = failed
    if isinstance(trained, Alternating):
        result["restarts"] = trained.trainer.report()["restarts"][-1:]
    if test:
        with_refit = deepcopy(best_state)
        trained.finish()
        if best_state and method in REFITS:
            refitted = loss_and_accuracy(model, valid_x, valid_y)[0]
            if not refitted <= best:
                model.load_state_dict(with_refit)
        result["test"] = loss_and_accuracy(model, data.test.inputs.flatten(1), data.test.targets)[1]
    print(f"{task} {activation} {method} {knob:g} seed {seed}: validation {best:.4f}", flush=True)
    return result


def tuned(task: str, method: str) -> float:
    """The number of a method that is best on validation samples."""
    own = TASKS[task].tuned_on or task
    if method.endswith(SAME):
        return tuned(task, method.removesuffix(SAME))

    def search() -> dict[str, Any]:
        runs = [run(own, "relu", method, knob, 0, test=False) for knob in GRIDS[method]]
        scores = [r["validation"] if isfinite(r["validation"]) else inf for r in runs]
        return {"grid": GRIDS[method], "validation": scores, "best": GRIDS[method][scores.index(min(scores))]}

    return float(remembered(NAME, f"{own}-tune-{slug(method)}", search)["best"])


def slug(method: str) -> str:
    """The name of a method in file names."""
    return method.lower().replace(", ", "-").replace(" ", "-").replace("(", "").replace(")", "")


def seconds(task: str) -> dict[str, Any]:
    """Seconds per sweep (or per three steps) of all methods, each once in every round."""
    data = samples(task, 0)
    size = TASKS[task].size
    x, y = data.train.inputs[:size].flatten(1), data.train.targets[:size]
    methods = {m: build(m, tuned(task, m), network(task, "relu", 0), x, y) for m in GRIDS}
    times: dict[str, list[float]] = {m: [] for m in methods}
    for at in range((ROUNDS if len(x) <= 2 * CHUNK else FEW_ROUNDS) + 2):
        for name, method in methods.items():
            began = time.perf_counter()
            method.sweep()
            if at > 1:  # the first sweeps allocate, and have no history
                times[name].append(time.perf_counter() - began)
    return {name: median(values) for name, values in times.items()}


def parts() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Names of all parts and how they are computed, the most telling first."""
    for seed in range(5):
        for task, plan in TASKS.items():
            for activation in plan.activations:
                for method in GRIDS if seed < plan.seeds else ():
                    yield (
                        f"{task}-{activation}-s{seed}-{slug(method)}",
                        lambda t=task, a=activation, s=seed, m=method: run(t, a, m, tuned(t, m), s, test=True),
                    )
    for task in TASKS:
        yield f"{task}-seconds", lambda t=task: seconds(t)


def first_look(looks: list[list[float]], target: float) -> float | None:
    """Sweeps until the objective of the network is at most the target; None if never."""
    return next((look[0] for look in looks if look[1] <= target), None)


def first_sweep(objectives: list[float], target: float) -> int | None:
    """Sweeps until the objective of the method is at most the target; None if never."""
    return next((k + 1 for k, value in enumerate(objectives) if value <= target), None)


def files(task: str, activation: str, seed: int) -> list[Path]:
    """The parts of all methods with one start."""
    return [RESULTS / NAME / f"{task}-{activation}-s{seed}-{slug(method)}.json" for method in GRIDS]


def rows(task: str, activation: str) -> list[list[Cell]]:
    """The rows of one task and activation."""
    seeds = [seed for seed in range(TASKS[task].seeds) if all(file.exists() for file in files(task, activation, seed))]
    if not seeds:
        return []
    found = [
        {m: read_json(file) for m, file in zip(GRIDS, files(task, activation, seed), strict=True)} for seed in seeds
    ]
    timing = RESULTS / NAME / f"{task}-seconds.json"
    per_sweep: dict[str, Any] = dict(read_json(timing)) if timing.exists() else {}
    table: list[list[Cell]] = []
    for method in GRIDS:
        runs: list[Any] = [one[method] for one in found]
        plain: list[Any] = [one["exact, no inertia"] for one in found]
        to_target = [first_look(r["looks"], p["looks"][-1][1]) for r, p in zip(runs, plain, strict=True)]
        reached = [k for k in to_target if k is not None]
        sweeps: Cell = f"{median(reached):g}" if reached else "–"
        if reached and len(reached) < len(runs):
            sweeps = f"{sweeps} ({len(reached)} of {len(runs)})"
        own: Cell = None
        if method + SAME in GRIDS:
            same: list[Any] = [one[method + SAME] for one in found]
            counts = [first_sweep(r["objective"], p["objective"][-1]) for r, p in zip(runs, same, strict=True)]
            known = [k for k in counts if k is not None]
            own = median(known) if known else None
        per = per_sweep.get(method)
        tests = [100 * r["test"] for r in runs]
        spread = f" +- {stdev(tests):.2f}" if len(tests) > 1 else ""
        table.append(
            [
                f"{task}, {activation}, {len(runs)} seed{'s' if len(runs) > 1 else ''}",
                method,
                runs[0]["knob"],
                mean(r["looks"][-1][1] for r in runs),
                own,
                sweeps,
                None if per is None else 1000 * per,
                median(reached) * per if reached and per is not None and len(reached) == len(runs) else None,
                f"{mean(tests):.2f}{spread}",
            ]
        )
    return table


def main(names: list[str]) -> None:
    """Compute the parts that are missing, then write the table."""
    torch.set_flush_denormal(True)
    for part, how in parts():
        if "table" in names or (names and not any(part.startswith(name) for name in names)):
            continue
        remembered(NAME, part, how)
    if names and names != ["table"]:
        return
    write_table(
        NAME,
        "Alternating minimization in the setting of the TIAM paper: three layers, 100 hidden units, full batch",
        [
            "data, activation",
            "method",
            "rho or lr",
            "J at the end",
            "sweeps to F without inertia",
            "sweeps to J of plain",
            "ms per sweep",
            "s to J of plain",
            "test accuracy %",
        ],
        [row for task, plan in TASKS.items() for activation in plan.activations for row in rows(task, activation)],
        "J is the objective of the network itself, mean cross-entropy + 2e-4 ||W||^2, on the training samples; F the "
        "one that the trainer lowers. Plain is 'exact, no inertia' after all of its sweeps with the same seed: 150 on "
        "digits, 40 on letter and MNIST-10k, 20 on all of MNIST and Fashion-MNIST; optimizers have three steps for "
        "each sweep. F is compared with that of the same method without inertia and with the same rho. Medians over "
        "seeds; in brackets how many seeds get there. Times are medians of 7 rounds (3 on all images) side by side, "
        "with ReLU. Tuning, selection and splits: see the script.",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
