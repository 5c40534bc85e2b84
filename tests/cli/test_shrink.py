"""``openwork shrink``: a run's model becomes smaller, and what that brings is measured and written down."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from openwork import load
from openwork.cli import main
from openwork.files import read_model, read_tensors, write_tensors
from openwork.training import rebuild

# The command line prints warnings as notes.
pytestmark = pytest.mark.filterwarnings("default::UserWarning")

Says = Callable[..., str]
QUICK = ("--seconds", "0.05")


@pytest.fixture
def run(once: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> str:
    """A finished run whose model has zero units, and many rows of its files."""
    folder = shutil.copytree(once("--epochs", "12", "--hidden", "[24]", "--lam", "2e-3"), "run")
    capsys.readouterr()
    return str(folder)


def found(folder: str) -> dict[str, Any]:
    return json.loads(Path(folder, "shrink.json").read_text())


def test_a_run_is_shrunk_and_measured(run: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in Path(run).iterdir()}
    assert main(["shrink", run, *QUICK]) == 0
    printed = capsys.readouterr().out
    numbers = found(run)

    old, new = numbers["report"]["params"]
    assert new < old
    assert f"{old:,} => {new:,} parameters" in printed
    for name, (_, shape) in numbers["report"]["shapes"].items():
        assert name in printed
        assert " x ".join(map(str, shape)) in printed
    assert numbers["schema"] == 1
    assert numbers["macs"][1] < numbers["macs"][0]
    assert f"{numbers['macs'][0]:,} => {numbers['macs'][1]:,}" in printed
    assert numbers["uncounted"] == []
    assert [(entry["batch"], entry["threads"], entry["compiled"]) for entry in numbers["latency"]] == [
        (1, torch.get_num_threads(), False),
        (128, torch.get_num_threads(), False),
    ]
    for entry in numbers["latency"]:
        assert set(entry["before_ms"]) == set(entry["after_ms"]) == set(entry["speedup"]) == {"median", "low", "high"}
        assert f"batch {entry['batch']}: " in printed
    final = json.loads(Path(run, "final.json").read_text())
    for key in ("valid_accuracy", "test_accuracy"):
        assert numbers["accuracy"][key] == [final[key], final[key]]
    assert numbers["accuracy"]["test_loss"] == pytest.approx([final["test_loss"]] * 2)
    assert numbers["same_predictions"] is True
    assert f"all {numbers['predictions']:,} predictions are the same" in printed
    assert isinstance(numbers["why"], list)
    assert printed.splitlines()[-1] == "run/small.safetensors"
    # Nothing else of the run has changed.
    assert {name: Path(run, name).read_bytes() for name in before} == before
    assert {path.name for path in Path(run).iterdir()} == {*before, "small.safetensors", "shrink.json"}


def test_the_small_model_is_the_run_s(run: str) -> None:
    assert main(["shrink", run, *QUICK]) == 0
    again = rebuild(Path(run))
    module = again.finish()
    small = load(Path(run, "small.safetensors"), into=module)
    assert sum(p.numel() for p in small.parameters()) == found(run)["report"]["params"][1]
    x = torch.randn(7, *again.example.shape[1:])
    assert torch.allclose(small(x), module(x), atol=1e-5)
    _, about = read_model(Path(run, "small.safetensors"))
    assert about["certificate"] == found(run)["report"]["certificate"]


def test_it_can_be_repeated_with_other_options(run: str) -> None:
    assert main(["shrink", run, *QUICK]) == 0
    first = found(run)["report"]
    assert main(["shrink", run, *QUICK, "--round-to", "8", "--no-low-rank", "--threads", "1", "--sparse"]) == 0
    widths = [width["after"] for width in found(run)["report"]["widths"]]
    assert widths != [width["after"] for width in first["widths"]]
    assert all(width % 8 == 0 for width in widths)


def test_a_run_that_is_not_finished_is_shrunk_with_a_note(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    state: Any = read_tensors(Path(run, "checkpoint.pt"))
    write_tensors(Path(run, "checkpoint.pt"), {**state, "unit": 100})
    assert main(["shrink", run, *QUICK]) == 0
    assert f"openwork: note: run is not finished, 100 of {state['unit']} units are done" in capsys.readouterr().err
    Path(run, "checkpoint.pt").unlink()
    assert main(["shrink", run, *QUICK]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("openwork: nothing in the model of run is exactly zero")


def test_zeros_in_single_weights_are_said_to_bring_no_speed(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shrink", run, *QUICK, "--exclude", "1", "3"]) == 0
    assert "no gain: the zeros fill no whole unit, and zeros in single weights make a file smaller (--sparse=True)" in (
        capsys.readouterr().out
    )
    assert len(found(run)["why"]) == 1


def test_a_mistake_is_one_sentence(says: Says, run: str, tmp_path: Path) -> None:
    assert says("shrink") == "shrink: the following arguments are required: run; see openwork shrink --help"
    assert says("shrink", "nowhere") == (
        "nowhere is not a run folder: it has no recipe.json; name a folder that `openwork train` wrote"
    )
    assert says("shrink", run, "--round-to", "0") == "shrink: --round_to must be a positive integer, got 0"
    assert says("shrink", run, "--exclude", "encoder").startswith(
        "shrink: exclude 'encoder' matches no parameter of Sequential; use names of model.named_parameters()"
    )
    assert says("shrink", run, "--seconds", "-1").startswith("compare_latency: --seconds must be > 0 and finite")
    assert says("shrink", run, "--threads", "0").startswith("compare_latency: --threads must be >= 1, got 0")
    assert says("shrink", run, "more") == "shrink takes no argument 'more' there; leave it out"
    assert says("shrink", run, "--roundto", "8").startswith("shrink has no option --roundto; did you mean --round_to")
    shutil.copytree(run, "broken")
    checkpoint = Path("broken", "checkpoint.pt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    assert says("shrink", "broken").startswith("broken/checkpoint.pt is damaged or was cut short")


def test_safetensors_reads_the_file_as_well(run: str) -> None:
    assert main(["shrink", run, *QUICK]) == 0
    shapes = {name: list(tensor.shape) for name, tensor in load_file(Path(run, "small.safetensors")).items()}
    for name, (_, new) in found(run)["report"]["shapes"].items():
        assert shapes[name] == new
