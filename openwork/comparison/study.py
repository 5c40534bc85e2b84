"""Many cells on one optuna study: several processes or machines work on it, and nothing is computed twice."""

from collections.abc import Collection, Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import optuna
from optuna.exceptions import OptunaError
from optuna.storages import fail_stale_trials
from optuna.trial import TrialState, create_trial

from openwork.comparison.database import HEARTBEAT, RETRIES, opened, quiet, repeated
from openwork.comparison.result import Cell, Failure, Result, Searched
from openwork.files import Json

# Names of attributes in the database.
NAME, CELL, RESULT, SEARCHED, FAILURE, LATENCY = "name", "cell", "result", "searched", "failure", "latency:"
FILE = "study.db"


@dataclass(frozen=True)
class Known:
    """What a study holds, by names of cells.

    Args:
        cells: All of them, in the order of the study.
        results: Of finished networks.
        searched: Of the trials of searches.
        failures: Of cells that cannot be trained.
        waiting: Names of cells that wait for a worker.
        running: Names of those that have one.
        untimed: Finished networks whose time cannot be measured.
    """

    cells: dict[str, Cell] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    searched: dict[str, Searched] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    running: set[str] = field(default_factory=set)
    untimed: set[str] = field(default_factory=set)

    def finished(self, name: str) -> bool:
        """Whether there is nothing left to do for a cell.

        Args:
            name: Of the cell.
        """
        return name in self.results or name in self.searched or name in self.failures

    def open(self, methods: Collection[str]) -> list[Cell]:
        """Cells that wait for a worker or have one.

        Args:
            methods: Of these methods.
        """
        cells = [self.cells[name] for name in (*self.waiting, *self.running)]
        return [cell for cell in cells if cell.method in methods]


@dataclass(frozen=True)
class Claim:
    """A cell that this worker trains.

    Args:
        cell: What to train.
        trial: Number of the trial in the study.
        key: Of the trial in the database.
    """

    cell: Cell
    trial: int
    key: int


class Study:
    """The cells of a comparison and their results, in a database.

    What changes more than one entry is to be done while ``lock`` is held: enqueueing, claiming, agreeing.

    Args:
        folder: Of the comparison; exists.
        name: Of the study.
        storage: URL of the database; None for an SQLite file in the folder.

    Raises:
        ValueError: If the database cannot be used.
    """

    def __init__(self, folder: Path, name: str, storage: str | None = None) -> None:
        if storage is None:
            file = f"sqlite:///{(folder / FILE).resolve()}"
            found = opened(file, name, "free some space there, or choose another folder with out=FOLDER")
        else:
            found = opened(storage, name)
        self._database, self.lock = found
        with self.lock, quiet():
            self._study = optuna.create_study(storage=self._database, study_name=name, load_if_exists=True)

    def facts(self) -> dict[str, Json]:
        """What was agreed upon or measured for the study as a whole."""
        return dict(self._study.user_attrs)

    def note(self, name: str, value: Json) -> None:
        """Add a fact, or change it.

        Args:
            name: Of the fact.
            value: Plain values.
        """
        self._study.set_user_attr(name, value)

    def known(self) -> Known:
        """What there is."""
        known, died = Known(), dict[str, int]()
        times = {name: value for name, value in self.facts().items() if name.startswith(LATENCY)}
        for trial in self._study.get_trials(deepcopy=False):
            about = trial.user_attrs
            if NAME not in about:
                continue
            name = about[NAME]
            cell = known.cells.setdefault(name, Cell.from_json(about[CELL]))
            if trial.state not in (TrialState.FAIL, TrialState.PRUNED):
                known.failures.pop(name, None)  # it is tried again
            if trial.state is TrialState.WAITING:
                known.waiting.add(name)
            elif trial.state is TrialState.RUNNING:
                known.running.add(name)
            elif trial.state is TrialState.COMPLETE and RESULT in about:
                measured = cast("tuple[float, float, str] | None", times.get(LATENCY + name))
                result = Result.from_json(about[RESULT])
                known.results[name] = result.timed(*measured) if measured else result
                known.untimed.update([name] if measured is not None and not measured else [])
            elif trial.state is TrialState.COMPLETE:
                known.searched[name] = Searched.from_json(about[SEARCHED])
            elif trial.state is TrialState.FAIL and FAILURE in about:
                known.failures[name] = Failure(cell, about[FAILURE])
            elif trial.state is TrialState.FAIL:
                died[name] = died.get(name, 0) + 1
        for name, count in died.items():
            if count > RETRIES and not (known.finished(name) or name in known.waiting or name in known.running):
                known.failures[name] = Failure(known.cells[name], f"the process that trained it died {count} times")
        return known

    def add(self, cells: Iterable[Cell]) -> None:
        """Enqueue the cells that are not there yet, in order.

        Args:
            cells: Any.
        """
        known = self.known()
        there = {name for name in known.cells if known.finished(name)} | known.waiting | known.running
        for cell in cells:
            if cell.name not in there:
                there.add(cell.name)
                self._enqueue(cell)

    def retry(self) -> None:
        """Enqueue what failed once more."""
        for failure in self.known().failures.values():
            self._enqueue(failure.cell)

    def _enqueue(self, cell: Cell) -> None:
        self._study.enqueue_trial({}, user_attrs={CELL: asdict(cell), NAME: cell.name})

    def claim(self, methods: Collection[str]) -> Claim | None:
        """Take the next cell that waits, those of workers that fell silent included; None if there is none.

        Args:
            methods: Names of those that this worker knows.
        """
        with quiet():
            fail_stale_trials(self._study)
        known = self.known()
        for trial in self._study.get_trials(deepcopy=False, states=[TrialState.WAITING]):
            cell, key = Cell.from_json(trial.user_attrs[CELL]), trial._trial_id
            if cell.method not in methods or not self._database.set_trial_state_values(key, TrialState.RUNNING):
                continue
            if cell.name in known.running or known.finished(cell.name):
                # Its worker had been given up and came back.
                self._study.tell(trial.number, state=TrialState.PRUNED)
                continue
            self._database.record_heartbeat(key)
            return Claim(cell, trial.number, key)
        return None

    @contextmanager
    def working(self, claim: Claim) -> Generator[None]:
        """Tell the others that this worker lives, while the ``with`` lasts.

        Args:
            claim: What it trains.
        """
        with repeated(lambda: self._database.record_heartbeat(claim.key), HEARTBEAT):
            yield

    def keep(self, claim: Claim, record: Result | Searched) -> None:
        """Keep what a claimed cell gave.

        Args:
            claim: The cell.
            record: Its numbers.

        Raises:
            OptunaError: If the database does not answer.
            ValueError: If the cell is not claimed.
        """
        key = RESULT if isinstance(record, Result) else SEARCHED
        value = record.valid_loss if record.valid_loss is not None else 0.0
        try:
            self._database.set_trial_user_attr(claim.key, key, record.to_json())
            self._study.tell(claim.trial, value)
        except (OptunaError, ValueError):
            if not self._database.get_trial(claim.key).state.is_finished():
                raise
            # Given up after a silence, but here it is.
            about = {CELL: asdict(claim.cell), NAME: claim.cell.name, key: record.to_json()}
            self._study.add_trial(create_trial(state=TrialState.COMPLETE, value=value, user_attrs=about))

    def fail(self, claim: Claim, reason: str) -> None:
        """Keep why a claimed cell cannot be trained.

        Args:
            claim: The cell.
            reason: One sentence.
        """
        with suppress(OptunaError, ValueError):  # given up after a silence, so that another worker finds the same
            self._database.set_trial_user_attr(claim.key, FAILURE, reason)
            self._study.tell(claim.trial, state=TrialState.FAIL)

    def give_back(self, claim: Claim) -> None:
        """Let another worker have a claimed cell.

        Args:
            claim: The cell.
        """
        with suppress(OptunaError):
            self._database.set_trial_state_values(claim.key, TrialState.WAITING)

    def timed(self, name: str, times: tuple[float, float, str] | None) -> None:
        """Keep the times of a finished network.

        Args:
            name: Of the cell.
            times: Milliseconds before and after it was shrunk, and the machine; None if they cannot be measured.
        """
        # What a trial holds cannot be changed once it is finished.
        self.note(f"{LATENCY}{name}", list(times or ()))


__all__ = ["FILE", "Claim", "Known", "Study"]
