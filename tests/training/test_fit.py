"""Driving a run: what is written, and that stopping in any way loses nothing."""

import json
import signal
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch
from safetensors.torch import load_file

from openwork.cli import main
from openwork.files import read_records, read_tensors, write_tensors
from openwork.training import BadCheckpoint, Recipe, Run, Stopped, fit, last_report, new_folder, rebuild, write_recipe

OpenWork = Callable[..., subprocess.CompletedProcess[str]]


def begin(name: str, out: Path, **arguments: int | float) -> Run:
    recipe = Recipe(name, arguments)
    write_recipe(new_folder(out), recipe)
    torch.manual_seed(2)  # which must not matter
    return recipe.build()


def trained(name: str, out: Path, **arguments: int | float) -> Path:
    fit(begin(name, out, **arguments), out)
    return out


def resume(out: Path) -> None:
    torch.manual_seed(1)  # which must not matter
    fit(rebuild(out), out)


def numbers(folder: Path) -> list[dict[str, Any]]:
    """All records and the final numbers, without times."""
    found: list[dict[str, Any]] = [
        *read_records(folder / "metrics.jsonl"),
        json.loads((folder / "final.json").read_text()),
    ]
    return [{key: value for key, value in record.items() if key != "seconds"} for record in found]


def assert_same(a: Path, b: Path) -> None:
    assert numbers(a) == numbers(b)
    assert (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()


def dies(monkeypatch: pytest.MonkeyPatch, of: str, at: int) -> None:
    monkeypatch.setenv("DIES_OF", of)
    monkeypatch.setenv("DIES_AT", str(at))


def lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIES_AT")


# -- what is written ------------------------------------------------------------------------------------------------


def test_a_run_leaves_its_folder(own: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = begin(own, out)
    final = fit(run, out)
    assert sorted(file.name for file in out.iterdir()) == [
        "checkpoint.pt",
        "final.json",
        "metrics.jsonl",
        "model.safetensors",
        "recipe.json",
    ]
    records = read_records(out / "metrics.jsonl")
    assert [record["epoch"] for record in records] == [1, 2, 3, 4, 5, 6]
    seconds: list[Any] = [record["seconds"] for record in records]
    assert seconds[0] > 0
    assert seconds == sorted(seconds)
    assert json.loads((out / "final.json").read_text()) == final
    assert last_report(out) == records[-1]
    saved, model = load_file(out / "model.safetensors"), run.model.state_dict()
    assert set(saved) == set(model)
    assert all(torch.equal(saved[name], model[name]) for name in saved)
    asked = json.loads((out / "recipe.json").read_text())
    assert (asked["schema"], asked["recipe"], asked["arguments"]) == (1, own, {})
    assert asked["machine"]["threads"] == torch.get_num_threads()


def test_the_checkpoint_holds_tensors_and_plain_values(own: str, tmp_path: Path) -> None:
    state = read_tensors(trained(own, tmp_path / "run", epochs=3) / "checkpoint.pt")
    assert (state["schema"], state["unit"], state["records"], state["threads"]) == (2, 24, 3, torch.get_num_threads())


def test_tensorboard_gets_the_numbers(own: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tensorboard's own imports
        fit(begin(own, out, epochs=3), out, tracker="tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        (file,) = out.rglob("events.out.tfevents.*")
        events = EventAccumulator(str(file)).Reload()
    logged = [(e.step, e.value) for e in events.Scalars("structured_valid_accuracy")]
    expected = [(r["unit"], r["structured_valid_accuracy"]) for r in read_records(out / "metrics.jsonl")]
    assert logged == [(unit, pytest.approx(value)) for unit, value in expected]


# -- stopped and resumed --------------------------------------------------------------------------------------------


def test_a_run_is_a_function_of_its_arguments(own: str, tmp_path: Path) -> None:
    assert_same(trained(own, tmp_path / "a"), trained(own, tmp_path / "b"))
    other = trained(own, tmp_path / "c", seed=1)
    assert (other / "model.safetensors").read_bytes() != (tmp_path / "a" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("step", [3, 21, 45])
def test_interrupted_in_an_epoch_it_goes_on_to_the_same_bits(
    own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    whole, out = trained(own, tmp_path / "whole"), tmp_path / "run"
    dies(monkeypatch, "SIGINT", step)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped, match=r"stopped by SIGINT; everything is saved in .*run") as stop:
        fit(begin(own, out), out)
    assert stop.value.number == 2
    assert signal.getsignal(signal.SIGINT) is handler
    assert read_tensors(out / "checkpoint.pt")["unit"] == step
    assert not (out / "final.json").exists()
    lives(monkeypatch)
    resume(out)
    assert_same(whole, out)


def test_terminated_it_saves_says_how_to_go_on_and_exits_with_143(
    own: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dies(monkeypatch, "SIGTERM", 13)
    assert main(["train", own, "--out", "run"]) == 143
    assert "stopped by SIGTERM; everything is saved in run; go on with: openwork train --resume run" in (
        capsys.readouterr().err
    )
    assert read_tensors(Path("run/checkpoint.pt"))["unit"] == 13


def test_killed_it_goes_on_to_the_same_bits(own: str, tmp_path: Path, openwork: OpenWork) -> None:
    out = tmp_path / "run"
    done = openwork("train", own, "--out", "run", DIES_OF="SIGKILL", DIES_AT="21")
    assert done.returncode == -9
    assert len(read_records(out / "metrics.jsonl")) == 2
    recipe = json.loads((out / "recipe.json").read_text())
    assert recipe["machine"]["threads"] == torch.get_num_threads()
    resume(out)
    assert_same(trained(own, tmp_path / "whole"), out)


def test_a_crash_keeps_the_last_checkpoint(own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, out = trained(own, tmp_path / "whole"), tmp_path / "run"
    dies(monkeypatch, "error", 21)
    with pytest.raises(ArithmeticError, match="planted"):
        fit(begin(own, out), out)
    assert read_tensors(out / "checkpoint.pt")["unit"] == 16
    lives(monkeypatch)
    resume(out)
    assert_same(whole, out)


def test_records_after_the_checkpoint_and_a_torn_line_are_written_again(
    own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = trained(own, tmp_path / "whole"), tmp_path / "run"
    dies(monkeypatch, "error", 21)
    with pytest.raises(ArithmeticError, match="planted"):
        fit(begin(own, out), out)
    lives(monkeypatch)
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3}\n{"epoch": 4, "train_l')
    assert last_report(out) == {"epoch": 3}
    resume(out)
    assert_same(whole, out)


def test_a_finished_run_resumes_to_itself(own: str, tmp_path: Path) -> None:
    out = trained(own, tmp_path / "run", epochs=3)
    before = numbers(out), (out / "model.safetensors").read_bytes()
    resume(out)
    assert (numbers(out), (out / "model.safetensors").read_bytes()) == before


def test_a_rebuilt_run_is_where_the_checkpoint_is(own: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = begin(own, out, epochs=3)
    fit(run, out)
    again = rebuild(out)
    assert again.units == run.units
    again.finish()
    run.finish()
    states = (again.model.state_dict().values(), run.model.state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


# -- what cannot be resumed -----------------------------------------------------------------------------------------


def changed(out: Path, **values: Any) -> None:
    state: Any = read_tensors(out / "checkpoint.pt")
    write_tensors(out / "checkpoint.pt", {**state, **values})


def test_another_number_of_threads_or_processes_is_said(own: str, tmp_path: Path) -> None:
    out = trained(own, tmp_path / "run", epochs=3)
    changed(out, threads=7)
    with pytest.warns(UserWarning, match=r"written with 7 threads and is resumed with \d+.*set OMP_NUM_THREADS=7"):
        rebuild(out)
    state: Any = read_tensors(out / "checkpoint.pt")
    changed(out, threads=torch.get_num_threads(), random=2 * state["random"])
    with pytest.warns(UserWarning, match="written by 2 processes and is resumed by 1"):
        rebuild(out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 1}, r"checkpoint\.pt is a checkpoint of schema 1, and this version of openwork reads 2; resume it"),
        ({"run": {}}, r"checkpoint\.pt does not fit this run .*; resume it with the recipe and arguments"),
        ({"records": 9}, r"metrics\.jsonl holds 3 records, so it cannot be cut to 9; restore"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(
    own: str, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    out = trained(own, tmp_path / "run", epochs=3)
    changed(out, **change)
    before = (out / "metrics.jsonl").read_bytes(), (out / "model.safetensors").read_bytes()
    run = Recipe(own, {"epochs": 3}).build()
    with pytest.raises(BadCheckpoint, match=message):
        fit(run, out)
    assert ((out / "metrics.jsonl").read_bytes(), (out / "model.safetensors").read_bytes()) == before


def test_a_checkpoint_of_another_model_is_refused(own: str, tmp_path: Path) -> None:
    out = trained(own, tmp_path / "run", epochs=3)
    run = Recipe("ramda_digits", {}).build()
    with pytest.raises(BadCheckpoint, match=r"checkpoint\.pt does not fit this run .*resume it with the recipe"):
        fit(run, out)


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_checkpoint_is_refused(own: str, tmp_path: Path, damage: str) -> None:
    out = trained(own, tmp_path / "run", epochs=3)
    file = out / "checkpoint.pt"
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        with ZipFile(file) as archive:
            tensor = max((archive.read(name) for name in archive.namelist()), key=len)
        content[content.index(tensor) + len(tensor) // 2] ^= 1
    file.write_bytes({"cut": content[:-100], "flipped": content, "emptied": b""}[damage])
    with pytest.raises(BadCheckpoint, match=r"checkpoint\.pt is damaged or was cut short"):
        rebuild(out)


def test_lost_records_are_missed(own: str, tmp_path: Path) -> None:
    out = trained(own, tmp_path / "run", epochs=3)
    (out / "metrics.jsonl").unlink()
    with pytest.raises(BadCheckpoint, match=r"there is no file .*metrics\.jsonl"):
        fit(Recipe(own, {"epochs": 3}).build(), out)
