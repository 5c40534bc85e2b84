"""Driving a run: reports, checkpoints, progress, and stopping without losing anything."""

from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import Literal, cast

from accelerate import Accelerator
from accelerate.utils import gather_object
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from openwork.files import append_record, read_records, truncate_records, write_json
from openwork.shrinking import export_tensors
from openwork.training.checkpoint import BadCheckpoint, Position, load_checkpoint, read_unit, save_checkpoint
from openwork.training.folder import read_recipe
from openwork.training.processes import processes
from openwork.training.run import Metrics, Run
from openwork.training.signals import Stopped, StopRequest, stop_requests

CHECKPOINT, METRICS, FINAL, WEIGHTS = "checkpoint.pt", "metrics.jsonl", "final.json", "model.safetensors"


def fit(run: Run, out: Path, *, tracker: Literal["tensorboard"] | None = None, progress: bool = True) -> Metrics:
    """Drive a run to its end in a folder, from the checkpoint in it if there is one, and finish it.

    To what ``drive`` writes come ``model.safetensors`` and ``final.json``.

    Args:
        run: As for ``drive``.
        out: As for ``drive``.
        tracker: As for ``drive``.
        progress: As for ``drive``.

    Returns:
        Numbers of the finished model.
    """
    seconds = drive(run, out, tracker=tracker, progress=progress)
    module = run.finish()
    final = {**run.evaluate(module), "seconds": seconds}
    if processes().is_main_process:
        export_tensors(module, out / WEIGHTS)
        write_json(out / FINAL, final)
    processes().wait_for_everyone()
    return final


def drive(run: Run, out: Path, *, tracker: Literal["tensorboard"] | None = None, progress: bool = True) -> float:
    """Drive a run to its last unit in a folder, from the checkpoint in it if there is one.

    After every period a line goes to ``metrics.jsonl`` and a checkpoint replaces the last one. SIGTERM and SIGINT stop
    between two units, after saving.

    Args:
        run: Built as the checkpoint's was, if there is one.
        out: Folder of the run; exists.
        tracker: Also log numbers for TensorBoard, in the folder.
        progress: Show a bar, on a terminal only.

    Returns:
        Seconds of training.

    Raises:
        Stopped: If a signal asked to stop.
        BadCheckpoint: If the checkpoint is damaged or of another run, or ``metrics.jsonl`` does not fit it.
        OSError: If a file cannot be written.
    """
    main = processes().is_main_process
    position = _begin(run, out)
    logger = Accelerator(log_with=tracker, project_dir=str(out)) if tracker else None
    if logger is not None:
        logger.init_trackers("tensorboard")
    console = Console(stderr=True)
    bar = _bar(console) if progress and main and console.is_terminal else None
    task = bar.add_task("training", total=run.units, completed=position.unit, report="") if bar else None
    with bar or nullcontext(), stop_requests() as stop:
        while position.unit < run.units:
            # Small enough to stop soon, large enough not to matter.
            units = min(max(1, run.period // 20), run.period - position.unit % run.period, run.units - position.unit)
            begin = perf_counter()
            metrics = run.advance(units)
            position = position.after(units, perf_counter() - begin)
            if metrics:
                metrics = {**metrics, "seconds": round(position.seconds, 3)}
                if main:
                    append_record(out / METRICS, metrics)
                position = position.reported()
                save_checkpoint(out / CHECKPOINT, run, position)
                if logger is not None:
                    logger.log({k: v for k, v in metrics.items() if isinstance(v, int | float)}, step=position.unit)
            if bar is not None and task is not None:
                bar.update(task, completed=position.unit)
                if metrics:
                    bar.update(task, report=_brief(metrics))
            if (number := _asked(stop)) is not None:
                save_checkpoint(out / CHECKPOINT, run, position)
                raise Stopped(number, f"everything is saved in {out}")
    if logger is not None:
        logger.end_training()
    return round(position.seconds, 3)


def _begin(run: Run, out: Path) -> Position:
    """Bring run and records to the last checkpoint.

    Raises:
        BadCheckpoint: If they cannot be brought there.
    """
    try:
        position = load_checkpoint(out / CHECKPOINT, run) if (out / CHECKPOINT).exists() else Position()
        if processes().is_main_process:
            # Lines written after the checkpoint will be written again.
            truncate_records(out / METRICS, position.records)
    except (OSError, ValueError) as error:
        raise BadCheckpoint(str(error)) from error
    return position


def _asked(stop: StopRequest) -> int | None:
    """The signal that asked any of the processes to stop: they stop together, or the others would wait forever."""
    if processes().num_processes == 1:
        return stop.number
    return next((number for number in gather_object([stop.number]) if number is not None), None)


def rebuild(folder: Path) -> Run:
    """The run of a folder, where its last checkpoint left it.

    Args:
        folder: Of a run.

    Returns:
        The run, built by calling its recipe again.

    Raises:
        ValueError: If it is not a run folder, or its checkpoint is damaged.
    """
    run = read_recipe(folder).build()
    if (folder / CHECKPOINT).exists():
        load_checkpoint(folder / CHECKPOINT, run)
    return run


def units_done(folder: Path) -> int:
    """Units of a run that its last checkpoint holds; 0 without one.

    Raises:
        BadCheckpoint: If it is damaged.
    """
    return read_unit(folder / CHECKPOINT) if (folder / CHECKPOINT).exists() else 0


def last_report(folder: Path) -> Metrics:
    """The last complete line of a folder's metrics, or nothing."""
    records = read_records(folder / METRICS) if (folder / METRICS).exists() else []
    return cast("Metrics", records[-1]) if records else {}


def _bar(console: Console) -> Progress:
    columns = (BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}"), *columns, TextColumn("{task.fields[report]}"), console=console)


def _brief(metrics: Metrics) -> str:
    accuracy = metrics.get("structured_valid_accuracy", metrics.get("valid_accuracy"))
    sparsity = metrics.get("weighted_group_sparsity")
    parts = [f"loss {metrics['train_loss']:.3f}"] if isinstance(metrics.get("train_loss"), float) else []
    parts += [f"valid {accuracy:.1%}"] if isinstance(accuracy, float) else []
    parts += [f"sparsity {sparsity:.1%}"] if isinstance(sparsity, float) else []
    return ", ".join(parts)
