"""Many cells on one optuna study: several processes or machines work on it, and nothing is computed twice."""

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import optuna
from optuna.exceptions import OptunaError
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, TrialState, create_trial

from openwork.comparison.database import HEARTBEAT, RETRIES, connect, lock_of, quiet, repeated
from openwork.comparison.result import Cell, Failure, Result, Searched
from openwork.files import Json

# Names of attributes in the database.
NAME, CELL, RESULT, SEARCHED, FAILURE, LATENCY = "name", "cell", "result", "searched", "failure", "latency:"
OPEN = (TrialState.WAITING, TrialState.RUNNING)
FILE = "study.db"


@dataclass(frozen=True)
class Known:
    """What a study holds, by names of cells.

    Args:
        results: Of finished networks.
        searched: Of the trials of searches.
        failures: Of cells that cannot be trained.
        open: Cells that wait for a worker or have one.
        running: Those that have one.
    """

    results: dict[str, Result] = field(default_factory=dict)
    searched: dict[str, Searched] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    running: set[str] = field(default_factory=set)

    @property
    def names(self) -> set[str]:
        """Of all cells."""
        return {*self.results, *self.searched, *self.failures, *self.open}


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
        url = storage or f"sqlite:///{(folder / FILE).resolve()}"
        self.lock = lock_of(url, lambda: connect(url), name)
        with self.lock, quiet():
            self._database = connect(url)
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
        known, died = Known(), dict[str, list[FrozenTrial]]()
        latencies = {
            name.removeprefix(LATENCY): cast("list[float]", value)
            for name, value in self.facts().items()
            if name.startswith(LATENCY)
        }
        for trial in self._study.get_trials(deepcopy=False):
            about = trial.user_attrs
            name = about.get(NAME)
            if name is None:
                continue
            if trial.state in OPEN:
                known.open.add(name)
                known.running.update([name] if trial.state is TrialState.RUNNING else [])
            elif trial.state is TrialState.COMPLETE and RESULT in about:
                result = Result.from_json(about[RESULT])
                known.results[name] = result.timed(*latencies[name]) if name in latencies else result
            elif trial.state is TrialState.COMPLETE and SEARCHED in about:
                known.searched[name] = Searched.from_json(about[SEARCHED])
            elif trial.state is TrialState.FAIL and FAILURE in about:
                known.failures[name] = Failure(Cell.from_json(about[CELL]), about[FAILURE])
            elif trial.state is TrialState.FAIL:
                died.setdefault(name, []).append(trial)
        for name, trials in died.items():
            if len(trials) > RETRIES and name not in known.names:
                cell = Cell.from_json(trials[0].user_attrs[CELL])
                known.failures[name] = Failure(cell, f"the process that trained it died {len(trials)} times")
        return known

    def add(self, cells: Iterable[Cell]) -> None:
        """Enqueue the cells that are not there yet, in order.

        Args:
            cells: Any.
        """
        there = self.known().names
        for cell in cells:
            if cell.name not in there:
                there.add(cell.name)
                self._study.enqueue_trial({}, user_attrs={CELL: asdict(cell), NAME: cell.name})

    def claim(self) -> Claim | None:
        """Take the next cell that waits, those of workers that fell silent included; None if there is none."""
        with quiet():
            fail_stale_trials(self._study)
        known = self.known()
        while TrialState.WAITING in (trial.state for trial in self._study.get_trials(deepcopy=False)):
            trial = self._study.ask()
            name = trial.user_attrs[NAME]
            if name in known.running or name in known.results or name in known.searched:
                # Its worker had been given up and came back.
                self._study.tell(trial.number, state=TrialState.PRUNED)
                continue
            claim = Claim(Cell.from_json(trial.user_attrs[CELL]), trial.number, trial._trial_id)
            self._database.record_heartbeat(claim.key)
            return claim
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
        """
        key = RESULT if isinstance(record, Result) else SEARCHED
        value = record.valid_loss if record.valid_loss is not None else 0.0
        try:
            self._database.set_trial_user_attr(claim.key, key, record.to_json())
            self._study.tell(claim.trial, value)
        except (OptunaError, ValueError):
            if self._database.get_trial(claim.key).state in OPEN:
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

    def timed(self, name: str, before: float, after: float) -> None:
        """Keep the times of a finished network.

        Args:
            name: Of the cell.
            before: Milliseconds of the network before it was shrunk.
            after: Milliseconds after.
        """
        # What a trial holds cannot be changed once it is finished.
        self.note(f"{LATENCY}{name}", [before, after])

    def agree(self, name: str, value: Mapping[str, Json]) -> dict[str, tuple[Json, Json]]:
        """Settle a fact if it is open.

        Args:
            name: Of the fact.
            value: Plain values.

        Returns:
            What differs from what was settled before: by key, the value there and the one given.
        """
        there = cast("Mapping[str, Json] | None", self.facts().get(name))
        if there is None:
            self.note(name, value)
            return {}
        given = {**dict.fromkeys(there), **value}
        return {key: (there.get(key), new) for key, new in given.items() if there.get(key) != new}


__all__ = ["FILE", "Claim", "Known", "Study"]
