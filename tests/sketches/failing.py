"""A run of several processes of which one may be lost; it ends with one sentence, and goes on from its checkpoint.

``python -m torch.distributed.run --nproc-per-node 2 tests/sketches/failing.py FOLDER STEPS how:worker:step``, where how
is ``killed``, ``silent`` or ``none``.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, cast

import torch

from openwork.files import read_tensors, write_tensors
from openwork.sketches import LostWorker, PermKAggregator, saved_when_lost, start_workers
from tests.sketches.processes import GATHERED, loss, sketched, weights

TIMEOUT_S = 5.0


def main(folder: Path, steps: int, how: str, worker: int, last: int) -> None:
    rank, size = (workers := start_workers(timeout_s=TIMEOUT_S)).rank, workers.size
    case = GATHERED["perm-k model"]
    model = sketched(case, size)
    aggregator = PermKAggregator(model)
    optimizer = case[3](list(model.parameters()))
    path = folder / "checkpoint.pt"
    if path.exists():
        state = cast("dict[str, Any]", read_tensors(path))
        aggregator.load_state_dict(state["workers"])
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

    try:
        with saved_when_lost(save):
            for step in range(model.key.step, steps):
                if (rank, step) == (worker, last) and how == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                if (rank, step) == (worker, last) and how == "silent":
                    (folder / "silent.txt").write_text(str(time.time()))
                    time.sleep(3 * TIMEOUT_S)
                optimizer.zero_grad()
                loss(model, step, rank).backward()
                aggregator.reduce_()
                optimizer.step()
                model.advance()
    except LostWorker as error:
        (folder / f"ended{rank}.txt").write_text(str(time.time()))
        sys.exit(f"worker {rank}: {error}")
    except ValueError as error:
        sys.exit(f"worker {rank}: {error}")
    torch.save(weights(model), folder / f"{rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    how, worker, last = sys.argv[3].split(":")
    main(Path(sys.argv[1]), int(sys.argv[2]), how, int(worker), int(last))
