"""The comparison: every method, strength and seed on one task, with one budget."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from openwork.comparison.method import Method
from openwork.comparison.result import Cell, Result
from openwork.comparison.study import Study
from openwork.comparison.task import Task
from openwork.comparison.trial import train_cell


def compare(
    task: Task,
    methods: Mapping[str, Method],
    *,
    out: Path,
    strengths: int = 3,
    seeds: int = 1,
    epochs: int | None = None,
    storage: str | None = None,
) -> list[Result]:
    """Train every method at every strength with every seed; a comparison that was stopped goes on where it was.

    Args:
        task: What is learned.
        methods: By name.
        out: Folder of the comparison.
        strengths: How many for each method, >= 1.
        seeds: How many, >= 1.
        epochs: The budget; the task's own if None.
        storage: URL of a database for several machines; None for a file in ``out``.

    Returns:
        One result per finished network.
    """
    out.mkdir(parents=True, exist_ok=True)
    budget = task.epochs if epochs is None else epochs
    study = Study(out, task.name, storage)
    study.enqueue(
        [
            Cell(name, asdict(method), strength, seed, budget)
            for seed in range(seeds)
            for name, method in methods.items()
            for strength in method.strengths(task, strengths)
        ]
    )

    def train(cell: Cell) -> Result:
        folder = out / "runs" / cell.name
        folder.mkdir(parents=True, exist_ok=True)
        return train_cell(task, methods[cell.method], cell, folder)

    study.work(train)
    return study.results()


def table(results: Sequence[Result]) -> str:
    """One line per network."""
    return "\n".join(
        f"{r.cell.name:32} accuracy {r.accuracy or 0:.4f}  compression {r.compression:6.2f}  "
        f"params {r.params[0]} => {r.params[1]}  macs {r.macs[0]} => {r.macs[1]}  {r.seconds:.1f} s"
        for r in results
    )
