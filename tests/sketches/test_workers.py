"""Starting, losing and resuming workers."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch

from openwork.files import read_tensors
from openwork.sketches import Workers, start_workers
from tests.sketches import failing
from tests.sketches.conftest import read
from tests.sketches.failing import Fate
from tests.sketches.launch import forked, torchrun
from tests.sketches.network import across_namespaces, namespaces_work
from tests.sketches.processes import GATHERED
from tests.sketches.simulation import simulated

LAST = 4  # the step of which a worker does not see the end
WAY_OUT = "; start it again with as many workers from its last checkpoint"
DIED = "another worker died or did not answer in time (all_gather: "
ENDED = "the launcher has ended the run, as it does when a worker dies (all_gather: SIGTERM)"


def test_without_a_launcher_there_are_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ValueError, match=r"started by no launcher .* start it with `torchrun"):
        start_workers()
    with pytest.raises(ValueError, match="timeout_s must be > 0, got 0"):
        start_workers(timeout_s=0)
    with pytest.raises(ValueError, match=r"there is no process group; call start_workers\(\)"):
        Workers()


def sentences(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("worker ")]


def check_that_it_resumes(folder: Path, workers: int) -> None:
    """As if nobody had been lost."""
    assert not list(folder.glob("[0-9].pt"))
    checkpoint = read_tensors(folder / "checkpoint.pt")
    assert checkpoint["workers"] == {"workers": workers, "seed": 3, "step": LAST}
    resumed = forked(workers, folder, failing.main, folder)
    assert resumed.codes == [0] * workers, resumed.said
    expected = simulated(GATHERED["perm-k model"], workers)
    for rank in range(workers):
        assert torch.equal(torch.load(folder / f"{rank}.pt", weights_only=True), expected)


@pytest.mark.slow
def test_under_torchrun_a_killed_worker_ends_the_run_with_a_sentence_and_a_checkpoint(tmp_path: Path) -> None:
    killed = torchrun(2, "failing.py", str(tmp_path), "killed", "0", str(LAST))
    assert killed.returncode != 0
    (said,) = sentences(killed.stderr)
    # Whether it sees first that the other is gone, or the launcher does.
    assert said.startswith((f"worker 1: {DIED}", f"worker 1: {ENDED}"))
    assert said.endswith(WAY_OUT)

    for workers, seed, words in (
        (1, 3, "written with 2 workers and this run has 1 workers"),
        (2, 4, "written with seed 3 and this run has seed 4"),
    ):
        refused = forked(workers, tmp_path, partial(failing.main, seed=seed), tmp_path)
        assert refused.codes == [1] * workers
        for rank, text in enumerate(refused.said):
            (said,) = sentences(text)
            assert said.startswith(f"worker {rank}: the checkpoint was {words}, so that its draws would be others;")

    check_that_it_resumes(tmp_path, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("fate", "workers"), [("killed", 4), ("terminated", 2)])
def test_without_a_launcher_that_ends_them_all_find_out(tmp_path: Path, fate: Fate, workers: int) -> None:
    lost = 1
    ended = forked(workers, tmp_path, failing.main, tmp_path, fate, lost, LAST)
    for rank, (code, text) in enumerate(zip(ended.codes, ended.said, strict=True)):
        if rank == lost and fate == "killed":
            assert (code, text) == (-9, "")
            continue
        (said,) = sentences(text)
        assert code == 1
        assert said.startswith(f"worker {rank}: {ENDED if rank == lost else DIED}")
        assert said.endswith(WAY_OUT)
    check_that_it_resumes(tmp_path, workers)


@pytest.mark.slow
def test_a_silent_worker_is_given_up_after_the_timeout(tmp_path: Path) -> None:
    timeout_s = 3.0
    ended = forked(2, tmp_path, partial(failing.main, timeout_s=timeout_s), tmp_path, "silent", 1, LAST)
    assert ended.codes == [1, 1]
    (said,) = sentences(ended.said[0])
    assert said.startswith(f"worker 0: {DIED}")
    # It has not waited for the other to come back.
    assert timeout_s - 1 < float((tmp_path / "waited0.txt").read_text()) < 2 * timeout_s
    check_that_it_resumes(tmp_path, 2)


@pytest.mark.slow
@pytest.mark.skipif(not namespaces_work(), reason="this machine allows no network namespaces with a bridge")
def test_processes_in_network_namespaces_of_their_own(tmp_path: Path) -> None:
    name = "gathered perm-k model"
    done = across_namespaces(2, "processes.py", str(tmp_path), name)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(2):
        results = read(tmp_path / f"{rank}.pt")
        assert torch.equal(results[name].weights, simulated(GATHERED["perm-k model"], 2))
        sent = int((tmp_path / f"wire{rank}.txt").read_text())
        assert results[name].bytes < sent < math.inf
