"""Cells in a database: enqueued once, claimed by one worker, given back when it dies or stops."""

from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from openwork.comparison import Cell, Result, Searched
from openwork.comparison import study as module
from openwork.comparison.study import Study

CELLS = [Cell(method, {"lr": 0.1}, strength, seed, 3) for seed in (0, 1) for method in "ab" for strength in (1.0, 2.5)]
NAMES = ["a-1-s0", "a-2.5-s0", "b-1-s0", "b-2.5-s0", "a-1-s1", "a-2.5-s1", "b-1-s1", "b-2.5-s1"]


def result(cell: Cell) -> Result:
    return Result(cell, 0.5, 1.0, 0.6, 0.9, 0.3, None, 0.25, (10, 8), 7, (100, 80), (9, 6), 1.5, 2.0)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path, "tiny")


@pytest.fixture
def another(tmp_path: Path, study: Study) -> Study:
    """The same study as another worker sees it."""
    return Study(tmp_path, "tiny")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Study:
    """A study whose workers are given up after a moment."""
    from openwork.comparison import database

    monkeypatch.setattr(database, "HEARTBEAT", 1)
    monkeypatch.setattr(database, "GRACE", 1)
    return Study(tmp_path, "impatient")


def age(study: Study) -> None:
    """Let the last sign of life of all workers be long ago."""
    from datetime import timedelta

    from optuna.storages._rdb.models import TrialHeartbeatModel

    with study._database.scoped_session() as session:
        for beat in session.query(TrialHeartbeatModel).all():
            beat.heartbeat -= timedelta(hours=1)
        session.commit()


def test_names_tell_cells_apart() -> None:
    assert [cell.name for cell in CELLS] == NAMES
    assert Cell("mine.methods:f", {}, 1e-9, 0, 1).name == "mine.methods-f-1e-09-s0"
    assert Cell("a", {}, 1.0, 0, 1, trial=3).name == "a-search3"


def test_cells_are_enqueued_once(study: Study, another: Study) -> None:
    study.add(CELLS[:3])
    another.add(CELLS)
    study.add(CELLS)
    assert list(study.known().cells) == NAMES
    assert list(study.known().cells.values()) == CELLS
    assert study.known().waiting == {*NAMES}


def test_workers_claim_different_cells_in_order(study: Study, another: Study) -> None:
    study.add(CELLS)
    claims = [(study, another)[k % 2].claim("ab") for k in range(len(CELLS))]
    assert [claim and claim.cell for claim in claims] == CELLS
    assert study.claim("ab") is None
    assert another.known().running == {*NAMES}


def test_workers_leave_methods_that_they_do_not_know(study: Study) -> None:
    study.add(CELLS)
    claims = [study.claim(["b"]) for _ in range(5)]
    assert [claim and claim.cell.name for claim in claims] == [*(n for n in NAMES if n.startswith("b")), None]
    assert study.known().open(["b"]) and study.known().open(["a"])


def test_results_are_kept(study: Study, another: Study) -> None:
    study.add(CELLS)
    claim = study.claim("ab")
    assert claim is not None
    study.keep(claim, result(claim.cell))
    known = another.known()
    assert known.results == {NAMES[0]: result(CELLS[0])}
    assert known.finished(NAMES[0]) and not known.finished(NAMES[1])
    another.add(CELLS)
    claim = another.claim("ab")
    assert claim is not None and claim.cell == CELLS[1]


def test_times_come_later(study: Study) -> None:
    study.add(CELLS[:2])
    for _ in range(2):
        claim = study.claim("ab")
        assert claim is not None
        study.keep(claim, result(claim.cell))
    study.timed(NAMES[0], (2.0, 1.0, "here"))
    study.timed(NAMES[1], None)
    known = study.known()
    assert [r.latency_ms for r in known.results.values()] == [(2.0, 1.0), None]
    assert known.untimed == {NAMES[1]}


def test_trials_of_a_search_are_kept(study: Study) -> None:
    cell = replace(CELLS[0], trial=2)
    study.add([cell])
    claim = study.claim("ab")
    assert claim is not None
    found = Searched(cell, 0.5, 1.0, 0.1, 2.0)
    study.keep(claim, found)
    assert study.known().searched == {"a-search2": found}
    assert study.known().results == {}


def test_failures_are_kept_and_not_tried_again(study: Study, another: Study) -> None:
    study.add(CELLS[:1])
    claim = study.claim("ab")
    assert claim is not None
    study.fail(claim, "training diverged")
    assert {name: f.reason for name, f in another.known().failures.items()} == {NAMES[0]: "training diverged"}
    another.add(CELLS[:1])
    assert another.claim("ab") is None


def test_a_cell_that_is_given_back_waits(study: Study, another: Study) -> None:
    study.add(CELLS[:1])
    claim = study.claim("ab")
    assert claim is not None
    study.give_back(claim)
    assert another.known().waiting == {NAMES[0]}
    again = another.claim("ab")
    assert again is not None and again.cell == claim.cell
    assert study.claim("ab") is None


def test_the_cell_of_a_silent_worker_is_claimed_by_the_next(study: Study, another: Study) -> None:
    study.add(CELLS[:1])
    assert study.claim("ab") is not None
    assert another.claim("ab") is None
    age(study)
    claim = another.claim("ab")
    assert claim is not None and claim.cell == CELLS[0]
    another.keep(claim, result(claim.cell))
    assert study.known().results == {NAMES[0]: result(CELLS[0])}
    assert study.claim("ab") is None


def test_a_worker_that_comes_back_is_heard(study: Study, another: Study) -> None:
    study.add(CELLS[:1])
    first = study.claim("ab")
    age(study)
    second = another.claim("ab")
    assert first is not None and second is not None
    study.keep(first, result(first.cell))
    another.keep(second, replace(result(second.cell), loss=0.5))
    assert len(study.known().results) == 1
    assert study.claim("ab") is None


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_cell_that_was_given_up_is_not_computed_twice(study: Study, another: Study) -> None:
    study.add(CELLS[:1])
    first = study.claim("ab")
    assert first is not None
    age(study)
    optuna.storages.fail_stale_trials(another._study)
    study.keep(first, result(first.cell))
    # The copy that waits for another worker is dropped.
    assert another.claim("ab") is None
    states = [trial.state for trial in another._study.get_trials(deepcopy=False)]
    assert states == [TrialState.FAIL, TrialState.PRUNED, TrialState.COMPLETE]


def test_a_cell_that_kills_its_workers_fails(study: Study) -> None:
    study.add(CELLS[:2])
    for number in range(module.RETRIES + 1):
        claim = study.claim("ab")
        assert claim is not None
        if number == 0:
            other = study.claim("ab")
            assert other is not None and other.cell == CELLS[1]
            study.keep(other, result(other.cell))
        assert claim.cell == CELLS[0]
        age(study)
    assert study.claim("ab") is None
    known = study.known()
    assert known.failures[NAMES[0]].reason == "the process that trained it died 4 times"
    study.add(CELLS[:2])
    assert study.claim("ab") is None


def test_a_worker_that_lives_says_so(impatient: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT", 0.05)
    impatient.add(CELLS[:1])
    claim = impatient.claim("ab")
    assert claim is not None
    age(impatient)
    with impatient.working(claim):
        import time

        time.sleep(0.5)
    assert impatient.claim("ab") is None
    assert impatient.known().running == {NAMES[0]}


def test_results_come_back_from_a_database() -> None:
    one = replace(
        result(CELLS[0]),
        latency_ms=(2.0, 1.0),
        layers={"w": [3, 4]},
        widths={"w": [8, 6]},
        curves={"epoch": [1.0, None]},
        notes=("careful",),
    )
    assert Result.from_json(one.to_json()) == one
