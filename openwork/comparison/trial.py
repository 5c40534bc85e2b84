"""One cell of a comparison: train, finish, shrink, verify, measure."""

import ctypes
import gc
import threading
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from shutil import rmtree
from typing import cast

import psutil
import torch
from accelerate.utils import set_seed
from torch import nn

from openwork.comparison.method import Method
from openwork.comparison.result import Cell, Result, Searched
from openwork.comparison.task import Task
from openwork.data import Data, Split
from openwork.files import Json, read_json, read_records, write_json
from openwork.metrics import Sparsity, macs, sparsity
from openwork.optim import regularize
from openwork.penalties import GroupLasso
from openwork.shrinking import NothingZero, Shrunk, save, shrink
from openwork.structure import Structure
from openwork.training import CHECKPOINT, METRICS, BadCheckpoint, Run, drive, evaluate, machine

# The network of a cell, as small as it gets: ow.load(..., into=the task's model) reads it.
SMALL = "small.safetensors"
CELL = "cell.json"
# What is remembered of a run's records, and in how many points.
CURVES = (
    *("epoch", "unit", "seconds", "train_loss", "valid_loss", "valid_accuracy"),
    *("structured_valid_loss", "structured_valid_accuracy"),
    *("unstructured_sparsity", "group_sparsity", "weighted_group_sparsity"),
)
LONGEST_CURVE = 60
# Samples that tell whether a network ignores its inputs, and samples at a time where validation loss is measured.
LOOKED_AT, BATCH = 64, 1024


def train_cell(task: Task, method: Method, cell: Cell, folder: Path) -> Result:
    """Train one network in a folder, going on where a killed process stopped, and finish it.

    Args:
        task: What is learned.
        method: How.
        cell: Strength, seed and budget.
        folder: Its own; made if need be.

    Returns:
        The numbers, without times.

    Raises:
        Stopped: If a signal asked to stop; everything is saved.
        OSError: If a file cannot be written.
        FloatingPointError: If the training diverged.
    """
    with noted() as notes:
        with peak_memory() as memory:
            run, seconds = _trained(task, method, cell, folder)
        model = run.finish()
    numbers = run.evaluate(model)
    loss = cast("float", numbers["test_loss"])
    _check_finite(model, loss)
    zeros = _zeros(model)
    small, shrunk = _smaller(model, run)
    if shrunk is not None and shrunk.report.ranks:
        ranks = ", ".join(f"{path} (rank {rank} of {most})" for path, (rank, most) in shrunk.report.ranks.items())
        notes.append(f"layers of low rank were split in two: {ranks}")
    # Of the dense network only the size is of use, since the small one is made from the task's model.
    dense = folder / "dense.safetensors"
    save(model, dense)
    sizes = [dense.stat().st_size]
    dense.unlink()
    save(shrunk or model, folder / SMALL, sparse=True)
    counted = [macs(one, run.example[:1]).total for one in (model, small)]
    data = task.data(cell.seed)
    return Result(
        cell=cell,
        accuracy=cast("float | None", numbers.get("test_accuracy")),
        loss=loss,
        valid_accuracy=cast("float | None", numbers.get("valid_accuracy")),
        valid_loss=cast("float | None", numbers.get("valid_loss")),
        unstructured=zeros.unstructured or 0.0,
        group=zeros.group,
        weighted_group=zeros.weighted_group,
        params=(zeros.params.total, sum(p.numel() for p in small.parameters())),
        nonzero=sum(int(p.count_nonzero()) for p in small.parameters()),
        bytes=(sizes[0], (folder / SMALL).stat().st_size),
        macs=(counted[0], counted[1]),
        seconds=seconds,
        memory_mib=round(memory.mib, 1),
        constant=_constant(model, data.valid or data.train),
        test_unequal=shrunk.report.certificate.difference if shrunk else 0.0,
        layers={
            name: [int(weight.count_nonzero()), weight.numel()]
            for name, weight in model.named_parameters()
            if weight.ndim > 1
        },
        widths={width.name: [width.before, width.after] for width in shrunk.report.widths} if shrunk else {},
        curves=_curves(folder / METRICS),
        notes=tuple(notes),
        trained_on=here(),
    )


def search_cell(task: Task, method: Method, cell: Cell, folder: Path) -> Searched:
    """Train one network to see how good the settings of its method are, by validation samples only.

    Args:
        task: What is learned, with validation samples.
        method: With these settings.
        cell: What it is.
        folder: Its own; made if need be.

    Returns:
        What a choice is made by.

    Raises:
        Stopped: If a signal asked to stop; everything is saved.
        OSError: If a file cannot be written.
        FloatingPointError: If the training diverged.
    """

    def untested(seed: int) -> Data:
        data = task.data(seed)
        return replace(data, test=data.test.none())

    with noted():
        run, seconds = _trained(replace(task, data=untested), method, cell, folder)
        model = run.finish()
    valid = task.data(cell.seed).valid.to(run.example.device)
    numbers = evaluate(model, task.loss, valid, batch_size=BATCH, classes=task.data(cell.seed).classes)
    loss = cast("float", numbers["loss"])
    _check_finite(model, loss)
    zeros = sparsity(model).unstructured or 0.0
    return Searched(cell, cast("float | None", numbers.get("accuracy")), loss, zeros, seconds)


def here() -> str:
    """This machine, as far as times depend on it."""
    return ", ".join(f"{key}: {value}" for key, value in machine().items())


def _trained(task: Task, method: Method, cell: Cell, folder: Path) -> tuple[Run, float]:
    """A run at its end, and seconds of training."""
    about = cast("dict[str, Json]", asdict(cell))
    file = folder / CELL
    if file.exists() and read_json(file) != _plain(about):
        rmtree(folder)  # of a comparison whose study is gone
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, about)
    run = _seeded(task, method, cell)
    try:
        return run, drive(run, folder, progress=False)
    except BadCheckpoint:  # of another version, perhaps
        for name in (CHECKPOINT, METRICS):
            (folder / name).unlink(missing_ok=True)
        run = _seeded(task, method, cell)
        return run, drive(run, folder, progress=False)


def _seeded(task: Task, method: Method, cell: Cell) -> Run:
    # Dropout draws from the global generators: a cell must not depend on those that were trained before it.
    set_seed(cell.seed)
    return method.run(task, cell.strength, cell.epochs, cell.seed)


def _plain(value: Json) -> Json:
    """As JSON gives it back."""
    if isinstance(value, float) and not isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def _check_finite(model: nn.Module, loss: float) -> None:
    if not isfinite(loss) or not all(bool(p.isfinite().all()) for p in model.parameters()):
        raise FloatingPointError("training diverged: weights or loss are not finite in the end")


def _zeros(model: nn.Module) -> Sparsity:
    """Zeros by the same groups for every method."""
    structures: dict[str, Structure] = {}
    names = {parameter: name for name, parameter in model.named_parameters()}
    try:
        for group in regularize(model, GroupLasso(1.0)):
            penalty = group["penalty"]
            for parameter in group["params"] if isinstance(penalty, GroupLasso) else ():
                structures[names[parameter]] = penalty.structure(parameter.detach())
    except ValueError:  # nothing to group
        structures = {}
    return sparsity(model, structures)


def _smaller(model: nn.Module, run: Run) -> tuple[nn.Module, Shrunk | None]:
    """A verified smaller model, and how it was made; the model itself if nothing can go."""
    try:
        shrunk = shrink(model, run.example)
    except NothingZero:
        return model, None
    return shrunk.model, shrunk


@torch.no_grad()
def _constant(model: nn.Module, samples: Split) -> bool:
    device = next(model.parameters()).device
    outputs = model.eval()(samples.inputs[:LOOKED_AT].to(device))
    return len(samples) > 1 and bool((outputs == outputs[:1]).all())


def _curves(metrics: Path) -> dict[str, list[float | None]]:
    records = read_records(metrics) if metrics.exists() else []
    step = -(-len(records) // LONGEST_CURVE) or 1
    # The last one is always among them.
    records = records[::-1][::step][::-1]
    found: dict[str, list[float | None]] = {}
    for key in CURVES:
        values = [record.get(key) for record in records]
        if any(isinstance(value, int | float) for value in values):
            found[key] = [float(f"{value:.5g}") if isinstance(value, int | float) else None for value in values]
    return found


@contextmanager
def noted() -> Generator[list[str]]:
    """Collect what the user is warned of, each once, instead of saying it over and over."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield notes
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            notes += [] if str(warning.message) in notes else [str(warning.message)]
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


@dataclass
class Peak:
    """Largest memory so far, above what it was at the start.

    Args:
        mib: In MiB.
    """

    mib: float = 0.0


@contextmanager
def peak_memory() -> Generator[Peak]:
    """Watch the memory: that of the GPU if training uses one, else the resident memory, twenty times a second."""
    peak = Peak()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        yield peak
        peak.mib = (torch.cuda.max_memory_allocated() - start) / 2**20
        return
    process, done = psutil.Process(), threading.Event()
    # What networks before this one have left is given back first: it would be used again, and not be counted.
    gc.collect()
    with suppress(AttributeError, OSError, TypeError):  # of the GNU C library alone
        ctypes.CDLL(None).malloc_trim(0)
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


__all__ = ["SMALL", "here", "noted", "peak_memory", "search_cell", "train_cell"]
