import pytest
import torch

from tests.sketches.launch import torchrun
from tests.sketches.processes import Result

Ranks = list[dict[str, Result]]


@pytest.fixture(scope="session", params=[2, 4], ids=["2 processes", "4 processes"])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """Results of all checks in processes.py, by rank; started once for all tests."""
    size = int(request.param)
    folder = tmp_path_factory.mktemp(f"processes{size}")
    done = torchrun(size, "processes.py", str(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]
