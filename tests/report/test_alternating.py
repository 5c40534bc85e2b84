"""What a report says about alternating minimization."""

import json
from pathlib import Path
from typing import Any

from openwork.report import write_report


def make_alternating(folder: Path, *, complete: bool = True, **changed: object) -> dict[str, Any]:
    """Make the files of a run those of alternating minimization, and report it; what the report says."""
    path = folder / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    kept = ("train_loss", "valid_loss", "valid_accuracy", "group_sparsity", "layers", "params")
    records = [
        {key: record[key] for key in kept}
        | {
            "unit": 5 * n,
            "sweep": 5 * n,
            "objective": 800.0 / n,
            "surrogate_loss": 0.5 / n,
            "link_residual": [0.1 / n, 0.2 / n, 0.3 / n],
            "coupling_gap": [0.0, 0.0],
            "weight_norm": [9.0, 8.0, 7.0],
            "rho": 0.1,
            "restarts": n // 3,
            "seconds": 2.5 * n,
        }
        | {key: value(n) for key, value in changed.items() if callable(value)}
        for n, record in enumerate(records, start=1)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    if complete:
        final = json.loads((folder / "final.json").read_text())
        final["alternating"] = {"chosen_sweep": 15, "refitted": True, "zero_inputs": [2, 5]}
        final["inputs"] = {"informative": [3, 4], "noise": [1, 6]}
        (folder / "final.json").write_text(json.dumps(final))
    write_report([folder])
    return json.loads((folder / "report.json").read_text())["runs"][0]


def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_a_run_of_sweeps(new_run) -> None:
    folder = new_run(epochs=4)
    said = make_alternating(folder)
    found = said["alternating"]
    assert (said["clock"], said["curves"]["sweep"]) == ("sweep", [5, 10, 15, 20])
    assert (found["sweeps"], found["restarts"], found["sweep_seconds"], found["chosen_sweep"]) == (20, 1, 0.5, 15)
    assert found["layers"]["link_residual"][1] == [0.2, 0.1, 0.2 / 3, 0.05]
    assert [len(found["layers"][name]) for name in ("link_residual", "coupling_gap", "weight_norm")] == [3, 2, 3]
    assert said["curves"]["objective"] == [800.0, 400.0, 800.0 / 3, 200.0]
    text = page(folder)
    assert "20 sweeps over all blocks, 500\u202fms each with its evaluation." in text
    assert "1 updates raised the objective" not in text
    assert "1 update raised the objective and was repeated without inertia." in text
    assert "is that of sweep 15, the one with the smallest validation loss, and its last layer was refitted" in text
    assert "0.125 for its surrogate" in text
    for title in ("Objective", "Residuals of the links", "Norms of the weights", "Time of a sweep", "Repeated updates"):
        assert title in text
    for title in ("Gap of the couplings", "Weight of the links"):  # always 0, always the same
        assert title not in text
    assert "All weights of 2 inputs are exactly zero, so the network does not read them: numbers 2, 5." in text
    assert "Of 4 inputs that matter it reads 3, of 6 that do not 1." in text


def test_zeros_are_those_of_the_weights(new_run) -> None:
    said = make_alternating(new_run(epochs=4))
    (groups,) = (result for result in said["results"] if result["key"] == "group_sparsity")
    assert groups["weights"] is not None
    assert groups["structured"] is None


def test_changes_of_rho_and_gaps_are_drawn(new_run) -> None:
    folder = new_run(epochs=4)
    make_alternating(
        folder,
        complete=False,
        rho=lambda n: 0.1 if n < 3 else 0.2,
        coupling_gap=lambda n: [0.5 / n, 0.0],
        restarts=lambda n: 0,
    )
    text = page(folder)
    assert "or a change of rho or of a slope, marked where rho changed." in text
    for title in ("Gap of the couplings", "Weight of the links"):
        assert title in text
    assert "No sweep had to be repeated without inertia." in text
    assert "is that of sweep" not in text
    assert "Repeated updates" not in text


def test_other_runs_say_nothing_of_it(new_run) -> None:
    folder = new_run(epochs=3)
    write_report([folder])
    assert json.loads((folder / "report.json").read_text())["runs"][0]["alternating"] is None
    assert "Alternating minimization" not in page(folder)


def test_records_of_another_kind_are_left_out(new_run) -> None:
    folder = new_run(epochs=3)
    found = make_alternating(folder, link_residual=lambda n: "none", coupling_gap=lambda n: [None], seconds=lambda n: 0)
    assert found["alternating"]["layers"]["link_residual"] == []
    assert found["alternating"]["layers"]["coupling_gap"] == []
