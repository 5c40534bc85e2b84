"""What a run costs beside its steps: the loop of ``openwork train`` against a bare loop, side by side.

Both take the same batches of scikit-learn's digits through the same network, clip gradients to the same norm and step
the same optimizer. They take turns after every few steps, and the table gives medians. Steps are measured in processor
time, which for one thread is what the clock says when nothing else runs. What is written once an epoch, a record and a
checkpoint, is not part of a step and has a column of its own, by the clock.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import torch
from readme_table import Cell
from record import write_table
from torch import nn
from torch.nn.functional import cross_entropy

from openwork.data import Batches, Data, digits
from openwork.models import mlp
from openwork.optim import RAMDA, Stages, regularize
from openwork.penalties import GroupLasso
from openwork.training import Metrics, Run, fit, supervised

THREADS, EPOCHS, WARM_UP, SEED = 1, 60, 50, 0
BATCH_SIZE, CLIP, LAM = 64, 1.0, 6e-4
NETWORKS = {"64-128-64-10": (64, 128, 64, 10), "64-256-256-10": (64, 256, 256, 10)}


def ours(widths: tuple[int, ...], data: Data) -> Run:
    """The run whose loop is measured."""
    model = mlp(widths, seed=SEED)
    optimizer = RAMDA(regularize(model, GroupLasso(LAM)))
    return supervised(
        model, cross_entropy, optimizer, data=data, epochs=EPOCHS, batch_size=BATCH_SIZE, clip=CLIP, seed=SEED
    )


def bare(widths: tuple[int, ...], data: Data) -> Callable[[int], float]:
    """A loop as one would write it by hand; called with a number of steps, it gives their seconds."""
    model = mlp(widths, seed=SEED)
    optimizer = RAMDA(regularize(model, GroupLasso(LAM)))
    batches = Batches(data.train, BATCH_SIZE, seed=SEED)
    Stages(optimizer, [], steps_per_epoch=len(batches))
    stream = chain.from_iterable(batches.epoch(epoch) for epoch in range(EPOCHS))

    def train(steps: int) -> float:
        begin = process_time()
        for inputs, targets in islice(stream, steps):
            cross_entropy(model(inputs), targets).backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()
        return process_time() - begin

    return train


class Interleaved:
    """A run that lets the bare loop take as many steps before each piece of its own, and looks at the clock.

    Args:
        run: Driven by ``fit``.
        train: Takes steps of the bare loop and gives their seconds.
    """

    def __init__(self, run: Run, train: Callable[[int], float]) -> None:
        self.run, self.train = run, train
        self.unit = self.piece = 0
        self.begin, self.reported = process_time(), perf_counter()
        self.bare: list[float] = []
        self.ours: list[float] = []
        self.writing: list[float] = []

    def advance(self, units: int) -> Metrics:
        """As the run's own. From call to call, all is steps and fit's loop, or writing if the last one reported."""
        if self.unit % self.run.period:
            self.ours.append((process_time() - self.begin) / self.piece)
        else:
            self.writing.append(perf_counter() - self.reported)
        self.unit, self.piece = self.unit + units, units
        self.bare.append(self.train(units) / units)
        self.begin = process_time()
        metrics = self.run.advance(units)
        self.reported = perf_counter()
        return metrics


def measure(widths: tuple[int, ...]) -> list[Cell]:
    """Medians in ms: a step of the bare loop, one of ours, what it costs more, and writing record and checkpoint."""
    data = digits(seed=SEED)
    run = ours(widths, data)
    clock = Interleaved(run, bare(widths, data))
    with TemporaryDirectory() as folder:
        fit(replace(run, advance=clock.advance), Path(folder), progress=False)
    by_hand, in_run = (1e3 * median(seconds[WARM_UP:]) for seconds in (clock.bare, clock.ours))
    return [by_hand, in_run, in_run - by_hand, 100 * (in_run / by_hand - 1), 1e3 * median(clock.writing)]


def main() -> None:
    """Measure every network and write the table."""
    torch.set_num_threads(THREADS)
    write_table(
        "loop_overhead",
        "What the training loop costs beside the steps",
        ["network", "bare, ms a step", "openwork, ms a step", "more, ms", "more, %", "writing, ms an epoch"],
        [[name, *measure(widths)] for name, widths in NETWORKS.items()],
        f"RAMDA with group lasso on scikit-learn's digits, batches of {BATCH_SIZE}, gradients clipped to {CLIP:g}; "
        f"processor time, medians over {EPOCHS} epochs, the two loops in turn with the same batches. The limit is 10 % "
        "or 1 ms a step, whichever is larger. Once an epoch a record and a checkpoint are written to the disk, which "
        "the last column tells by the clock; evaluation is not in these numbers.",
    )


if __name__ == "__main__":
    main()
