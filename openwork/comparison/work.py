"""Working on a study: cells one after the other, alone or beside other processes and machines, then their times."""

import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from openwork.comparison.plan import Plan, reason
from openwork.comparison.search import with_settings
from openwork.comparison.study import Claim, Study
from openwork.comparison.timing import time_next
from openwork.comparison.trial import search_cell, train_cell
from openwork.training import CHECKPOINT, Stopped, stop_requests

# How often a worker with nothing to do looks whether another one has left something, in s.
PATIENCE = 0.5


def work(plan: Plan, study: Study, folder: Path, kept: Callable[[], object], said: Callable[[str], object]) -> None:
    """Train all cells that nobody has trained, and measure the times of the networks.

    Args:
        plan: What is to be compared.
        study: Where the cells and results are.
        folder: Of the comparison.
        kept: Called whenever there is something new.
        said: Told what is being done.

    Raises:
        Stopped: If a signal asked to stop; the cell that was being trained waits for the next worker.
        OSError: If a file cannot be written; as after a signal.
    """
    runs = folder / "runs"
    with stop_requests() as stop:
        while True:
            if stop.number is not None:
                raise Stopped(stop.number, f"everything is saved in {folder}")
            said("looking for work")
            with study.lock:
                study.add(plan.wanted(study))
                claim = study.claim(plan.methods) if stop.number is None else None
            if stop.number is not None:
                continue
            if claim is not None:
                said(f"{claim.cell.name}, {_progress(study)}")
                try:
                    _alone(plan, study, claim, runs)
                except Stopped as stopped:
                    raise Stopped(stopped.number, f"everything is saved in {folder}") from None
                except Timeout:
                    said(f"{claim.cell.name} is still being trained by a process that had fallen silent")
                    study.give_back(claim)
                    time.sleep(PATIENCE)
                    continue
                kept()
            elif study.known().running:
                said("waiting for the other workers")
                time.sleep(PATIENCE)
            elif name := time_next(study, plan.task, runs):
                said(f"measured the time of {name}")
                kept()
            elif not study.known().open(plan.methods):
                return


def _progress(study: Study) -> str:
    known = study.known()
    return f"{sum(map(known.finished, known.cells))} of {len(known.cells)} trained"


def _alone(plan: Plan, study: Study, claim: Claim, runs: Path) -> None:
    """Train a claimed cell as the only process in its folder.

    A worker that was given up may live on, after a machine was asleep, say.

    Raises:
        Timeout: If another process is at it.
    """
    runs.mkdir(exist_ok=True)
    file = runs / f".{claim.cell.name}.lock"
    with FileLock(file, timeout=0):
        _train(plan, study, claim, runs / claim.cell.name)
    file.unlink(missing_ok=True)


def _train(plan: Plan, study: Study, claim: Claim, folder: Path) -> None:
    """Train a claimed cell, and keep what it gave.

    Raises:
        BaseException: If training cannot go on here through no fault of the cell's, which is given back then.
    """
    cell = claim.cell
    train = train_cell if cell.trial is None else search_cell
    with study.working(claim):
        try:
            record = train(plan.task, with_settings(plan.methods[cell.method], cell.settings), cell, folder)
        except BaseException as error:
            if not isinstance(error, Exception) or isinstance(error, Stopped | OSError | MemoryError):
                study.give_back(claim)
                raise
            _note_crash(folder)
            study.fail(claim, f"{_kind(error)}{reason(error)[:300]}")
        else:
            study.keep(claim, record)
    (folder / CHECKPOINT).unlink(missing_ok=True)  # many of these would fill the disk


def _kind(error: Exception) -> str:
    """What goes before the message of an error that was not written for users."""
    return "" if isinstance(error, FloatingPointError | ValueError) else f"{type(error).__name__}: "


def _note_crash(folder: Path) -> None:
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "crash.txt").write_text(traceback.format_exc(), encoding="utf-8")


__all__ = ["work"]
