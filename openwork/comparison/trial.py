"""One cell of a comparison: train, finish, shrink, verify, measure."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import psutil
from torch import nn

from openwork.comparison.method import Method
from openwork.comparison.result import Cell, Result
from openwork.comparison.task import Task
from openwork.metrics import macs, sparsity
from openwork.shrinking import NothingZero, save, shrink
from openwork.training import Run, drive

# Beside the files of the run, to measure times with afterwards.
DENSE, SMALL = "dense.safetensors", "small.safetensors"


def train_cell(task: Task, method: Method, cell: Cell, folder: Path) -> Result:
    """Train one network in a folder, going on where a killed process stopped, and finish it.

    Args:
        task: What is learned.
        method: How.
        cell: Strength, seed and budget.
        folder: Exists; its own.

    Returns:
        The numbers, without times.

    Raises:
        Stopped: If a signal asked to stop; everything is saved.
        OSError: If a file cannot be written.
    """
    run = method.run(task, cell.strength, cell.epochs, cell.seed)
    with peak_memory() as memory:
        seconds = drive(run, folder, progress=False)
    return finish(run, cell, folder, seconds, memory.mib)


def finish(run: Run, cell: Cell, folder: Path, seconds: float, memory_mib: float) -> Result:
    """The numbers of a run that was driven to its end.

    Args:
        run: After its last unit.
        cell: What it is.
        folder: Where the models go.
        seconds: Of training.
        memory_mib: Of training.
    """
    model = run.finish()
    numbers = run.evaluate(model)
    zeros = sparsity(model)
    small, difference = smaller(model, run)
    save(model, folder / DENSE)
    save(small, folder / SMALL, sparse=True)
    counted = [macs(one, run.example[:1]).total for one in (model, small)]

    def number(name: str) -> float | None:
        return cast("float | None", numbers.get(name))

    return Result(
        cell=cell,
        accuracy=number("test_accuracy"),
        loss=cast("float", numbers["test_loss"]),
        valid_accuracy=number("valid_accuracy"),
        valid_loss=number("valid_loss"),
        unstructured=zeros.unstructured or 0.0,
        group=number("group_sparsity"),
        weighted_group=number("weighted_group_sparsity"),
        params=(zeros.params.total, sum(p.numel() for p in small.parameters())),
        nonzero=zeros.params.nonzero,
        bytes=((folder / DENSE).stat().st_size, (folder / SMALL).stat().st_size),
        macs=(counted[0], counted[1]),
        seconds=seconds,
        memory_mib=memory_mib,
        test_unequal=difference,
    )


def smaller(model: nn.Module, run: Run) -> tuple[nn.Module, float]:
    """A verified smaller model, and how far its outputs are off; the model itself if nothing can go."""
    try:
        shrunk = shrink(model, run.example)
    except NothingZero:
        return model, 0.0
    return shrunk.model, shrunk.report.certificate.difference


@dataclass
class Peak:
    """Largest memory so far, above what it was at the start.

    Args:
        mib: In MiB.
    """

    mib: float = 0.0


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Watch the resident memory of this process, twenty times a second."""
    process, peak, done = psutil.Process(), Peak(), threading.Event()
    start = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.05):
            peak.mib = max(peak.mib, (process.memory_info().rss - start) / 2**20)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


__all__ = ["DENSE", "SMALL", "train_cell"]
