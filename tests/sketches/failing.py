"""A run of several processes of which one may be lost; it ends with one sentence, and goes on from its checkpoint.

``python -m torch.distributed.run --nproc-per-node 2 tests/sketches/failing.py FOLDER FATE WORKER STEP``
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Literal, cast

import torch

from openwork.files import read_tensors, write_tensors
from openwork.sketches import LostWorker, PermKAggregator, saved_when_lost, start_workers
from tests.sketches.processes import GATHERED, STEPS, loss, sketched, weights

Fate = Literal["killed", "terminated", "silent", "none"]


def main(
    folder: Path, fate: Fate = "none", worker: int = 0, last: int = 0, *, seed: int = 3, timeout_s: float = 60
) -> None:
    rank, size = (workers := start_workers(timeout_s=timeout_s)).rank, workers.size
    case = GATHERED["perm-k model"]
    model = sketched(case, size, seed=seed)
    aggregator = PermKAggregator(model)
    optimizer = case[3](list(model.parameters()))
    path = folder / "checkpoint.pt"
    if path.exists():
        state = cast("dict[str, Any]", read_tensors(path))
        try:
            aggregator.load_state_dict(state["workers"])
        except ValueError as error:
            sys.exit(f"worker {rank}: {error}")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])

    def save() -> None:
        write_tensors(
            path,
            {
                "workers": aggregator.state_dict(),
                "model": model.state_dict(),
                "optimizer": cast("Any", optimizer.state_dict()),
            },
        )

    done = time.monotonic()
    try:
        with saved_when_lost(save):
            for step in range(model.key.step, STEPS):
                if (rank, step) == (worker, last):
                    meet(fate, timeout_s)
                optimizer.zero_grad()
                loss(model, step, rank).backward()
                aggregator.reduce_()
                optimizer.step()
                model.advance()
                done = time.monotonic()
    except LostWorker as error:
        (folder / f"waited{rank}.txt").write_text(str(time.monotonic() - done))
        sys.exit(f"worker {rank}: {error}")
    torch.save(weights(model), folder / f"{rank}.pt")


def meet(fate: Fate, timeout_s: float) -> None:
    if fate == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fate == "terminated":
        os.kill(os.getpid(), signal.SIGTERM)
    if fate == "silent":
        time.sleep(2 * timeout_s)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), cast("Fate", sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
