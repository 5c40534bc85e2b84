"""What the README claims is what the code does: its example runs, and its numbers are the committed ones."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import openwork as ow
from benchmarks.readme_table import BEGIN, END, NOTHING_YET, README, RESULTS, cell, rewrite

TABLE = {
    "title": "Step time",
    "columns": ["optimizer", "ms", "ratio"],
    "rows": [["AdamW", 12.3456, 1], ["a|b", None, 2]],
    "note": "Medians of 50 steps.",
    "command": "make step_time",
    "machine": "2 cores",
}


def example(containing: str = "") -> str:
    """The first Python example of the README that contains some text."""
    found = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return next(text for text in found if containing in text)


def test_the_example_runs_and_leaves_exact_zeros(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(compile(example(), "README example", "exec"), names)
    model, pixels, digits = names["model"], names["pixels"], names["digits"]
    unused = (model[0].weight == 0).all(dim=0)
    assert 0 < unused.sum() < unused.numel()
    accuracy = (model(pixels).argmax(1) == digits).double().mean()
    assert accuracy > 0.9
    assert f"{int((~unused).sum())} of 64" in capsys.readouterr().out


def test_alternating_minimization_runs_and_leaves_exact_zeros() -> None:
    samples, _, _ = example().partition("model =")
    names: dict[str, Any] = {}
    exec(compile(samples + example("AMTrainer"), "README example of altmin", "exec"), names)
    model, inputs, digits = names["model"], names["inputs"], names["digits"]
    used = int(model[2].weight.any(dim=0).sum())
    assert 0 < used < 100
    assert names["shrunk"].model[0].out_features == used
    assert (model(inputs).argmax(1) == digits).double().mean() > 0.9


def test_a_comparison_of_an_own_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(part: str) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(len(part))
        targets = torch.arange(120) % 3
        return torch.randn(120, 6, generator=generator) + 3 * torch.nn.functional.one_hot(targets, 6), targets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("openwork.comparison.timing.SECONDS", 0.005)
    names: dict[str, Any] = {"load": load, "build": lambda seed: ow.models.mlp((6, 8, 3), seed=seed)}
    shorter = example("Task(").replace("epochs=20", "epochs=2").replace("strengths=3, seeds=2", "strengths=1, seeds=1")
    exec(compile(shorter, "README example of a comparison", "exec"), names)
    assert [row.method for row in names["table"]] == ["dense", "ramda", "magnitude_finetune"]
    assert [path.name[:-3] for path in tmp_path.glob("runs/compare-mine/runs/dense*")] == ["dense-0"]


def test_the_example_is_twenty_lines() -> None:
    lines = [line for line in example().splitlines() if line.strip()]
    assert len(lines) <= 20


def test_the_numbers_are_the_committed_ones() -> None:
    readme = README.read_text(encoding="utf-8")
    assert readme == rewrite(readme, RESULTS), (
        "README.md is behind benchmarks/results: python benchmarks/readme_table.py"
    )


def test_no_results_are_said_to_be_none(tmp_path: Path) -> None:
    assert rewrite(f"before\n{BEGIN} old {END}\nafter", tmp_path) == f"before\n{BEGIN}\n\n{NOTHING_YET}\n\n{END}\nafter"


def test_a_table_comes_with_its_note_and_origin(tmp_path: Path) -> None:
    (tmp_path / "step_time.json").write_text(json.dumps(TABLE), encoding="utf-8")
    written = rewrite(f"{BEGIN}{END}", tmp_path)
    assert written == rewrite(written, tmp_path)
    assert written.splitlines()[2:-2] == [
        "### Step time",
        "",
        "| optimizer | ms | ratio |",
        "| --- | --: | --: |",
        "| AdamW | 12.35 | 1 |",
        r"| a\|b | – | 2 |",
        "",
        "Medians of 50 steps.",
        "",
        "Written by `make step_time` on 2 cores.",
    ]


def test_a_picture_is_shown_under_its_table(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(TABLE | {"picture": "a.svg"}), encoding="utf-8")
    assert "![Step time](benchmarks/results/a.svg)" in rewrite(f"{BEGIN}{END}", tmp_path)


def test_a_table_without_its_machine_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({k: v for k, v in TABLE.items() if k != "machine"}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.json: machine missing; run the script that writes it again"):
        rewrite(f"{BEGIN}{END}", tmp_path)


def test_a_ragged_row_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(TABLE | {"rows": [["AdamW"]]}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.json: row \['AdamW'\] has 1 cells for 3 columns"):
        rewrite(f"{BEGIN}{END}", tmp_path)


def test_lost_markers_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"README\.md: the results need the lines"):
        rewrite("no markers here", tmp_path)


@pytest.mark.parametrize(("value", "text"), [(0.5, "0.5"), (91.2601, "91.26"), (3e-7, "3e-07"), (12, "12"), ("x", "x")])
def test_cells_keep_four_digits(value: float | str, text: str) -> None:
    assert cell(value) == text
