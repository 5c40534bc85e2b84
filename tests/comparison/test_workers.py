"""Real processes on one study: two at once, one that is killed, one that is asked to stop."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_comparison import LOG, Largest, Plain, held

from openwork.cli import main
from openwork.comparison import Result, compare, database, study, timing

HERE = Path(__file__).parent
WORKER = """
import sys
from openwork.cli import main
from openwork.comparison import database, study, timing

database.HEARTBEAT, study.HEARTBEAT, timing.SECONDS = 1, 1, 0.005
sys.exit(main(sys.argv[1:]))
"""
METHODS = "tiny_comparison:plain,tiny_comparison:largest"
COMMAND = ("compare", "tiny_comparison:held", "--methods", METHODS, "--strengths", "2", "--seeds", "1", "--out", "c")

pytestmark = pytest.mark.slow
Start = Callable[[], subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a worker in the test's folder, which is held in the middle of a training; ended with the test."""
    (tmp_path / "hold").touch()
    monkeypatch.setenv(LOG, str(tmp_path / "log.txt"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE.parents[1]), str(HERE)]))
    workers: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WORKER, *COMMAND]
        workers.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.kill()
        worker.communicate()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    """What one process finds that nobody disturbs."""
    out = tmp_path_factory.mktemp("alone") / "c"
    methods = {"tiny_comparison:plain": Plain(), "tiny_comparison:largest": Largest()}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(timing, "SECONDS", 0.005)
        return timeless(compare(held(), methods, strengths=2, seeds=1, out=out).results)


def timeless(results: Sequence[Result]) -> list[Result]:
    """Results without times, by name; nor with the lines of time in the records."""
    found = [
        replace(
            r, seconds=0, memory_mib=0, latency_ms=None, curves={k: v for k, v in r.curves.items() if k != "seconds"}
        )
        for r in results
    ]
    return sorted(found, key=lambda r: r.cell.name)


def found() -> list[Result]:
    file = json.loads(Path("c", "comparison.json").read_text(encoding="utf-8"))
    return [Result.from_json(result) for result in file["results"]]


def wait_for_trainings(count: int) -> None:
    """Until so many are in the middle."""
    end = time.monotonic() + 600
    while len([*Path("c").glob("runs/*/checkpoint.pt")]) < count:
        assert time.monotonic() < end
        time.sleep(0.02)


def cells_trained() -> list[str]:
    """Strengths of the trainings that were begun, but for two runs that are built to see whether the methods fit."""
    lines = Path("log.txt").read_text(encoding="utf-8").splitlines()
    return [line.partition(" ")[0] for line in lines[2:]]


def test_two_processes_share_the_work(start: Start, alone: list[Result], capsys: pytest.CaptureFixture[str]) -> None:
    def let_go() -> None:
        wait_for_trainings(2)
        Path("hold").unlink()

    worker = start()
    wait_for_trainings(1)
    watcher = threading.Thread(target=let_go)
    watcher.start()
    assert main(COMMAND) == 0
    watcher.join()
    printed, said = worker.communicate(timeout=600)
    assert worker.returncode == 0, said
    assert timeless(found()) == alone
    assert all(result.latency_ms is not None for result in found())
    assert sorted(cells_trained()) == ["1", "2", "4"]
    table = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert table[1] == ["tiny_comparison:plain", "0", "1"]
    assert table == [line.split()[:3] for line in printed.splitlines()]


def test_a_killed_process_is_replaced(start: Start, monkeypatch: pytest.MonkeyPatch, alone: list[Result]) -> None:
    worker = start()
    wait_for_trainings(1)
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    Path("hold").unlink()
    assert json.loads(Path("c", "comparison.json").read_text(encoding="utf-8"))["finished"] is False
    monkeypatch.setattr(database, "HEARTBEAT", 1)
    monkeypatch.setattr(study, "HEARTBEAT", 1)
    monkeypatch.setattr(database, "GRACE", 2)
    assert main(COMMAND) == 0
    assert timeless(found()) == alone
    assert cells_trained() == ["1", "2", "4", "1"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_process_that_is_asked_to_stop_leaves_its_cell(
    start: Start, alone: list[Result], number: signal.Signals
) -> None:
    worker = start()
    wait_for_trainings(1)
    worker.send_signal(number)
    Path("hold").unlink()
    _, said = worker.communicate(timeout=600)
    assert worker.returncode == 128 + number, said
    assert said.splitlines()[-1] == (
        f"openwork: stopped by {number.name}; everything is saved in c; go on with: openwork {' '.join(COMMAND)}"
    )
    known = study.Study(Path("c"), "comparison").known()
    assert not known.running and not known.failures
    assert known.waiting == {*known.cells} - {*known.results}
    assert main(COMMAND) == 0
    assert timeless(found()) == alone
