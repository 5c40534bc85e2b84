from pathlib import Path

import pytest
import torch

from tests.sketches.launch import torchrun
from tests.sketches.processes import Result

Ranks = list[dict[str, Result]]


def read(path: Path) -> dict[str, Result]:
    """What a process has left."""
    return {name: Result(**fields) for name, fields in torch.load(path, weights_only=True).items()}


@pytest.fixture(scope="session", params=[2, 4], ids=["2 processes", "4 processes"])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """Results of all checks in processes.py, by rank; started once for all tests."""
    size = int(request.param)
    folder = tmp_path_factory.mktemp(f"processes{size}")
    done = torchrun(size, "processes.py", str(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    return [read(folder / f"{rank}.pt") for rank in range(size)]
