"""Real processes on one study: two at once, one that is killed, one that is asked to stop."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_comparison import LOG, Largest, Plain, slow

from openwork.comparison import Result, compare

HERE = Path(__file__).parent
WORKER = """
import sys
from openwork.comparison import database, study, timing, work
from openwork.cli import main

database.HEARTBEAT, study.HEARTBEAT = 1, 1
database.GRACE, timing.SECONDS, work.PATIENCE = int(sys.argv[1]), 0.005, 0.1
sys.exit(main(sys.argv[2:]))
"""
METHODS = "tiny_comparison:plain,tiny_comparison:largest"
COMMAND = ("compare", "tiny_comparison:slow", "--methods", METHODS, "--strengths", "2", "--seeds", "1", "--out", "c")

pytestmark = pytest.mark.slow
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a worker in the test's folder, which gives others up after ``grace`` seconds; ended with the test."""
    root = str(HERE.parents[1])
    environment = {**os.environ, LOG: str(tmp_path / "log.txt"), "PYTHONPATH": os.pathsep.join([root, str(HERE)])}
    workers: list[subprocess.Popen[str]] = []

    def begin(grace: int = 60) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", WORKER, str(grace), *COMMAND]
        workers.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True))
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
    return timeless(compare(slow(), methods, strengths=2, seeds=1, out=out).results)


def timeless(results: Sequence[Result]) -> list[Result]:
    """Results without times, by name; nor with the lines of time in the records."""
    found = [
        replace(
            r, seconds=0, memory_mib=0, latency_ms=None, curves={k: v for k, v in r.curves.items() if k != "seconds"}
        )
        for r in results
    ]
    return sorted(found, key=lambda r: r.cell.name)


def found(folder: Path) -> list[Result]:
    file = json.loads((folder / "c" / "comparison.json").read_text(encoding="utf-8"))
    return [Result.from_json(result) for result in file["results"]]


def wait_for(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 600
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.05)


def ends(worker: subprocess.Popen[str], code: int) -> tuple[str, str]:
    out, err = worker.communicate(timeout=600)
    assert worker.returncode == code, err
    return out, err


def test_two_processes_share_the_work(start: Start, tmp_path: Path, alone: list[Result]) -> None:
    workers = [start(), start()]
    printed = [ends(worker, 0)[0] for worker in workers]
    assert timeless(found(tmp_path)) == alone
    assert all(result.latency_ms is not None for result in found(tmp_path))
    # Each process builds one run of each method to see whether it fits, and each cell is trained once beside that.
    lines = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    tries = ["1 0", "4 0"]
    for line in tries * (2 if len(lines) > 5 else 1):
        lines.remove(line)
    assert sorted(lines) == ["1 0", "2 0", "4 0"]
    assert printed[0].splitlines()[1].split()[:3] == ["tiny_comparison:plain", "0", "1"]


def checkpointed(folder: Path) -> bool:
    return any(folder.glob("c/runs/*/checkpoint.pt"))


def test_a_killed_process_is_replaced(start: Start, tmp_path: Path, alone: list[Result]) -> None:
    worker = start()
    wait_for(lambda: checkpointed(tmp_path))
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    ends(start(grace=3), 0)
    assert timeless(found(tmp_path)) == alone


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_process_that_is_asked_to_stop_leaves_its_cell(
    start: Start, tmp_path: Path, alone: list[Result], number: signal.Signals
) -> None:
    worker = start()
    wait_for(lambda: checkpointed(tmp_path))
    worker.send_signal(number)
    _, said = ends(worker, 128 + number)
    assert said.splitlines()[-1] == (
        f"openwork: stopped by {number.name}; everything is saved in c; go on with: openwork {' '.join(COMMAND)}"
    )
    from openwork.comparison.study import Study

    known = Study(tmp_path / "c", "comparison").known()
    assert not known.running and not known.failures
    assert known.waiting == {*known.cells} - {*known.results}
    ends(start(), 0)
    assert timeless(found(tmp_path)) == alone
