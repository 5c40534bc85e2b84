"""Starting, losing and resuming workers."""

import math
from pathlib import Path

import pytest
import torch

from openwork.sketches import Workers, start_workers
from tests.sketches.failing import TIMEOUT_S
from tests.sketches.launch import torchrun
from tests.sketches.network import across_namespaces, namespaces_work
from tests.sketches.processes import GATHERED, STEPS
from tests.sketches.simulation import simulated


def test_without_a_launcher_there_are_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ValueError, match="started by no launcher .* start it with `torchrun"):
        start_workers()
    with pytest.raises(ValueError, match="timeout_s must be > 0, got 0"):
        start_workers(timeout_s=0)
    with pytest.raises(ValueError, match=r"there is no process group; call start_workers\(\)"):
        Workers()


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_with_a_sentence_and_a_checkpoint_that_resumes(tmp_path: Path) -> None:
    killed = torchrun(2, "failing.py", str(tmp_path), str(STEPS), "killed:0:7")
    assert killed.returncode != 0
    said = [line for line in killed.stderr.splitlines() if line.startswith("worker ")]
    assert len(said) == 1
    assert said[0].startswith("worker 1: another worker died or did not answer in time (all_gather: ")
    assert said[0].endswith("; start it again with as many workers from its last checkpoint")

    other = torchrun(1, "failing.py", str(tmp_path), str(STEPS), "none:0:0")
    assert "worker 0: the checkpoint was written with 2 workers and this run has 1 workers" in other.stderr
    assert not (tmp_path / "0.pt").exists()

    resumed = torchrun(2, "failing.py", str(tmp_path), str(STEPS), "none:0:0")
    assert resumed.returncode == 0, resumed.stderr
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.equal(found, simulated(GATHERED["perm-k model"], 2))


@pytest.mark.slow
def test_a_silent_worker_is_given_up_after_the_timeout(tmp_path: Path) -> None:
    done = torchrun(2, "failing.py", str(tmp_path), str(STEPS), "silent:1:7")
    assert done.returncode != 0
    waited = float((tmp_path / "ended0.txt").read_text()) - float((tmp_path / "silent.txt").read_text())
    assert TIMEOUT_S - 1 < waited < 2 * TIMEOUT_S
    assert "worker 0: another worker died or did not answer in time" in done.stderr
    assert (tmp_path / "checkpoint.pt").exists()


@pytest.mark.slow
@pytest.mark.skipif(not namespaces_work(), reason="this machine allows no network namespaces with a bridge")
def test_processes_in_network_namespaces_of_their_own(tmp_path: Path) -> None:
    name = "gathered perm-k model"
    done = across_namespaces(2, "processes.py", str(tmp_path), name)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(2):
        results = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.equal(results[name]["weights"], simulated(GATHERED["perm-k model"], 2))
        sent = int((tmp_path / f"wire{rank}.txt").read_text())
        assert results[name]["bytes"] < sent < math.inf
