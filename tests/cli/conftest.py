"""Commands in a folder of their own, and the sentence that they end with when something is wrong."""

import shutil
import sys
from collections.abc import Callable
from functools import cache
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


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folder of a run of ramda_digits with these options, trained for the first test that asks for it."""

    @cache
    def train(*options: str) -> Path:
        folder = tmp_path_factory.mktemp("trained") / "run"
        assert main(["train", "--out", str(folder), "--averaging", "0.3", *options]) == 0
        return folder

    return train


@pytest.fixture
def run(once: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> str:
    """Folder of a finished run of ramda_digits."""
    folder = shutil.copytree(once("--epochs", "4", "--hidden", "[4]"), "run")
    capsys.readouterr()
    return str(folder)
