"""What every test runs under: few threads, no network, no display, one seed."""

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

# Before torch and numpy are imported, which read them once; subprocesses of the tests inherit them.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"
os.environ["MPLBACKEND"] = "agg"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch
from hypothesis import settings
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import override

if not torch.cuda.is_available():
    # Kernels for devices are interpreted then, which Triton decides where it is imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")

torch.set_num_threads(1)
torch.set_num_interop_threads(1)

# The same examples on every machine and every run: a failure seen once can be seen again.
settings.register_profile("openwork", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("openwork")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs CUDA, and torch finds none here"))


class Operations(TorchDispatchMode):
    """Counts what torch is asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **kwargs or {})


@pytest.fixture
def operations() -> Callable[[Callable[[], object]], int]:
    """How much torch is asked to do by a call."""

    def counted(call: Callable[[], object]) -> int:
        with Operations() as mode:
            call()
        return mode.count

    return counted


@pytest.fixture(autouse=True)
def seeded() -> None:
    """No test depends on which tests ran before it in the same worker."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def forget_accelerators() -> Iterator[None]:
    """Accelerate keeps process-wide state, such as the precision."""
    yield
    if "accelerate" in sys.modules:
        from accelerate.state import AcceleratorState, GradientState

        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
