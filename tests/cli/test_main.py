"""Commands that work: help, lists, training, resuming, reports; and how they end."""

import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import pytest

from openwork.cli import main
from openwork.cli.main import COMMANDS
from openwork.files import read_records
from openwork.recipes import __all__ as names

# The command line prints warnings as notes.
pytestmark = pytest.mark.filterwarnings("default::UserWarning")

SMALL = ("--epochs", "4", "--averaging", "0.3", "--hidden", "[4]")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_the_commands(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert all(f"  {command} " in printed for command in COMMANDS)


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("openwork ")


def test_every_option_of_a_recipe_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", "rmda_cifar10_vgg19", "--help"])
    assert end.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    for text in (
        "VGG19-BN on CIFAR-10 with RMDA",
        "Strength of the group lasso, per unit of weight norm.",
        "(type: float, default: 0.00015)",
        "Folder with cifar10/; default OPENWORK_DATA.",
        "folder for the run, new or empty",
    ):
        assert text in printed


@pytest.mark.parametrize("command", [[command, "--help"] for command in COMMANDS])
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(command)
    except SystemExit as end:
        code = end.code
    assert code == 0
    assert f"usage: openwork {command[0]}" in capsys.readouterr().out


def test_every_recipe_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(names)
    assert all(line.endswith(".") for line in lines)


def test_listing_imports_no_torch() -> None:
    script = (
        "import sys; from openwork.cli import main; main(['recipes']); main(['--help']); "
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    begin = perf_counter()
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "ramda_digits" in done.stdout
    assert perf_counter() - begin < 5  # a tenth of a second on an idle machine


def test_train_then_report_and_resume(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["train", *SMALL, "--batch-size", "32", "--out", "run"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("run: test accuracy ")
    assert " groups alive, " in printed.out
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert recipe["recipe"] == "ramda_digits"
    assert recipe["arguments"] == {
        "lam": 6e-4,
        "lr": 0.01,
        "averaging": 0.3,
        "epochs": 4,
        "batch_size": 32,
        "hidden": [4],
        "refit": 0,
        "shrink_after": [],
        "seed": 0,
    }
    model = (tmp_path / "run" / "model.safetensors").read_bytes()
    assert main(["report", "run"]) == 0
    assert Path(capsys.readouterr().out.strip()) == tmp_path / "run" / "report.html"
    assert (tmp_path / "run" / "report.json").exists()
    assert main(["train", "--resume=run"]) == 0
    assert main(["train", "ramda_digits", "--resume", "run"]) == 0
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == model


def test_folders_are_numbered(tmp_path: Path) -> None:
    for _ in range(2):
        assert main(["train", "proxsgd_digits", "--epochs", "1", "--hidden", "[4]"]) == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["proxsgd_digits-1", "proxsgd_digits-2"]


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["train", *SMALL, "--out", "empty"]) == 0
    assert len(read_records(tmp_path / "empty" / "metrics.jsonl")) == 4


OWN = '''
from openwork.recipes import proxsgd_digits
from openwork.training import Run

def tiny(width: int = 3, crash: bool = False) -> Run:
    """A recipe beside the command.

    Args:
        width: Of the hidden layer.
        crash: In the first epoch.
    """
    run = proxsgd_digits(hidden=(width,), epochs=2)
    if crash:
        run.model.register_forward_hook(lambda *_: 1 / 0)
    return run
'''


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "own_recipes.py").write_text(OWN)
    assert main(["train", "own_recipes:tiny", "--width", "2"]) == 0
    recipe = json.loads((tmp_path / "runs" / "tiny-1" / "recipe.json").read_text())
    assert (recipe["recipe"], recipe["arguments"]) == ("own_recipes:tiny", {"width": 2, "crash": False})


def test_a_crash_is_one_sentence_and_a_traceback_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own_crashing.py").write_text(OWN)
    assert main(["train", "own_crashing:tiny", "--crash", "true", "--out", "run"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        "openwork: training crashed (ZeroDivisionError: division by zero); the traceback is in run/crash.txt, and "
        "there is no checkpoint yet; begin again with: openwork train --resume run"
    )
    assert "1 / 0" in (tmp_path / "run" / "crash.txt").read_text()


def test_tensorboard_is_asked_for_by_name(tmp_path: Path) -> None:
    assert main(["train", "proxsgd_digits", "--epochs", "1", "--hidden", "[4]", "--tracker", "tensorboard"]) == 0
    assert list(tmp_path.rglob("events.out.tfevents.*"))
