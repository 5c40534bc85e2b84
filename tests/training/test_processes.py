"""Several processes on one run, started by torch's own launcher."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from openwork.cli import main
from openwork.files import read_json, read_records, read_tensors

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m", "openwork"]


def train(out: Path, batch_size: int) -> list[str]:
    options = {"--epochs": 4, "--lam": 0.001, "--batch_size": batch_size, "--out": out}
    return ["train", "ramda_digits", *(str(word) for option in options.items() for word in option)]


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
