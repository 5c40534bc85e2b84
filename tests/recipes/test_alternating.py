"""Recipes of alternating minimization learn, are killed and resumed to the same bits, shrink and export."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

import openwork as ow
from openwork import data, recipes
from openwork.altmin import AMTrainer
from openwork.cli import main
from openwork.files import read_records, read_tensors
from openwork.training import Recipe, Run, alternating_run, fit, new_folder, rebuild, write_recipe

NAMES = [name for name in recipes.__all__ if name.startswith("tiam")]
# Small enough for a test.
SHORT: Mapping[str, Mapping[str, Any]] = {
    "tiam_sign": {"sweeps": 12, "ramp": 6, "hidden": 16},
    "tiam_sparse": {"sweeps": 12, "hidden": (8,), "samples": 100},
}
# What the recipes read, and the shape of a sample of it.
READ: Mapping[str, tuple[int, ...]] = {
    "mnist": (1, 28, 28),
    "fashion_mnist": (1, 28, 28),
    "letter_recognition": (16,),
    "digits": (64,),
}


def recipe(name: str) -> Callable[..., Run]:
    return getattr(recipes, name)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up samples in place of the data sets, of the same shapes."""
    for name, shape in READ.items():

        def load(*_: object, shape: tuple[int, ...] = shape, seed: int = 0, **__: object) -> data.Data:
            made = data.planted(math.prod(shape), 0, 150, classes=10, seed=seed)
            parts = {part: reshaped(getattr(made, part), shape) for part in ("train", "valid", "test")}
            return replace(made, **parts)

        monkeypatch.setattr(data, name, load)


def reshaped(split: data.Split, shape: tuple[int, ...]) -> data.Split:
    return data.Split(split.inputs.reshape(-1, *shape), split.targets)


def short(name: str, **options: Any) -> Run:
    """A recipe of few units and sweeps."""
    return recipe(name)(**{**SHORT.get(name, {"sweeps": 12, "hidden": (16,)}), **options})


def trained(run: Run) -> Sequence[Mapping[str, Any]]:
    """All reports of a run, driven to its end."""
    found = [run.advance(run.period) for _ in range(-(-run.units // run.period))]
    assert all(found)
    return found


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_learns_and_reports(name: str) -> None:
    run = short(name, seed=1)
    early, *_, last = trained(run)
    layers = sum(isinstance(module, nn.Linear) for module in run.model.modules())
    assert last["sweep"] == last["unit"] == run.units
    assert len(last["link_residual"]) == len(last["weight_norm"]) == layers
    assert len(last["coupling_gap"]) == layers - 1
    assert early["restarts"] <= last["restarts"]
    assert {"objective", "surrogate_loss", "train_loss", "valid_loss", "valid_accuracy", "rho"} <= last.keys()
    model = run.finish()
    assert type(model) is nn.Sequential and not model.training
    final = run.evaluate(model)
    assert last["train_loss"] < early["train_loss"]
    assert isinstance(final["test_accuracy"], float)
    assert cast("dict[str, Any]", final["alternating"])["chosen_sweep"] <= run.units
    # Another module is only evaluated.
    assert "alternating" not in run.evaluate(nn.Sequential(*model))


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("method", ["ours", "tiam", "mdlam", "dladmm", "bcd"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_every_method_and_activation_runs(method: str, activation: str) -> None:
    options: dict[str, Any] = {"method": method, "activation": activation, "sweeps": 5, "hidden": (8,), "lam": 0.0}
    run = recipes.tiam_digits(**options)
    (last,) = trained(run)
    assert torch.isfinite(torch.tensor(last["objective"]))
    assert (last["coupling_gap"] == [0.0]) == (method == "ours")


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("name", ["tiam_mnist", "tiam_fashion"])
def test_chunks_take_nearly_the_same_steps(name: str) -> None:
    (whole,), (chunked,) = (trained(short(name, sweeps=4, chunk_size=size)) for size in (None, 50))
    for key in ("objective", "train_loss", "valid_loss"):
        assert chunked[key] == pytest.approx(whole[key], rel=0.02)
    with pytest.raises(ValueError, match=r"chunk_size must be left out with method='bcd'"):
        short(name, method="bcd", chunk_size=50)


@pytest.mark.usefixtures("made_up")
def test_other_activations_are_in_the_network() -> None:
    for activation, module in (("leaky_relu", nn.LeakyReLU), ("elu", nn.ELU)):
        run = recipes.tiam_digits(activation=activation, hidden=(4,), sweeps=1)  # pyright: ignore[reportArgumentType]
        assert any(isinstance(part, module) for part in run.model.modules())


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("name", ["tiam_digits", "tiam_sign", "tiam_sparse"])
@pytest.mark.parametrize("done", [3, 7, 12])
def test_a_resumed_run_goes_on_to_the_same_bits(name: str, done: int) -> None:
    whole, half, again = (short(name) for _ in range(3))
    for run in (whole, half):
        for _ in range(done):
            run.advance(1)
    again.load_state_dict(half.state_dict())
    for _ in range(whole.units - done):
        assert whole.advance(1) == again.advance(1)
    a, b = whole.finish(), again.finish()
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert whole.evaluate(a) == again.evaluate(b)
    assert torch.equal(a(whole.example), b(whole.example))


def test_the_last_checkpoint_holds_the_network_alone(tmp_path: Path) -> None:
    asked = Recipe("tiam_digits", {"sweeps": 6, "hidden": [8]})
    write_recipe(new_folder(tmp_path / "run"), asked)
    run = asked.build()
    run.advance(5)
    assert cast("Any", run.state_dict()["trainer"])["layers"][0]["z"].shape[0] > 1000
    final = fit(asked.build(), tmp_path / "run", progress=False)
    assert [record["sweep"] for record in read_records(tmp_path / "run" / "metrics.jsonl")] == [5, 6]
    state = cast("dict[str, Any]", read_tensors(tmp_path / "run" / "checkpoint.pt"))
    assert state["run"]["trainer"] is None
    again = rebuild(tmp_path / "run")
    found = again.evaluate(again.finish())
    assert found == {key: value for key, value in final.items() if key != "seconds"}


def test_the_weights_of_the_best_validation_loss_are_handed_over() -> None:
    run = recipes.tiam_digits(lam=0.0, sweeps=12, hidden=(8,))
    losses: list[float] = []
    weights: list[torch.Tensor] = []
    for _ in range(run.units):
        run.advance(1)
        weights.append(run.model.get_parameter("1.weight").detach().clone())
        gap = run.evaluate(run.model)["valid_loss"]
        losses.append(cast("float", gap))
    final = run.evaluate(run.finish())
    best = losses.index(min(losses))
    assert cast("dict[str, Any]", final["alternating"])["chosen_sweep"] == best + 1
    assert torch.equal(run.model.get_parameter("1.weight"), weights[best])
    assert cast("float", final["valid_loss"]) <= losses[best] + 1e-6


def test_penalized_weights_are_chosen_from_the_last_quarter() -> None:
    run = recipes.tiam_digits(lam=0.05, sweeps=20, hidden=(16,))
    trained(run)
    final = cast("dict[str, Any]", run.evaluate(run.finish()))
    assert final["alternating"]["chosen_sweep"] >= 15
    weight = run.model.get_parameter("3.weight")
    assert final["layers"]["3.weight"]["alive"] == int(weight.any(0).sum())
    assert (final["alive"], final["total"]) == (int(weight.any(0).sum()), 16)


def test_ramps_are_judged_as_signs_and_end_as_signs() -> None:
    run = recipes.tiam_sign(sweeps=8, ramp=6, hidden=8)
    for _ in range(8):
        run.advance(1)
        hidden = run.model.get_submodule("2")
        outputs = hidden(torch.linspace(-1, 1, 9))
        assert (set(outputs.unique().tolist()) == {-1.0, 1.0}) == (cast("Any", hidden).activation.slope == torch.inf)
    model = run.finish()
    assert isinstance(model, nn.Sequential)
    assert set(model[:3](run.example).unique().tolist()) <= {-1.0, 1.0}
    nn.functional.cross_entropy(model(run.example), torch.zeros(2, dtype=torch.int64)).backward()
    assert not model.get_parameter("1.weight").grad.any()  # pyright: ignore[reportOptionalMemberAccess]


def test_inputs_of_noise_are_dropped_and_named() -> None:
    run = recipes.tiam_sparse(sweeps=60, hidden=(16,), informative=6, noise=10, lam=0.006, lam_units=0.02, samples=300)
    trained(run)
    model = run.finish()
    final = cast("dict[str, Any]", run.evaluate(model))
    kept, noise = final["inputs"]["informative"], final["inputs"]["noise"]
    assert (kept[1], noise[1]) == (6, 10)
    assert kept[0] > noise[0]
    zero = final["alternating"]["zero_inputs"]
    assert len(zero) == 16 - kept[0] - noise[0] > 3
    assert not model.get_parameter("1.weight")[:, zero].any()
    small = ow.shrink(model, run.example).model
    torch.testing.assert_close(small(run.example), model(run.example))
    # The samples keep their shape, so the inputs stay; units go.
    assert small.get_parameter("1.weight").shape[1] == 16
    assert "inputs" not in run.evaluate(small)


def test_numbers_out_of_range_are_refused() -> None:
    samples = data.planted(2, 1, 20)

    def trainer() -> AMTrainer:
        return AMTrainer(nn.Sequential(nn.Linear(3, 4)))

    for options, message in (
        ({"sweeps": 0}, r"alternating_run: sweeps must be at least 1, got 0"),
        ({"sweeps": 5, "every": 0}, r"alternating_run: every must be at least 1 sweep between two reports, got 0"),
        ({"sweeps": 5, "choose_from": 6}, r"alternating_run: choose_from must be from 0 to sweeps=5, got 6"),
    ):
        arguments: dict[str, Any] = options
        with pytest.raises(ValueError, match=message):
            alternating_run(trainer(), samples, **arguments)
    none = replace(samples, valid=samples.valid.none())
    with pytest.raises(ValueError, match="weights are chosen on validation samples, and planted has none"):
        alternating_run(trainer(), none, sweeps=5)


def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--sweeps", "40", "--hidden", "[24]", "--lam", "0.03", "--out", "run")
    assert main(["train", "tiam_digits", *options]) == 0
    assert "groups alive" in capsys.readouterr().out
    assert main(["shrink", "run", "--seconds", "0.01"]) == 0
    printed = capsys.readouterr().out
    assert "same outputs" in printed
    assert main(["export", "run", "--to", "safetensors"]) == 0
    assert main(["report", "run"]) == 0
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Alternating minimization" in page
    report = json.loads((tmp_path / "run" / "report.json").read_text())["runs"][0]
    assert report["clock"] == "sweep"
    assert report["alternating"]["sweeps"] == 40


@pytest.mark.parametrize("name", ["tiam_digits", "tiam_sign"])
def test_inspect_lists_the_hidden_units(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", name, "--hidden", "[9]" if name == "tiam_digits" else "9"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[0] == "9"
