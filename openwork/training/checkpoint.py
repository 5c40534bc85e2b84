"""Checkpoints: a run and all random states, in one file that is whole or not there."""

import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate.utils import gather_object

from openwork.files import State, read_tensors, write_tensors
from openwork.training.processes import processes
from openwork.training.run import Run

SCHEMA = 2


class BadCheckpoint(ValueError):
    """A checkpoint that is damaged, of another version, or of another run."""


@dataclass(frozen=True)
class Position:
    """How far a run and the files beside its checkpoint have got.

    Args:
        unit: Units done.
        records: Complete records in ``metrics.jsonl``.
        seconds: Spent on training so far.
    """

    unit: int = 0
    records: int = 0
    seconds: float = 0.0

    def after(self, units: int, seconds: float) -> "Position":
        """The position after more units that took so long."""
        return replace(self, unit=self.unit + units, seconds=self.seconds + seconds)

    def reported(self) -> "Position":
        """The position after one more record."""
        return replace(self, records=self.records + 1)


def save_checkpoint(path: Path, run: Run, position: Position) -> None:
    """Write everything from which ``run`` goes on to the same bits; called by every process, written by the main one.

    Args:
        path: File to write, atomically.
        run: Between two units.
        position: Saved along.

    Raises:
        OSError: If the file cannot be written; it is then as it was.
    """
    # Every process draws numbers of its own, such as those of dropout.
    states = gather_object([random_state()])
    if processes().is_main_process:
        write_tensors(
            path,
            {
                "schema": SCHEMA,
                "run": run.state_dict(),
                "random": states,
                "threads": torch.get_num_threads(),
                "unit": position.unit,
                "records": position.records,
                "seconds": position.seconds,
            },
        )


def load_checkpoint(path: Path, run: Run) -> Position:
    """Bring ``run`` and the random states to where the checkpoint was written.

    Args:
        path: File that ``save_checkpoint`` wrote.
        run: Built as it was then.

    Returns:
        What was saved along.

    Raises:
        OSError: If the file cannot be read.
        BadCheckpoint: If it is damaged, of another version, or of another run.

    Warns:
        UserWarning: If the number of threads or processes differs, since then the bits do.
    """
    try:
        state = cast("dict[str, Any]", read_tensors(path))
    except ValueError as error:
        raise BadCheckpoint(str(error)) from error
    if state.get("schema") != SCHEMA:
        raise BadCheckpoint(
            f"{path} is a checkpoint of schema {state.get('schema')!r}, and this version of openwork reads {SCHEMA}; "
            "resume it with the version that wrote it, or start the run anew"
        )
    try:
        run.load_state_dict(state["run"])
        position = Position(state["unit"], state["records"], state["seconds"])
        states, threads = state["random"], state["threads"]
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BadCheckpoint(
            f"{path} does not fit this run ({reason[:200]}); resume it with the recipe and arguments it was written by"
        ) from error
    here = processes()
    if len(states) != here.num_processes:
        warnings.warn(
            f"{path} was written by {len(states)} processes and is resumed by {here.num_processes}, so the numbers "
            "will differ from those of an uninterrupted run",
            stacklevel=2,
        )
    if threads != torch.get_num_threads():
        warnings.warn(
            f"{path} was written with {threads} threads and is resumed with {torch.get_num_threads()}, so the last "
            f"bits will differ from those of an uninterrupted run; set OMP_NUM_THREADS={threads} to have the same",
            stacklevel=2,
        )
    restore_random_state(states[here.process_index % len(states)])
    return position


def read_unit(path: Path) -> int:
    """Units done when the checkpoint was written.

    Raises:
        BadCheckpoint: If it is damaged, or no checkpoint.
    """
    try:
        return int(cast("Any", read_tensors(path))["unit"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadCheckpoint(str(error)) from error


def random_state() -> dict[str, State]:
    """States of all global random generators of this process, as tensors and plain values."""
    kind, keys, position, has_gauss, gauss = cast("tuple[str, Any, int, int, float]", np.random.get_state())
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": cast("State", random.getstate()),
        "numpy": [kind, keys.tolist(), position, has_gauss, gauss],
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Put all global random generators where ``random_state`` found them."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(tuple(state["numpy"]))
