import fcntl
import os
from pathlib import Path

import pytest
import torch

from tests.sketches import processes
from tests.sketches.launch import forked
from tests.sketches.processes import Result

Ranks = list[dict[str, Result]]


def read(path: Path) -> dict[str, Result]:
    """What a process has left."""
    return {name: Result(**fields) for name, fields in torch.load(path, weights_only=True).items()}


@pytest.fixture(scope="session", params=[2, 4], ids=["2 processes", "4 processes"])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """Results of all checks in processes.py, by rank; started once for all tests, those of other xdist workers too."""
    size = int(request.param)
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"processes{size}"
    folder.mkdir(exist_ok=True)
    done = folder / "done"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            ended = forked(size, folder, processes.main, folder)
            assert ended.codes == [0] * size, ended.said
            done.touch()
    return [read(folder / f"{rank}.pt") for rank in range(size)]
