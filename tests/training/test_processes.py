"""Several processes on one run, and runs that lose one."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from openwork.cli import main
from openwork.files import read_json, read_records, read_tensors
from openwork.training import timeout_s
from tests.sketches.launch import completed, forked
from tests.sketches.network import across_namespaces, namespaces_work
from tests.training import losing
from tests.training.losing import BATCH, EPOCHS, OPTIMIZERS, Fate

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m", "openwork"]
ACCELERATE = ["accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--num_processes", "2"]
ACCELERATE += ["--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no"]


def train(out: Path, batch_size: int) -> list[str]:
    options = {"--epochs": 4, "--lam": 0.001, "--batch_size": batch_size, "--out": out}
    return ["train", "ramda_digits", *(str(word) for option in options.items() for word in option)]


@pytest.mark.filterwarnings("ignore::UserWarning")  # four epochs are too few for averaging
def test_two_processes_train_as_one_with_twice_the_batch(tmp_path: Path) -> None:
    command = [*LAUNCH, *train(tmp_path / "two", batch_size=32)]
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, env=env).stdout
    assert main(train(tmp_path / "one", batch_size=64)) == 0

    assert printed.count("test accuracy") == 1
    two, one = (read_records(tmp_path / run / "metrics.jsonl") for run in ("two", "one"))
    assert len(two) == len(one) == 4
    losses = [[float(record["train_loss"]) for record in run] for run in (two, one)]  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(*map(torch.tensor, losses), rtol=0.02, atol=0)
    assert read_json(tmp_path / "two" / "final.json")["alive"] == read_json(tmp_path / "one" / "final.json")["alive"]
    # Stages count a step once, however many processes take it.
    run = read_tensors(tmp_path / "two" / "checkpoint.pt")["run"]
    assert isinstance(run, dict)
    assert run["stages"]["position"] == run["unit"] == two[-1]["unit"]


def assert_trained(run: Path) -> None:
    """To the end, as one process does."""
    trained = cast("dict[str, Any]", read_tensors(run / "checkpoint.pt"))
    for name, expected in losing.weights(BATCH, "rmda").items():
        torch.testing.assert_close(trained["run"]["model"][name], expected, rtol=0, atol=1e-9)
    assert [record["epoch"] for record in read_records(run / "metrics.jsonl")] == list(range(1, EPOCHS + 1))


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_processes_train_as_one_to_rounding_and_draw_their_own_random_numbers(tmp_path: Path, size: int) -> None:
    ended = forked(size, tmp_path, losing.equal, tmp_path, size)
    assert ended.codes == [0] * size, ended.said
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(size)]
    for optimizer in OPTIMIZERS:
        for name, expected in losing.weights(BATCH, optimizer).items():
            for one in found:
                torch.testing.assert_close(one["weights"][optimizer][name], expected, rtol=0, atol=1e-9)
    assert len({tuple(one["random"].tolist()) for one in found}) == size


def sentences(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("openwork: ") and ": note: " not in line]


def sentence_of_loss(run: Path, patience_s: float) -> str:
    return (
        f"openwork: another process of the run is gone, or has not answered for {patience_s:g} s; the traceback is in "
        f"{run}/crash.txt, and the last checkpoint goes on with: openwork train --resume {run}"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("fate", "lost", "patience_s"), [("killed", 0, 60.0), ("silent", 1, 10.0)])
def test_a_lost_process_ends_the_run_with_one_sentence(
    tmp_path: Path, fate: Fate, lost: int, patience_s: float
) -> None:
    begin = time.monotonic()
    ended = forked(2, tmp_path, losing.main, tmp_path, lost, fate, patience_s)
    assert time.monotonic() - begin < 200
    assert ended.codes[lost] == (-9 if fate == "killed" else 1)
    assert ended.codes[1 - lost] == 1
    said = [line for each in ended.said for line in sentences(each)]
    assert said == [sentence_of_loss(tmp_path / "run", patience_s)]
    checkpoint = cast("dict[str, Any]", read_tensors(tmp_path / "run" / "checkpoint.pt"))
    assert checkpoint["records"] == EPOCHS // 2

    resumed = forked(2, tmp_path, losing.main, tmp_path)
    assert resumed.codes == [0, 0], resumed.said
    assert not (tmp_path / "run" / "crash.txt").exists()
    assert_trained(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    "launch",
    [
        ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
        ACCELERATE,
    ],
    ids=["torchrun", "accelerate launch"],
)
def test_a_launcher_ends_a_run_that_has_lost_a_process(tmp_path: Path, launch: list[str]) -> None:
    killed = completed([sys.executable, "-m", *launch, losing.__file__, str(tmp_path), "1"])
    assert killed.returncode != 0
    (said,) = sentences(killed.stderr)
    assert said == sentence_of_loss(tmp_path / "run", 60)
    assert cast("dict[str, Any]", read_tensors(tmp_path / "run" / "checkpoint.pt"))["records"] == EPOCHS // 2


@pytest.mark.slow
@pytest.mark.skipif(not namespaces_work(), reason="this machine allows no network namespaces with a bridge")
def test_processes_on_two_hosts(tmp_path: Path) -> None:
    done = across_namespaces(2, losing.__file__, str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{tmp_path / 'run'}: test accuracy" in done.stdout
    assert_trained(tmp_path / "run")


@pytest.mark.parametrize("text", ["0", "-1", "soon", "inf"])
def test_a_timeout_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("OPENWORK_TIMEOUT_S", text)
    with pytest.raises(ValueError, match=f"OPENWORK_TIMEOUT_S must be a positive number of seconds, got '{text}'"):
        timeout_s()
