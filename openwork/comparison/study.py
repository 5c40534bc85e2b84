"""Many cells on one optuna study: several processes or machines work on it, and nothing is computed twice."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

import optuna
from filelock import FileLock
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import TrialState

from openwork.comparison.result import Cell, Result
from openwork.files import Json

# A worker tells this often that it lives, and is given up after so long a silence. In s.
HEARTBEAT, GRACE = 10, 60
# How often a cell is tried again whose worker died.
RETRIES = 3
CELL, RESULT = "cell", "result"


class Study:
    """The cells of a comparison and their results, in a database.

    Args:
        folder: Of the comparison; exists.
        name: Of the study.
        storage: URL of the database; None for an SQLite file in the folder.
    """

    def __init__(self, folder: Path, name: str, storage: str | None = None) -> None:
        logging.getLogger("optuna").setLevel(logging.WARNING)
        self._lock = FileLock(folder / "study.lock")
        url = storage or f"sqlite:///{(folder / 'study.db').resolve()}"
        with self._lock:
            database = RDBStorage(
                url,
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
            )
            self._study = optuna.create_study(storage=database, study_name=name, load_if_exists=True)

    def enqueue(self, cells: Sequence[Cell]) -> None:
        """Add the cells that are not there yet, in order."""
        with self._lock:
            there = {name for trial in self._study.get_trials(deepcopy=False) if (name := trial.user_attrs.get("name"))}
            for cell in cells:
                if cell.name not in there:
                    about = {CELL: asdict(cell), "name": cell.name}
                    self._study.enqueue_trial({}, user_attrs=about)

    def work(self, train: Callable[[Cell], Result]) -> None:
        """Train cells until none is left, those of workers that died included.

        Args:
            train: Trains one.
        """

        def objective(trial: optuna.Trial) -> float:
            about = trial.user_attrs.get(CELL)
            if about is None:  # another worker took the last one in between
                raise optuna.TrialPruned
            result = train(Cell.from_json(about))
            trial.set_user_attr(RESULT, result.to_json())
            return result.loss

        while True:
            fail_stale_trials(self._study)
            states = [trial.state for trial in self._study.get_trials(deepcopy=False)]
            if TrialState.WAITING in states:
                self._study.optimize(objective, n_trials=1)
            elif TrialState.RUNNING in states:
                time.sleep(1.0)
            else:
                return

    def results(self) -> list[Result]:
        """Of all cells that are finished."""
        found = self._study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        return [Result.from_json(cast("dict[str, Json]", trial.user_attrs[RESULT])) for trial in found]


__all__ = ["Study"]
