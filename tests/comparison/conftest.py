"""A tiny task that subprocesses can import too, short times, and no measuring to speak of."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from openwork.comparison import timing, work

    monkeypatch.setattr(timing, "SECONDS", 0.005)
    monkeypatch.setattr(work, "PATIENCE", 0.05)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
