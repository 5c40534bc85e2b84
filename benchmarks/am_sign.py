"""Hidden layers of signs, whose derivative is zero: alternating minimization beside random features and a surrogate.

Hidden layers ``sign(W a + b)``, one of 64 units or (teacher) two of 32, in front of a linear readout with softmax
cross-entropy.
All methods start from the same weights, the usual ones of torch:

* random features: the hidden layers stay as they were drawn, and the readout is refitted to convergence, by the same
  code that ends alternating minimization. Chosen: the strength of the l2 term of the readout.
* alternating minimization (AM), 80 sweeps, with the exact coupling. Signs from the start; or ramps that get steeper for
  60 sweeps, and signs for 20; the latter also with codes solved unit after unit. Chosen: rho.
* a straight-through estimator (STE): Adam on batches of 100 for 2000 steps, the derivative of sign replaced by that of
  hardtanh. Chosen: the learning rate.

Three settings each, a factor of ten apart (STE: three), chosen for each task, seed and method by validation accuracy.
Within a run the weights of the least validation loss are kept, of AM after every sweep with signs, of STE every 50
steps. Test samples meet the chosen network only.

Tasks: the teacher's (12 Gaussian inputs, 4 classes by a random ReLU network; 800 samples to train on, 400 to choose,
2000 to test) and digits. A seed draws the weights, and the teacher with its samples or the split of the training
samples. Stopped, the script goes on after the last method. With a task and widths as arguments, such as digits 64, it
computes these and writes no table, so that several processes can work at once.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from statistics import mean, stdev
from typing import Any

import torch
from readme_table import Cell
from record import remembered, write_table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from typing_extensions import override

from openwork.altmin import AMTrainer, Exact, Sign, SignHomotopy
from openwork.data import Data, Split, digits

NAME = "am_sign"
SEEDS = range(5)
SWEEPS, RAMPS = 80, 60
STEPS, BATCH, LOOKS = 2000, 100, 50


class StraightThrough(nn.Module):
    """The value of sign with the derivative of hardtanh."""

    @override
    def forward(self, z: Tensor) -> Tensor:
        ramp = z.clamp(-1, 1)
        return ramp + (Sign()(z) - ramp).detach()


def teacher(seed: int) -> Data:
    """Gaussian inputs with the labels of a random network of 12 hidden units."""
    generator = torch.Generator().manual_seed(1000 + seed)  # not the numbers that the weights begin with
    x = torch.randn(3200, 12, generator=generator)
    first, second = (torch.randn(12, n, generator=generator) for n in (12, 4))
    samples = Split(x, ((x @ first).clamp(min=0) @ second).argmax(1))
    train, valid, test = (samples.take(rows) for rows in torch.arange(3200).split([800, 400, 2000]))
    return Data("teacher", train=train, valid=valid, test=test, classes=4)


def centered_digits(seed: int) -> Data:
    """Digits with the mean of the training images taken off, in units of one standard deviation of all pixels."""
    data = digits(0.2, seed=seed)
    inputs = data.train.inputs
    return data.standardize(inputs.mean(0), (inputs - inputs.mean(0)).std())


TASKS: dict[str, Callable[[int], Data]] = {"teacher": teacher, "digits": centered_digits}
CASES = (("teacher", (64,)), ("teacher", (32, 32)), ("digits", (64,)))
task = cache(lambda name, seed: TASKS[name](seed))


def network(data: Data, hidden: Sequence[int], seed: int, step: Callable[[], nn.Module] = Sign) -> nn.Sequential:
    """Linear layers with signs between them, as torch draws them."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((data.train.inputs.shape[1], *hidden, data.classes)):
        layers += [nn.Linear(inputs, outputs), step()]
    return nn.Sequential(*layers[:-1])


def accuracy(model: nn.Module, samples: Split) -> float:
    """Fraction of samples."""
    with torch.no_grad():
        return float((model(samples.inputs).argmax(1) == samples.targets).double().mean())


def random_features(data: Data, hidden: Sequence[int], seed: int, factor: float) -> nn.Module:
    """The readout alone."""
    trainer = AMTrainer(network(data, hidden, seed), mu=factor * 4e-4 * len(data.train))
    return alternating(trainer, data, 0)


def signs(data: Data, hidden: Sequence[int], seed: int, rho: float) -> nn.Module:
    """Signs from the start."""
    return alternating(AMTrainer(network(data, hidden, seed), rho=rho), data, SWEEPS)


def ramps(data: Data, hidden: Sequence[int], seed: int, rho: float) -> nn.Module:
    """Ramps, then signs."""
    trainer = AMTrainer(network(data, hidden, seed), rho=rho, homotopy=SignHomotopy(RAMPS))
    return alternating(trainer, data, SWEEPS)


def by_unit(data: Data, hidden: Sequence[int], seed: int, rho: float) -> nn.Module:
    """Ramps, then signs, codes unit after unit."""
    model, coupling = network(data, hidden, seed), Exact(solver="coordinates")
    return alternating(AMTrainer(model, rho=rho, coupling=coupling, homotopy=SignHomotopy(RAMPS)), data, SWEEPS)


def alternating(trainer: AMTrainer, data: Data, sweeps: int) -> nn.Module:
    """Train by alternating minimization."""
    held = data.valid.inputs, data.valid.targets
    return trainer.fit(data.train.inputs, data.train.targets, sweeps, validation=held)


def straight_through(data: Data, hidden: Sequence[int], seed: int, lr: float) -> nn.Module:
    """Adam with a derivative of its own."""
    model = network(data, hidden, seed, StraightThrough)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    order = torch.Generator().manual_seed(seed)
    best, kept = float("inf"), {name: value.clone() for name, value in model.state_dict().items()}
    rows = torch.empty(0, dtype=torch.int64)
    for step in range(1, STEPS + 1):
        if len(rows) < BATCH:
            rows = torch.randperm(len(data.train), generator=order)
        batch, rows = data.train.take(rows[:BATCH]), rows[BATCH:]
        optimizer.zero_grad()
        cross_entropy(model(batch.inputs), batch.targets).backward()
        optimizer.step()
        if step % LOOKS == 0:
            with torch.no_grad():
                loss = float(cross_entropy(model(data.valid.inputs), data.valid.targets))
            if loss < best:
                best, kept = loss, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(kept)
    plain = network(data, hidden, seed)
    plain.load_state_dict(model.state_dict())
    return plain


@dataclass(frozen=True)
class Method:
    """A way to train.

    Args:
        train: Trains with one setting.
        settings: To choose from.
        what: They are.
    """

    train: Callable[[Data, Sequence[int], int, float], nn.Module]
    settings: tuple[float, ...]
    what: str


RANDOM = "random features"
RHOS = (0.1, 1.0, 10.0)
METHODS = {
    RANDOM: Method(random_features, (0.1, 1.0, 10.0), "mu / (4e-4 N)"),
    "AM, signs": Method(signs, RHOS, "rho"),
    "AM, ramps": Method(ramps, RHOS, "rho"),
    "AM, ramps, unit after unit": Method(by_unit, RHOS, "rho"),
    "STE": Method(straight_through, (1e-3, 3e-3, 1e-2), "lr"),
}


def measure(name: str, hidden: Sequence[int], method: Method) -> dict[str, Any]:
    """Train with all settings and seeds; the chosen networks are tested."""
    found: dict[str, list[Any]] = {"setting": [], "valid": [], "test": [], "seconds": []}
    for seed in SEEDS:
        data = task(name, seed)
        began = time.process_time()
        models = [method.train(data, hidden, seed, setting) for setting in method.settings]
        seconds = (time.process_time() - began) / len(models)
        valid = [accuracy(model, data.valid) for model in models]
        best = max(range(len(models)), key=valid.__getitem__)
        test = accuracy(models[best], data.test)
        for key, value in zip(found, (method.settings[best], valid, test, seconds), strict=True):
            found[key].append(value)
        print(name, hidden, method.what, f"seed {seed}", method.settings[best], valid, test, flush=True)
    return found


def row(name: str, hidden: str, method: str, found: dict[str, Any], base: dict[str, Any]) -> list[Cell]:
    """One line of the table."""
    more = [100 * (a - b) for a, b in zip(found["test"], base["test"], strict=True)]
    other = method != RANDOM
    return [
        name,
        hidden,
        method,
        f"{100 * mean(found['test']):.1f} ± {100 * stdev(found['test']):.1f}",
        f"{mean(more):+.1f}" if other else None,
        f"{min(more):+.1f}" if other else None,
        f"{sum(m > 0 for m in more)} of {len(more)}" if other else None,
        f"{METHODS[method].what}: {', '.join(f'{setting:g}' for setting in found['setting'])}",
        f"{mean(found['seconds']):.1f}",
    ]


def main() -> None:
    """Measure what is missing, and write the table."""
    torch.set_num_threads(1)
    wanted = sys.argv[1:]
    rows: list[list[Cell]] = []
    for name, widths in CASES:
        hidden = "-".join(map(str, widths))
        if wanted and wanted != [name, hidden]:
            continue
        results = {
            label: remembered(
                NAME,
                f"{name}_{hidden}_{label.replace(', ', '-').replace(' ', '-')}",
                lambda name=name, widths=widths, method=method: measure(name, widths, method),
            )
            for label, method in METHODS.items()
        }
        rows += [row(name, hidden, label, found, results[RANDOM]) for label, found in results.items()]
    if wanted:
        return
    columns = ["task", "sign units", "method", "test accuracy, %", "more than random features, points", "least",
               "seeds with more", "chosen, by seed", "seconds per run"]  # fmt: skip
    write_table(
        NAME,
        "Hidden layers of signs: alternating minimization (AM), random features and a straight-through estimator (STE)",
        columns,
        rows,
        f"Means and deviations over {len(SEEDS)} seeds, which draw the weights, and the teacher or the split. Teacher: "
        "12 Gaussian inputs, 4 classes by a random ReLU network, 800 samples to train on, 400 to choose, 2000 to test. "
        "Digits: 1150, 288 and 359. All methods start from the same weights. Random "
        "features: a readout refitted by the code that also ends AM. AM: "
        f"{SWEEPS} sweeps; ramps: hardtanh of slope 1 to 20 for {RAMPS} sweeps, then signs; unit after unit: "
        f"Exact(solver='coordinates'). STE: Adam, {STEPS} steps on batches of {BATCH}, derivative of hardtanh. Three "
        "settings each, chosen by validation accuracy for each task and seed; within a run the weights with the least "
        "validation loss. Test samples met the chosen networks only. Seconds: processor time, one thread.",
    )


if __name__ == "__main__":
    main()
