"""Commands in a folder of their own, and the sentence that they end with when something is wrong."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from openwork.cli import main


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("OPENWORK_DATA", raising=False)


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """The sentence a command ends with, having changed no file."""

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".pyc"}

    def command(*arguments: str) -> str:
        before = files()
        assert main(arguments) == 2
        assert files() == before
        printed = capsys.readouterr()
        assert printed.out == ""
        # Notes may come before it.
        *_, sentence = printed.err.splitlines()
        assert sentence.startswith("openwork: ")
        return sentence.removeprefix("openwork: ")

    return command


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> str:
    """Folder of a finished run of ramda_digits."""
    assert main(["train", "--out", "run", "--epochs", "4", "--averaging", "0.3", "--hidden", "[4]"]) == 0
    capsys.readouterr()
    return "run"
