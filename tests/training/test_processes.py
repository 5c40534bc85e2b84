"""Several processes on one run, started by torch's own launcher."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from openwork.files import read_json, read_records, read_tensors

LAUNCH = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
TRAIN = ["-m", "openwork", "train", "ramda_digits", "--epochs", "4", "--lam", "0.001"]


def train(launch: list[str], out: Path, batch_size: int) -> str:
    command = [sys.executable, *launch, *TRAIN, "--batch_size", str(batch_size), "--out", str(out)]
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, env=env).stdout


def test_two_processes_train_as_one_with_twice_the_batch(tmp_path: Path) -> None:
    printed = train(LAUNCH, tmp_path / "two", batch_size=32)
    train([], tmp_path / "one", batch_size=64)

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
