"""Times of finished networks, measured after all training, one network at a time."""

from pathlib import Path

from openwork.comparison.result import Result
from openwork.comparison.study import Study
from openwork.comparison.task import Task
from openwork.comparison.trial import SMALL, here
from openwork.metrics import compare_latency
from openwork.shrinking import load
from openwork.training import processes

# How long each network is measured, side by side with the dense one. In s.
SECONDS = 1.0


def time_next(study: Study, task: Task, runs: Path) -> str | None:
    """Measure the times of one network that has none, while no worker of the study trains or may begin to.

    Args:
        study: Of the comparison.
        task: What was learned.
        runs: Folder with those of the cells; networks that are not there are left to the machine that has them.

    Returns:
        The name of the cell; None if there is nothing to measure, or another worker trains.
    """
    with study.lock:
        known = study.known()
        if known.running:
            return None
        for name, result in known.results.items():
            file = runs / name / SMALL
            if result.latency_ms is None and name not in known.untimed and file.exists():
                study.timed(name, _measured(task, result, file))
                return name
    return None


def _measured(task: Task, result: Result, file: Path) -> tuple[float, float, str] | None:
    """Milliseconds of the dense and the small network, measured in turn, and where.

    None if the small one is no form of the task's.
    """
    device = processes().device
    dense = task.model(result.cell.seed).to(device)
    try:
        small = load(file, into=dense)
    except ValueError:
        return None
    example = task.data(result.cell.seed).train.inputs[:1].to(device)
    found = compare_latency({"dense": dense, "small": small}, example, seconds=SECONDS).latencies
    return found["dense"].ms.median, found["small"].ms.median, here()


__all__ = ["time_next"]
