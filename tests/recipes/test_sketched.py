"""Sketched runs hand over pruned models that shrink, and go on to the same bits."""

import os
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

import openwork as ow
from openwork import recipes
from openwork.recipes.sketching import traffic
from openwork.sketches import RandK, SketchedModule, export_delta, load_delta
from openwork.sketches.export import Rule
from openwork.training import Run

NEEDS_LIBSVM = pytest.mark.skipif(
    not Path(os.environ.get("OPENWORK_DATA", "/nowhere"), "libsvm").is_dir(),
    reason="needs libsvm/ in the folder OPENWORK_DATA",
)


def short(keep: float = 0.5, rule: Rule = "random", epochs: int = 2) -> Run:
    return recipes.mast_digits(keep=keep, rule=rule, epochs=epochs, hidden=(12, 8), batch_size=256)


def trained(run: Run) -> Run:
    for _ in range(run.units // run.period):
        run.advance(run.period)
    return run


@pytest.mark.parametrize("rule", ["random", "best_of", "magnitude", "nested"])
def test_what_is_handed_over_shrinks(rule: Rule) -> None:
    run = trained(short(0.3, rule))
    model = run.finish()
    assert type(model) is nn.Sequential
    assert not model.training
    shrunk = ow.shrink(model, run.example)
    after = {width.name: width.after for width in shrunk.report.widths}
    assert (after["1.weight"], after["3.weight"]) == (4, 3)
    torch.testing.assert_close(shrunk.model(run.example), model(run.example))


def test_the_numbers_at_the_end() -> None:
    run = trained(short(0.5))
    last = run.advance(0)
    model = run.finish()
    final = run.evaluate(model)
    sketch = cast("dict[str, Any]", final["sketch"])
    points = sketch["prune_curve"]
    assert [point["ratio"] for point in points] == [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert all(p["accuracy"]["min"] <= p["accuracy"]["mean"] <= p["accuracy"]["max"] for p in points)
    assert (sketch["keep"], sketch["rule"], sketch["law"]) == (0.5, "random", "RandK(keep=0.5)")
    assert "delta" not in sketch
    assert isinstance(final["sketched_loss"], float)
    assert final["sketched_loss"] == last.get("sketched_loss", final["sketched_loss"])
    # Half of the hidden units, none of the pixels.
    assert final["group_sparsity"] == pytest.approx(10 / 84)
    # Another module, such as the shrunk one, is only evaluated.
    assert "sketch" not in run.evaluate(ow.shrink(model, run.example).model)


def test_reports_have_the_loss_under_the_law() -> None:
    run = short()
    assert run.advance(1) == {}
    metrics = run.advance(run.period)
    assert isinstance(metrics["sketched_loss"], float)
    assert isinstance(metrics["sketched_loss_stderr"], float)
    assert metrics["sketched_loss_stderr"] > 0


def test_a_resumed_run_goes_on_to_the_same_bits() -> None:
    whole = short()
    trained(whole)
    half = short()
    half.advance(half.period)
    state = half.state_dict()
    again = short()
    again.load_state_dict(state)
    assert isinstance(again.model, SketchedModule)
    assert again.model.key.step == half.period
    again.advance(again.period)
    pairs = zip(whole.finish().state_dict().values(), again.finish().state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_finetuning_ends_as_base_and_delta(tmp_path: Path) -> None:
    run = trained(recipes.mast_finetune(keep=0.1, rule="random", epochs=1, base_epochs=1, hidden=(12,), batch_size=256))
    model = run.finish()
    sketched = run.model
    assert isinstance(sketched, SketchedModule)
    base = {name: v for name, v in sketched.shifts.items() if v is not None}
    for name, x in model.named_parameters():
        assert 0 < int((x != base[name]).sum()) <= RandK(0.1).kept(x.numel())
    final = run.evaluate(model)
    delta = cast("dict[str, Any]", final["sketch"])["delta"]
    assert delta["values"] == sum(RandK(0.1).kept(x.numel()) for x in model.parameters())
    start = sketched.dense()
    start.load_state_dict(base)
    export_delta(sketched, start, tmp_path / "delta", 0.1, base_id="digits")
    loaded = load_delta(tmp_path / "delta", start)
    assert torch.equal(loaded(run.example), model(run.example))


def test_fractions_out_of_range_are_named_as_they_are_called() -> None:
    with pytest.raises(ValueError, match=r"^ratio must be above 0 and at most 1, .* got 0"):
        recipes.mast_digits(ratio=0)
    with pytest.raises(ValueError, match=r"^keep must be above 0 and at most 1, .* got 2"):
        recipes.mast_digits(keep=2)
    with pytest.raises(ValueError, match=r"^base_fraction must be above 0 and at most 1, got 0\.0"):
        recipes.mast_finetune(base_fraction=0.0)


@NEEDS_LIBSVM
def test_logistic_regression_around_a_first_model() -> None:
    run = recipes.mast_logistic(dataset="a1a", shift="erm", ratio=0.5, keep=0.5, epochs=2, batch_size=512)
    assert isinstance(run.model, SketchedModule)
    (shift, _) = run.model.shifts.values()
    assert shift is not None
    assert shift.any()
    metrics = trained(run).advance(0)
    assert metrics == {} or isinstance(metrics["sketched_loss"], float)
    weight = run.finish().get_parameter("1.weight")
    assert int((weight == shift).sum()) >= weight.numel() - RandK(0.5).kept(weight.numel())
    zero = recipes.mast_logistic(dataset="a1a", epochs=1)
    assert isinstance(zero.model, SketchedModule)
    assert set(zero.model.shifts.values()) == {None}


def test_traffic_is_that_of_the_formulas() -> None:
    # 25.6 million numbers and 8 workers, in MB.
    found = cast("dict[str, list[float]]", traffic(25_600_000, 0.125, [8])["bytes"])
    megabytes = {name: sent[0] / 1e6 for name, sent in found.items()}
    assert megabytes == pytest.approx(
        {"ring": 179.2, "replicated": 89.6, "sharded": 11.2, "server": 12.8, "rand_k": 89.6}
    )


@pytest.mark.parametrize("keep", [0.0, 1.5])
def test_a_keep_ratio_out_of_range(keep: float) -> None:
    with pytest.raises(
        ValueError, match=r"^keep must be above 0 and at most 1, the fraction that the model at the end"
    ):
        short(keep)


def test_other_bad_input() -> None:
    with pytest.raises(
        ValueError, match="ratio must be above 0 and at most 1, the fraction that each step keeps, got 2"
    ):
        recipes.mast_digits(ratio=2)
    with pytest.raises(ValueError, match=r"^sketched_run: rule must be one of"):
        short(rule="worst")  # pyright: ignore[reportArgumentType]
