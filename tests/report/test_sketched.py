"""What a report says about sketched training."""

import json
import re
from pathlib import Path

from openwork.report import write_report

RATIOS = [1.0, 0.5, 0.1]


def add_sketch(folder: Path, *, complete: bool = True) -> None:
    """Make the files of a run those of a sketched one."""
    path = folder / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for n, record in enumerate(records):
        record |= {"sketched_loss": 2.0 / (1 + n), "sketched_loss_stderr": 0.125 / (1 + n), "sketched_draws": 16}
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    if not complete:
        return
    final = json.loads((folder / "final.json").read_text())
    curve = [
        {
            "ratio": ratio,
            "accuracy": {"mean": 0.9 * ratio, "std": 0.1, "min": 0.5 * ratio, "first_quartile": 0.8 * ratio}
            | {"median": 0.9 * ratio, "third_quartile": 0.95 * ratio, "max": ratio},
        }
        for ratio in RATIOS
    ]
    traffic = {"size": 1000, "keep": 0.5, "workers": [2, 8], "bytes": {"ring": [4000.0, 7000.0], "own": [1.0, 2.0]}}
    sketch = {"keep": 0.5, "rule": "best_of", "law": "RandK(keep=0.5)", "masks": 16, "prune_curve": curve}
    final |= {"sketched_loss": 0.75, "sketched_loss_stderr": 0.0625, "sketched_draws": 16}
    final["sketch"] = {**sketch, "traffic": traffic, "delta": {"values": 103, "entries": 1000, "file_bytes": 1500}}
    (folder / "final.json").write_text(json.dumps(final))


def test_a_sketched_run(new_run) -> None:
    folder = new_run(epochs=5)
    add_sketch(folder)
    page = write_report([folder]).read_text(encoding="utf-8")
    sketch = json.loads((folder / "report.json").read_text())["runs"][0]["sketch"]
    assert (sketch["loss"], sketch["stderr"], sketch["keep"], sketch["law"]) == (0.75, 0.0625, 0.5, "RandK(keep=0.5)")
    assert sketch["ratios"] == [0.1, 0.5, 1.0]
    assert sketch["curve"]["accuracy"]["mean"] == [0.9 * ratio for ratio in (0.1, 0.5, 1.0)]
    assert sketch["traffic"]["bytes"]["ring"] == [4000.0, 7000.0]
    assert "loss under that law is 0.75 ± 0.062 (mean and standard error of 16 draws)" in page
    assert "keeps 50\u202f%: the best of several random masks by validation accuracy." in page
    assert "Validation accuracy of pruned models" in page
    assert "Validation loss under the law" in page
    assert "103 of 1,000 values, in a file of 1.50\u202fkB" in page
    assert re.search(r"all-reduce around a ring</th><td data-value=\"4000.0\">4.00\u202fkB</td>", page)
    assert "<th scope=row>own</th>" in page


def test_a_sketched_run_that_is_not_finished(new_run) -> None:
    folder = new_run(epochs=5, complete=False)
    add_sketch(folder, complete=False)
    page = write_report([folder]).read_text(encoding="utf-8")
    sketch = json.loads((folder / "report.json").read_text())["runs"][0]["sketch"]
    assert (sketch["loss"], sketch["keep"], sketch["ratios"], sketch["traffic"]) == (0.4, None, [], None)
    assert "Validation loss under the law" in page
    assert "Traffic" not in page


def test_a_run_without_sketches_says_nothing_of_them(new_run) -> None:
    folder = new_run(epochs=3)
    page = write_report([folder]).read_text(encoding="utf-8")
    assert json.loads((folder / "report.json").read_text())["runs"][0]["sketch"] is None
    assert "sketches" not in page


def test_records_of_another_kind_are_left_out(new_run) -> None:
    folder = new_run(epochs=3)
    add_sketch(folder)
    final = json.loads((folder / "final.json").read_text())
    final["sketch"] |= {"prune_curve": "none", "traffic": {"size": 5, "workers": ["two"], "bytes": {"ring": 3}}}
    (folder / "final.json").write_text(json.dumps(final))
    write_report([folder])
    sketch = json.loads((folder / "report.json").read_text())["runs"][0]["sketch"]
    assert (sketch["ratios"], sketch["curve"], sketch["traffic"]) == ([], {}, None)


def test_a_run_without_zeros_over_time_has_no_chart_of_them(new_run) -> None:
    folder = new_run(epochs=5)
    path = folder / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    kept = ("group_sparsity", "weighted_group_sparsity", "low_rank_level", "layers")
    records = [
        {k: v for k, v in record.items() if k not in kept} | {"unstructured_sparsity": 0.0} for record in records
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert "Sparsity of the structured weights" not in write_report([folder]).read_text(encoding="utf-8")
    records[-1]["unstructured_sparsity"] = 0.5
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert "Sparsity of the structured weights" in write_report([folder]).read_text(encoding="utf-8")
