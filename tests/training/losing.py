"""A run of several processes of which one may be lost, by the command line.

``python -m torch.distributed.run --nproc-per-node 2 tests/training/losing.py FOLDER [RANK [FATE]]``
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch.nn.functional import cross_entropy

from openwork import data, models
from openwork.cli.main import main as openwork
from openwork.optim import RAMDA, RMDA, ProxAdamW, ProximalOptimizer, regularize
from openwork.penalties import GroupLasso
from openwork.training import METRICS, Metrics, Run, processes, supervised, timeout_s

Fate = Literal["killed", "silent"]
EPOCHS, BATCH, SAMPLES = 4, 64, 1024
NAME = "tests.training.losing:digits"
# Of the floors it is the larger ones that do not enlarge what rounding leaves of a gradient that is nearly 0.
OPTIMIZERS: dict[str, Callable[..., ProximalOptimizer]] = {
    "rmda": partial(RMDA, lr=0.3, averaging=0.25),
    "ramda": partial(RAMDA, lr=0.03, averaging=0.25, eps=1e-3),
    "prox_adamw": partial(ProxAdamW, lr=0.003, eps=1e-3),
    "rmda, fused": partial(RMDA, lr=0.3, averaging=0.25, fused=True),
    "ramda, fused": partial(RAMDA, lr=0.03, averaging=0.25, eps=1e-3, fused=True),
    "prox_adamw, fused": partial(ProxAdamW, lr=0.003, eps=1e-3, fused=True),
}


def digits(batch_size: int = BATCH // 2, optimizer: str = "rmda") -> Run:
    """A small network in double precision; LOST says which process is lost in the third epoch, and FATE how.

    Args:
        batch_size: Of each process.
        optimizer: One of ``OPTIMIZERS``.
    """
    samples = data.digits(seed=0)
    # As many as all numbers of processes divide, so that no batch is smaller.
    train = data.Split(samples.train.inputs[:SAMPLES].double(), samples.train.targets[:SAMPLES])
    valid, test = (data.Split(x.inputs.double(), x.targets) for x in (samples.valid, samples.test))
    network = models.mlp((64, 16, 10), seed=0).double()
    run = supervised(
        network,
        cross_entropy,
        OPTIMIZERS[optimizer](regularize(network, GroupLasso(1e-3))),
        data=replace(samples, train=train, valid=valid, test=test),
        epochs=EPOCHS,
        batch_size=batch_size,
        milestones=[2],
    )
    records, lost = Path(os.environ.get("FOLDER", ".")) / METRICS, os.environ.get("LOST")

    def advance(units: int) -> Metrics:
        if lost == str(processes().process_index) and records.exists() and len(records.read_text().splitlines()) >= 2:
            if os.environ["FATE"] == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(6 * timeout_s())
        return run.advance(units)

    return replace(run, advance=advance)


def weights(batch_size: int, optimizer: str) -> dict[str, torch.Tensor]:
    """What training leaves."""
    run = digits(batch_size, optimizer)
    for _ in range(EPOCHS):
        for _ in range(run.period):
            run.advance(1)
    return dict(run.model.state_dict())


def equal(folder: Path, size: int) -> None:
    """Train with every optimizer, and leave the weights and the next random numbers."""
    found = {name: weights(BATCH // size, name) for name in OPTIMIZERS}
    torch.save({"weights": found, "random": torch.rand(3)}, folder / f"{processes().process_index}.pt")


def main(folder: Path, lost: int | None = None, fate: Fate = "killed", patience_s: float = 60) -> None:
    """Train, or go on."""
    out = folder / "run"
    os.environ |= {"FOLDER": str(out), "OPENWORK_TIMEOUT_S": str(patience_s)}
    # What torchrun says of its own, and whoever runs this in a namespace does not.
    os.environ.setdefault("LOCAL_RANK", "0")
    os.environ.setdefault("LOCAL_WORLD_SIZE", "1")
    if lost is not None:
        os.environ |= {"LOST": str(lost), "FATE": fate}
    arguments = ["--resume", str(out)] if (out / "recipe.json").exists() else [NAME, "--out", str(out)]
    sys.exit(openwork(["train", *arguments]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:3]), *sys.argv[3:])  # pyright: ignore[reportArgumentType]
