"""Comparisons from beginning to end, on a task that takes no time: the table, resuming, targets, searches, mistakes."""

import errno
import json
import math
import re
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType

import pytest
import tiny_comparison
import torch
from filelock import FileLock
from tiny_comparison import LOG, Largest, Plain, samples, task
from torch import nn
from typing_extensions import override

import openwork as ow
from openwork.comparison import Method, Result, Row, Table, Task, compare, trial
from openwork.training import Run, Stopped

METHODS: Mapping[str, Method] = {"plain": Plain(), "largest": Largest()}
# What differs from one run to the next, whatever is computed.
TIMES = ("seconds", "memory_mib", "latency_ms", "speedup")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Strengths and seeds of all trainings that were begun, building a run to see whether it can be included."""
    file = tmp_path / "log.txt"
    monkeypatch.setenv(LOG, str(file))
    return lambda: file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def timeless(table: Table) -> list[Row]:
    return [replace(row, **dict.fromkeys(TIMES)) for row in table]


def test_the_table(tmp_path: Path) -> None:
    table = compare(task(), METHODS, strengths=2, seeds=2, out=tmp_path / "c")
    assert [(row.method, row.strength and row.strength.mean, row.seeds) for row in table] == [
        ("plain", 0.0, 2),
        ("largest", 2.0, 2),
        ("largest", 4.0, 2),
    ]
    plain, half, quarter = table
    weights, total = 6 * 8 + 8 * 3, 6 * 8 + 8 * 3 + 8 + 3
    for row, kept in ((plain, weights), (half, weights // 2), (quarter, weights // 4)):
        assert row.epochs == 2
        # Biases are not zero after training.
        assert row.unstructured is not None and row.unstructured.mean == pytest.approx(1 - (kept + 11) / total)
        # Shrinking may take more, which nothing reads.
        assert row.compression is not None and row.compression.mean >= total / (kept + 11) - 1e-9
        for measure in (row.accuracy, row.group, row.params, row.bytes, row.macs, row.latency_ms, row.seconds):
            assert measure is not None and math.isfinite(measure.mean) and measure.std is not None
    assert plain.params is not None and (plain.params.mean, plain.params.std) == (total, 0.0)
    assert plain.compression is not None and plain.compression.mean == 1
    assert plain.group is not None and plain.group.mean == 0
    assert table[1:] == [half, quarter] and len(table) == 3
    ours = [r for r in table.results if r.cell.method == "largest" and r.cell.strength == 2]
    assert half.accuracy is not None
    accuracies = [r.accuracy or 0.0 for r in ours]
    assert half.accuracy.mean == pytest.approx(sum(accuracies) / 2)
    assert half.accuracy.std == pytest.approx(abs(accuracies[0] - accuracies[1]) / math.sqrt(2))
    printed = str(table).splitlines()
    assert printed[0].startswith("method") and printed[0].endswith("MiB")
    assert len(printed) == 4


def test_results_are_finished_networks(tmp_path: Path) -> None:
    table = compare(task(), {"largest": Largest()}, strengths=[8.0], seeds=1, out=tmp_path / "c")
    (result,) = table.results
    folder = tmp_path / "c" / "runs" / "largest-8-s0"
    model = ow.load(folder / "small.safetensors", into=task().model(0))
    data = samples(0).test
    accuracy = float((model.eval()(data.inputs).argmax(-1) == data.targets).double().mean())
    assert accuracy == pytest.approx(result.accuracy)
    assert sum(p.numel() for p in model.parameters()) == result.params[1] < result.params[0]
    # What is left is counted, not what was zero before: shrinking also takes nonzero weights that nothing reads.
    assert sum(int(p.count_nonzero()) for p in model.parameters()) == result.nonzero < 9 + 11
    assert result.bytes[1] == (folder / "small.safetensors").stat().st_size
    assert {"0.weight", "2.weight"} == {*result.layers} or len(result.layers) == 2
    assert sum(count for count, _ in result.layers.values()) == 9
    assert all(after <= before for before, after in result.widths.values()) and result.widths
    assert result.curves["epoch"] == [1, 2]
    assert len(result.curves["valid_accuracy"]) == 2
    # What only resuming needs is gone, and so is the dense network.
    assert sorted(path.name for path in folder.iterdir()) == ["cell.json", "metrics.jsonl", "small.safetensors"]


def test_the_file_for_reports(tmp_path: Path) -> None:
    table = compare(task(), METHODS, strengths=1, seeds=1, out=tmp_path / "c")
    found = json.loads((tmp_path / "c" / "comparison.json").read_text(encoding="utf-8"))
    assert (found["schema"], found["task"], found["budget"]) == (1, "tiny", "2 epochs")
    assert found["machine"]["threads"] == torch.get_num_threads()
    assert [Result.from_json(result) for result in found["results"]] == list(table.results)
    assert [row["method"] for row in found["rows"]] == ["plain", "largest"]
    # Three megabytes are enough for a hundred runs.
    assert len(json.dumps(found["results"])) / len(found["results"]) < 30_000


def test_methods_of_earlier_calls_are_described(tmp_path: Path) -> None:
    for name, method in METHODS.items():
        compare(task(), {name: method}, strengths=1, seeds=1, out=tmp_path / "c")
    said = json.loads((tmp_path / "c" / "comparison.json").read_text(encoding="utf-8"))["methods"]
    assert {name: (one["baseline"], one["about"]) for name, one in said.items()} == {
        "plain": (True, "SGD, nothing removed."),
        "largest": (
            False,
            "SGD, then the largest entries of the weights: one in ``strength`` of them, if ``faithful``.",
        ),
    }


@dataclass(frozen=True)
class LowRank(Plain):
    """The first weight has rank one, and one of its entries is zero."""

    @override
    def run(self, task: Task, strength: float, epochs: int, seed: int) -> Run:
        run = super().run(task, strength, epochs, seed)

        def finish() -> nn.Module:
            model = run.finish()
            weight = next(p for p in model.parameters() if p.ndim > 1)
            with torch.no_grad():
                weight.copy_(torch.outer(torch.arange(1.0, 9), torch.ones(6)))
                weight[0, 0] = 0.0
            return model

        return replace(run, finish=finish)


def test_a_layer_of_low_rank_is_said_where_it_makes_a_network_small(tmp_path: Path) -> None:
    (result,) = compare(task(), {"low": LowRank()}, seeds=1, out=tmp_path / "c").results
    (note,) = result.notes
    assert note.startswith("layers of low rank were split in two: ") and note.endswith(" (rank 2 of 6)")
    assert result.params == (83, 83 - 48 + 2 * (8 + 6))
    assert result.unstructured == pytest.approx(1 / 83)
    assert result.compression > 83 / 64


def test_what_is_not_finished_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from openwork.comparison import work

    def stopped(*_: object) -> None:
        raise Stopped(15, "everything is saved")

    def called() -> Table:
        return compare(task(), {"largest": Largest()}, strengths=3, seeds=1, out=tmp_path / "c")

    train, count = work.train_cell, [0]

    def second_stops(*args: object) -> Result:
        count[0] += 1
        return stopped() if count[0] == 2 else train(*args)  # pyright: ignore[reportReturnType, reportArgumentType]

    monkeypatch.setattr(work, "train_cell", second_stops)
    with pytest.raises(Stopped):
        called()
    said = json.loads((tmp_path / "c" / "comparison.json").read_text(encoding="utf-8"))
    assert said["finished"] is False
    assert said["notes"] == [
        "this comparison is not finished: 1 of 3 networks are trained or have failed; the same call goes on with it"
    ]
    table = called()
    assert (table.finished, table.notes) == (True, [])


def test_a_stop_before_a_training_begins_is_heard(tmp_path: Path, log: Callable[[], list[str]]) -> None:
    def hear(what: str) -> None:
        if what == "looking for work":
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped):
        compare(task(), {"plain": Plain()}, seeds=1, out=tmp_path / "c", said=hear)
    assert log() == ["1 0"]  # to see whether the method fits


def test_notebooks_show_what_there_is(tmp_path: Path) -> None:
    table = compare(task(), METHODS, strengths=1, seeds=1, out=tmp_path / "c")
    assert table.baselines == ["plain"]
    assert "mark hollow" in table._repr_html_()
    empty = replace(table, rows=[], notes=["<nothing> yet"])
    assert empty._repr_html_().endswith("note: &lt;nothing&gt; yet</pre>")


def test_a_second_call_computes_nothing(tmp_path: Path, log: Callable[[], list[str]]) -> None:
    first = compare(task(), METHODS, strengths=2, seeds=1, out=tmp_path / "c")
    done = log()
    second = compare(task(), METHODS, strengths=2, seeds=1, out=tmp_path / "c")
    assert log() == done
    assert list(second) == list(first)
    assert second.results == first.results


def test_more_seeds_and_methods_come_on_top(tmp_path: Path, log: Callable[[], list[str]]) -> None:
    compare(task(), {"largest": Largest()}, strengths=1, seeds=1, out=tmp_path / "c")
    before = len(log())
    table = compare(task(), {"plain": Plain()}, strengths=1, seeds=2, out=tmp_path / "c")
    # A new method is built once to see whether it fits.
    assert log()[before:] == ["1 0", "1 0", "1 1"]
    assert [(row.method, row.seeds) for row in table] == [("largest", 1), ("plain", 2)]


def test_a_comparison_that_crashes_goes_on_to_the_same_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Callable[[], list[str]]
) -> None:
    whole = compare(task(), METHODS, strengths=2, seeds=1, out=tmp_path / "whole")
    done = len(log())
    save, count = trial.save, [0]

    def failing(*args: object, **kwargs: object) -> None:
        count[0] += 1
        if count[0] == 4:
            raise OSError(errno.ENOSPC, "No space left on device", "small.safetensors")
        save(*args, **kwargs)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(trial, "save", failing)
    with pytest.raises(OSError, match="No space left on device"):
        compare(task(), METHODS, strengths=2, seeds=1, out=tmp_path / "c")
    kept = json.loads((tmp_path / "c" / "comparison.json").read_text(encoding="utf-8"))
    assert len(kept["results"]) == 1
    resumed = compare(task(), METHODS, strengths=2, seeds=1, out=tmp_path / "c")
    assert timeless(resumed) == timeless(whole)
    # Two runs are built to see whether the methods fit; of the cells the second is begun twice, from its checkpoint.
    assert sorted(log()[done:]) == ["1 0", "1 0", "2 0", "2 0", "4 0", "4 0"]


def test_a_file_that_cannot_be_written_stops_the_comparison_and_keeps_what_is_finished(
    tmp_path: Path, log: Callable[[], list[str]]
) -> None:
    wide = replace(task(), model=lambda seed: tiny_comparison.mlp((6, 400 if seed else 8, 300, 3), seed=seed))

    def called() -> Table:
        return compare(wide, {"plain": Plain()}, seeds=2, out=tmp_path / "c")

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"^cannot write .*plain-0-s1.checkpoint.pt: File too large; free some space"):
            called()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = json.loads((tmp_path / "c" / "comparison.json").read_text(encoding="utf-8"))
    assert (len(said["results"]), said["finished"]) == (1, False)
    assert called()[0].seeds == 2
    # One run is built to see whether the method fits.
    assert log() == ["1 0", "1 0", "1 1", "1 1"]


def test_a_cell_does_not_depend_on_those_before_it(tmp_path: Path) -> None:
    noisy = replace(task(), model=lambda seed: nn.Sequential(nn.Dropout(0.5), *task().model(seed).children()))
    both = compare(noisy, {"a": Plain(), "b": Plain()}, seeds=1, out=tmp_path / "both")
    assert both[0].loss == both[1].loss


def test_a_cell_that_fails_is_said_and_the_others_go_on(tmp_path: Path, log: Callable[[], list[str]]) -> None:
    methods = {"largest": Largest(diverges=4.0)}
    table = compare(task(), methods, strengths=3, seeds=2, out=tmp_path / "c")
    assert [(row.strength and row.strength.mean, row.seeds, len(row.failures)) for row in table] == [
        (2.0, 2, 0),
        (4.0, 0, 2),
        (8.0, 0, 2),
    ]
    assert table[1].failures[0] == "seed 0: training diverged: the test says so"
    assert "failed: largest-8-s1: training diverged: the test says so" in str(table).splitlines()
    assert "FloatingPointError" in (tmp_path / "c" / "runs" / "largest-4-s0" / "crash.txt").read_text()
    done = log()
    compare(task(), methods, strengths=3, seeds=2, out=tmp_path / "c")
    assert log() == done


def test_what_failed_is_trained_again_on_demand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Callable[[], list[str]]
) -> None:
    broken = [True]

    def inputs(seed: int) -> nn.Module:
        if broken[0] and seed == 1:
            raise ZeroDivisionError("a mistake in the task")
        return task().model(seed)

    def called(retry: bool = False) -> Table:
        own = replace(task(), model=inputs)
        return compare(own, {"largest": Largest()}, strengths=1, seeds=2, out=tmp_path / "c", retry=retry)

    table = called()
    assert [(f.cell.name, f.reason) for f in table.failures] == [
        ("largest-2-s1", "ZeroDivisionError: a mistake in the task")
    ]
    broken[0] = False
    assert called().failures == table.failures
    before = log()
    table = called(retry=True)
    assert (table[0].seeds, table.failures, log()[len(before) :]) == (2, [], ["2 1"])
    called(retry=True)
    assert log()[len(before) :] == ["2 1"]


def test_what_was_left_out_is_tried_again_on_demand(tmp_path: Path) -> None:
    methods, search = {"largest": Largest(diverges=0.0)}, 2
    assert len(compare(task(), methods, strengths=1, seeds=1, search=search, out=tmp_path / "c")) == 0
    table = compare(task(), methods, strengths=1, seeds=1, search=search, out=tmp_path / "c", retry=True)
    assert len(table) == 0 and table.notes[0].startswith("largest is left out: all trials of the search failed")


def test_weights_that_are_not_finite_are_a_failure(tmp_path: Path) -> None:
    table = compare(task(), {"plain": Plain(lr=1e30)}, seeds=1, out=tmp_path / "c")
    assert table[0].failures == ("seed 0: training diverged: weights or loss are not finite in the end",)


def test_two_processes_are_never_in_one_folder(tmp_path: Path, log: Callable[[], list[str]]) -> None:
    runs = tmp_path / "c" / "runs"
    heard: list[str] = []

    def hear(what: str) -> None:
        first = what.startswith("plain-0-s0, ") and what not in heard
        heard.append(what)
        if first:
            # Another process, which was thought dead, is at it.
            runs.mkdir(exist_ok=True)
            other.acquire()
        elif "still being trained" in what:
            assert log() == ["1 0"]
            other.release()

    other = FileLock(runs / ".plain-0-s0.lock")
    table = compare(task(), {"plain": Plain()}, seeds=1, out=tmp_path / "c", said=hear)
    assert "plain-0-s0 is still being trained by a process that had fallen silent" in heard
    assert (table[0].seeds, log()) == (1, ["1 0", "1 0"])
    assert [path.name for path in runs.iterdir()] == ["plain-0-s0"]


# -- budgets --------------------------------------------------------------------------------------------------------


def test_a_time_is_as_many_epochs_for_every_worker(tmp_path: Path) -> None:
    table = compare(task(), METHODS, strengths=1, seeds=1, seconds=0.3, out=tmp_path / "c")
    epochs = [row.epochs for row in table]
    assert all(count > 2 for count in epochs)
    again = compare(task(), METHODS, strengths=1, seeds=2, seconds=0.3, out=tmp_path / "c")
    assert [row.epochs for row in again] == epochs
    assert {result.cell.epochs for result in again.results if result.cell.method == "plain"} == {epochs[0]}


def test_a_time_below_an_epoch_leaves_the_method_out(tmp_path: Path) -> None:
    table = compare(task(), METHODS, strengths=1, seeds=1, seconds=1e-6, out=tmp_path / "c")
    assert len(table) == 0
    assert table.notes[0].startswith("largest is left out: one epoch takes 0.0")
    assert table.notes[0].endswith(" s, which is more than the budget")


def test_a_budget_of_time_that_was_not_kept_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openwork.comparison.plan.seconds_per_epoch", lambda *_: 1e-4)
    table = compare(task(), {"plain": Plain()}, seeds=1, seconds=1e-3, out=tmp_path / "c")
    assert table[0].epochs == 10
    assert table[0].seconds is not None
    assert list(table.notes) == [f"longer than the 0.001 s were trained: plain ({table[0].seconds.mean:.3g} s)"]


def test_networks_of_several_machines_are_not_compared_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def called(machine: str, seeds: int) -> Table:
        monkeypatch.setattr(trial, "machine", lambda: {"cpu": machine})
        return compare(task(), {"plain": Plain()}, seeds=seeds, out=tmp_path / "c")

    first = called("old", 1)
    assert (first.notes, first.results[0].trained_on, first.results[0].timed_on) == ([], "cpu: old", "cpu: old")
    second = called("new", 2)
    assert [r.timed_on for r in second.results] == ["cpu: old", "cpu: new"]
    assert list(second.notes) == [
        f"networks were {what} on different machines, compare times within one: cpu: new; cpu: old"
        for what in ("trained", "timed")
    ]


# -- targets --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Knowing(Largest):
    """Knows which strength leaves how much."""

    @override
    def strength_at(self, task: Task, density: float) -> float | None:
        return 72 / (83 * density - 11)


def test_a_density_is_met_by_the_strength_alone(tmp_path: Path) -> None:
    methods = {"plain": Plain(), "largest": Largest(), "knowing": Knowing()}
    table = compare(task(), methods, target="density=0.4", seeds=2, out=tmp_path / "c")
    assert [(row.method, row.seeds) for row in table] == [("plain", 2), ("largest", 2), ("knowing", 2)]
    for row in table[1:]:
        assert row.compression is not None
        assert 1 / row.compression.mean == pytest.approx(0.4, rel=0.05)
        assert row.notes == ()
    probes = [sum(r.cell.method == name for r in table.results) for name in methods]
    assert probes[0] == 2
    assert all(2 < count <= 14 for count in probes[1:])
    # Shrinking takes more, which the method does not know.
    first = next(r.cell.strength for r in table.results if r.cell.method == "knowing")
    assert first == pytest.approx(72 / (83 * 0.4 - 11), rel=1e-5)


def test_a_target_goes_on_where_it_was(tmp_path: Path, log: Callable[[], list[str]]) -> None:
    first = compare(task(), {"largest": Largest()}, target="density=0.4", seeds=1, out=tmp_path / "c")
    done = log()
    second = compare(task(), {"largest": Largest()}, target="density=0.4", seeds=1, out=tmp_path / "c")
    assert (list(second), log()) == (list(first), done)


def test_what_cannot_be_met_is_said(tmp_path: Path) -> None:
    # A single one of 83 parameters is more.
    table = compare(task(), {"largest": Largest()}, target="density=0.01", seeds=1, out=tmp_path / "c")
    (note,) = table[0].notes
    said = r"seed 0: density=0.01 was not met with \d+ networks, the nearest is density=0.0\d+ at strength [\d.]+"
    assert re.fullmatch(said, note)
    assert f"largest: {note}" in str(table).splitlines()


# -- searches -------------------------------------------------------------------------------------------------------


def test_settings_are_searched_without_the_test_samples(tmp_path: Path, log: Callable[[], list[str]]) -> None:
    seen: list[int] = []

    class Watched(nn.Sequential):
        @override
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            seen.append(len(input))
            return super().forward(input)

    # The test samples alone are seven.
    def data(seed: int) -> ow.data.Data:
        found = samples(seed)
        return replace(found, test=found.test.take(torch.arange(7)))

    watched = replace(task(), model=lambda seed: Watched(*task().model(seed).children()), data=data)
    phases: list[tuple[str, int]] = []
    table = compare(
        watched,
        {"largest": Largest(lr=1e-6)},
        strengths=1,
        seeds=2,
        search=3,
        out=tmp_path / "c",
        said=lambda what: phases.append((what, len(seen))),
    )
    starts = [count for what, count in phases if what.startswith("largest-2-s0")]
    assert 7 not in seen[: starts[0]]
    assert 7 in seen[starts[0] :]
    assert len(table.searched) == 3
    # Next to nothing is learned at the method's own rate.
    assert all(result.cell.settings == table[0].settings for result in table.results)
    assert table[0].settings["lr"] != 1e-6
    accuracy = max(s.valid_accuracy or 0.0 for s in table.searched)
    chosen = next(s for s in table.searched if s.cell.settings == table[0].settings)
    assert chosen.valid_accuracy == accuracy
    assert "trials: largest 3" in table.notes[0]
    done = log()
    compare(watched, {"largest": Largest(lr=1e-6)}, strengths=1, seeds=2, search=3, out=tmp_path / "c")
    assert log() == done


def test_a_search_of_failures_leaves_the_method_out(tmp_path: Path) -> None:
    table = compare(task(), {"largest": Largest(diverges=0.0)}, strengths=1, seeds=1, search=2, out=tmp_path / "c")
    assert table.notes[0] == (
        "largest is left out: all trials of the search failed: training diverged: the test says so"
    )


def test_methods_without_ranges_are_not_searched(tmp_path: Path) -> None:
    table = compare(task(), {"plain": Plain()}, seeds=1, search=5, out=tmp_path / "c")
    assert (len(table), len(table.searched)) == (1, 0)


# -- names ----------------------------------------------------------------------------------------------------------


def test_tasks_and_methods_by_import_path() -> None:
    table = compare("tiny_comparison:task", ["tiny_comparison:largest", Plain()], strengths=1, seeds=1)
    assert [row.method for row in table] == ["tiny_comparison:largest", "plain"]
    assert table.folder == Path("runs/compare-tiny")
    assert (table.folder / "runs" / "tiny_comparison-largest-2-s0").is_dir()


def test_the_function_at_the_top() -> None:
    assert ow.compare is compare


def test_a_data_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = compare(task(), METHODS, strengths=1, seeds=1, out=tmp_path / "c")
    monkeypatch.setitem(sys.modules, "pandas", None)  # as if it were not installed, whether it is or not
    with pytest.raises(ModuleNotFoundError, match="to_pandas needs pandas, which is not installed; pip install pandas"):
        table.to_pandas()
    pandas = ModuleType("pandas")
    pandas.DataFrame = list  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    frame = table.to_pandas()
    assert [record["method"] for record in frame] == ["plain", "largest"]
    assert frame[1]["compression"] == table.results[1].compression > 1
    assert frame[1]["compression_std"] is None
    assert frame[1]["settings"] == {"lr": 0.1, "diverges": 1e9}


# -- mistakes -------------------------------------------------------------------------------------------------------


class Fitless(Largest):
    @override
    def run(self, task: Task, strength: float, epochs: int, seed: int) -> Run:
        raise ValueError("regularize: Sequential has no parameter left to penalize")


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"^there is no task 'digts'; did you mean digits\?$"):
        compare("digts")
    with pytest.raises(ValueError, match=r"^there is no method 'ramdaa'; did you mean ramda or "):
        compare(task(), ["ramdaa"])
    with pytest.raises(ValueError, match=r"^there is no method 'zzz'; there are acdc, dense, "):
        compare(task(), ["zzz"])
    with pytest.raises(ValueError, match=r"^there is no task 'tiny_comparison:tsk'; did you mean task"):
        compare("tiny_comparison:tsk")
    with pytest.raises(TypeError, match=r"^task tiny_comparison:number must be an openwork.comparison.Task, got int$"):
        compare("tiny_comparison:number")
    with pytest.raises(TypeError, match=r"^method tiny_comparison:number must be an openwork.comparison.Method, got"):
        compare(task(), ["tiny_comparison:number"])
    with pytest.raises(ValueError, match=r"^compare: two methods are called plain; pass a dictionary"):
        compare(task(), [Plain(), Plain(lr=0.2)])
    assert not Path("runs").exists()


def test_a_method_that_does_not_fit_is_refused_if_it_was_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^method fitless does not fit task tiny: regularize: Sequential has no para"):
        compare(task(), [Fitless()], strengths=1, seeds=1, out=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_methods_that_do_not_fit_are_left_out_if_all_are_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from openwork.comparison import methods

    monkeypatch.setattr(methods, "__all__", ["plain", "fitless"])
    monkeypatch.setattr(methods, "plain", Plain, raising=False)
    monkeypatch.setattr(methods, "fitless", Fitless, raising=False)
    with pytest.warns(UserWarning, match=r"^method fitless is left out of task tiny: regularize: Sequential has no"):
        table = compare(task(), strengths=1, seeds=1, out=tmp_path / "c")
    assert [row.method for row in table] == ["plain"]
    said = "fitless is left out: regularize: Sequential has no parameter left to penalize"
    assert list(table.notes) == [said]
    assert ow.files.read_json(tmp_path / "c" / "comparison.json")["notes"] == [said]
    # It is known by now.
    assert list(compare(task(), strengths=1, seeds=1, out=tmp_path / "c").notes) == [said]
    # Except where it shall be tried again.
    monkeypatch.setattr(methods, "fitless", Largest, raising=False)
    again = compare(task(), strengths=1, seeds=1, out=tmp_path / "c", retry=True)
    assert ([row.method for row in again], again.notes) == (["plain", "fitless"], [])


def test_a_task_that_no_method_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from openwork.comparison import methods

    @dataclass(frozen=True)
    class Broken(Largest):
        @override
        def run(self, task: Task, strength: float, epochs: int, seed: int) -> Run:
            raise RuntimeError("mat1 and mat2 shapes\ncannot be multiplied")

    monkeypatch.setattr(methods, "__all__", ["broken"])
    monkeypatch.setattr(methods, "broken", Broken, raising=False)
    said = r"^compare: no method fits task tiny; the first one says: mat1 and mat2 shapes cannot be multiplied$"
    with pytest.warns(UserWarning, match="broken is left out"), pytest.raises(ValueError, match=said):
        compare(task(), out=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_method_that_does_not_fit_leaves_a_comparison_as_it_was(begun: tuple[Path, str]) -> None:
    folder, before = begun
    with pytest.raises(ValueError, match=r"^method fitless does not fit task tiny: "):
        compare(task(), {"plain": Plain(), "fitless": Fitless()}, strengths=1, seeds=1, out=folder)
    assert (folder / "comparison.json").read_text(encoding="utf-8") == before


def test_a_network_without_groups_is_no_task_for_a_structured_method(tmp_path: Path) -> None:
    frozen = replace(task(), model=lambda seed: tiny_comparison.mlp((6, 3), seed=seed).requires_grad_(False))
    with pytest.raises(ValueError, match=r"^method ramda does not fit task tiny: .* has no parameter left to penalize"):
        compare(frozen, ["ramda"], strengths=1, seeds=1, out=tmp_path / "c")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epochs": 3}, "begun with budget 2 epochs and cannot go on with 3 epochs; ask for the same, or choose"),
        ({"seconds": 5.0}, "begun with budget 2 epochs and cannot go on with 5 s; ask for the same, or choose"),
        ({"strengths": 2}, "begun with strengths 1 and cannot go on with 2; "),
        ({"strengths": [1.0, 2.0]}, "begun with strengths 1 and cannot go on with [1.0, 2.0]; "),
        ({"target": "macs=0.5"}, "begun with target None and cannot go on with macs=0.5; "),
        ({"search": 2}, "begun with search 0 and cannot go on with 2; "),
        ({"methods": {"plain": Plain(lr=0.5)}}, "begun with lr of plain 0.1 and cannot go on with 0.5; "),
        ({"task": replace(task(), name="other")}, "begun with task tiny and cannot go on with other; "),
        ({"task": replace(task(), batch_size=5)}, "begun with batch size 20 and cannot go on with 5; "),
        (
            {"task": replace(task(), model=lambda seed: tiny_comparison.mlp((6, 9, 3), seed=seed))},
            "begun with parameters 83 and cannot go on with 93; ",
        ),
        (
            {"task": replace(task(), data=lambda seed: replace(samples(seed), train=samples(seed).valid))},
            "begun with training samples 60 and cannot go on with 20; ",
        ),
    ],
    ids=[
        *("epochs", "seconds", "strengths", "grid", "target", "search", "settings", "task", "batch", "model", "data"),
    ],
)
def test_one_study_is_one_comparison(begun: tuple[Path, str], change: dict[str, object], sentence: str) -> None:
    folder, before = begun
    asked: dict[str, object] = {"task": task(), "methods": {"plain": Plain()}, "strengths": 1, "seeds": 1, **change}
    with pytest.raises(ValueError, match="cannot go on") as error:
        compare(**asked, out=folder)  # pyright: ignore[reportArgumentType]
    assert sentence in str(error.value)
    assert (folder / "comparison.json").read_text(encoding="utf-8") == before


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("begun")
    compare(task(), {"plain": Plain()}, strengths=1, seeds=1, out=folder)
    return folder, (folder / "comparison.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"strengths": 0}, "compare: strengths must be at least 1, got 0"),
        ({"strengths": []}, "compare: strengths must be a number of them, or some above 0, got []"),
        ({"strengths": [1.0, -1.0]}, "compare: strengths must be a number of them, or some above 0, got [1.0, -1.0]"),
        ({"seeds": 0}, "compare: seeds must be at least 1, got 0"),
        ({"epochs": 0}, "compare: epochs must be at least 1, got 0"),
        ({"seconds": 0.0}, "compare: seconds must be above 0, got 0"),
        ({"epochs": 1, "seconds": 1.0}, "compare: the budget is either epochs or seconds; leave one of them out"),
        ({"search": -1}, "compare: search must be at least 0, got -1"),
        ({"methods": []}, "compare: methods is empty; name at least one, or leave it out for all"),
        ({"target": "density=7"}, "target: density must be between 0 and 1, a fraction of the dense network's, got 7"),
        (
            {"storage": "sqlite:////nowhere/at/all.db"},
            "storage 'sqlite:////nowhere/at/all.db' cannot be used (unable to open database file); check the URL, such "
            "as postgresql://user@host/database, that the server answers and that its Python driver is installed, or "
            "leave it out for a file in the folder",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_arguments_out_of_range(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        compare(**{"task": task(), "methods": {"plain": Plain()}, **arguments})  # pyright: ignore[reportArgumentType]


def test_a_search_needs_validation_samples() -> None:
    blind = replace(task(), data=lambda seed: replace(samples(seed), valid=samples(seed).valid.none()))
    with pytest.raises(ValueError, match=r"^compare: search chooses settings on validation samples, and task tiny has"):
        compare(blind, METHODS, search=2)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="c is not empty and holds no comparison; choose another"):
        compare(task(), METHODS, out=tmp_path / "c")
    with pytest.raises(ValueError, match=r"letter.txt is a file; choose another"):
        compare(task(), METHODS, out=tmp_path / "c" / "letter.txt")


@pytest.mark.parametrize(
    ("strengths", "note"),
    [
        (
            [1.0, 1.0001],
            "largest: strengths 1 to 1 leave the network dense, at most 0.00% of the parameters are zero; try 1 to 100",
        ),
        ([1e3, 1e4], "largest: strengths 1e+03 to 1e+04 leave nothing of the network; try 10 to 1e+03"),
        (
            [1.0, 1e4],
            "largest: strengths 1 to 1e+04 leave the network dense or leave nothing of it; try 1 to 1e+04",
        ),
        ([2.0, 1e4], None),
    ],
    ids=["dense", "empty", "dense or empty", "something"],
)
def test_a_path_of_strengths_that_shows_nothing_is_said(
    tmp_path: Path, strengths: list[float], note: str | None
) -> None:
    table = compare(task(), {"largest": Largest()}, strengths=strengths, seeds=1, out=tmp_path / "c")
    assert list(table.notes) == ([] if note is None else [note])


def test_records_of_another_cell_are_not_gone_on_with(tmp_path: Path) -> None:
    compare(task(), {"plain": Plain()}, seeds=1, out=tmp_path / "c")
    for name in ("study.db", "comparison.json"):
        (tmp_path / "c" / name).unlink()
    (tmp_path / "c" / "study.db").touch()
    table = compare(task(), {"plain": Plain(lr=0.5)}, seeds=1, out=tmp_path / "c")
    fresh = compare(task(), {"plain": Plain(lr=0.5)}, seeds=1, out=tmp_path / "d")
    assert timeless(table) == timeless(fresh)
    assert asdict(Plain(lr=0.5)) == dict(table[0].settings)
