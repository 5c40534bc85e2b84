"""What ``openwork compare`` left in its folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from openwork.files import Json, read_json, read_records
from openwork.report.read import number, table

COMPARISON_SCHEMA = 1
COMPARISON = "comparison.json"
RECORDS = 60  # of a run that its curves keep at most, evenly picked, the first and the last among them
CURVES = (
    *("train_loss", "valid_loss", "valid_accuracy", "structured_valid_loss", "structured_valid_accuracy"),
    *("unstructured_sparsity", "group_sparsity"),
)


@dataclass(frozen=True)
class Cell:
    """What was to be trained.

    Args:
        method: Name.
        strength: How sparse.
        seed: Of everything that is random.
        folder: Name of the folder of its run.
        settings: Hyper-parameters of the method.
    """

    method: str
    strength: float
    seed: int
    folder: str
    settings: Mapping[str, Json]


@dataclass(frozen=True)
class Trained:
    """A network that was trained and finished.

    Args:
        cell: What was trained.
        numbers: Measures of it by name, None where one is missing.
        zeros: Fraction of zeros in each weight, or of its groups where the run counted these.
        widths: Units before and after it was shrunk, by the name of the first tensor that has them.
        clock: What the times of the curves are.
        curves: Numbers over time by name, None where one is missing; ``clock`` itself is one of them, and all are empty
            if the records of the run are not there.
    """

    cell: Cell
    numbers: Mapping[str, float | None]
    zeros: Mapping[str, float]
    widths: Mapping[str, tuple[int, int]]
    clock: str
    curves: Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class Failed:
    """A cell that gave no network.

    Args:
        cell: What was to be trained.
        error: Why not, in one sentence.
    """

    cell: Cell
    error: str


@dataclass(frozen=True)
class Compared:
    """What the files of a comparison say.

    Args:
        folder: Where they are.
        task: Name of what was learned.
        budget: The same for all.
        machine: Where it ran.
        about: What is known of the methods, by name.
        trained: The finished networks, in the order of the file.
        failed: Cells that gave none.
        total: Cells that there are, finished or not.
    """

    folder: Path
    task: str
    budget: Mapping[str, Json]
    machine: Mapping[str, Json]
    about: Mapping[str, Mapping[str, Json]]
    trained: Sequence[Trained]
    failed: Sequence[Failed]
    total: int

    def records(self, cell: Cell) -> list[dict[str, Json]]:
        """Periodic numbers of a run; nothing if they are not in the folder."""
        return _records(self.folder, cell)


def read_comparison(folder: Path) -> Compared:
    """Read a comparison, finished or not.

    Args:
        folder: That holds ``comparison.json``, and the records of the runs below ``runs``.

    Returns:
        What it says.

    Raises:
        ValueError: If a file is damaged, of another version, or says nothing about a network.
        OSError: If a file cannot be read.
    """
    path = folder / COMPARISON
    values = read_json(path)
    if values.get("schema") != COMPARISON_SCHEMA:
        raise ValueError(
            f"report: {path} has schema {values.get('schema')!r}, and this version of openwork reads "
            f"{COMPARISON_SCHEMA}; report it with the version that wrote it, or run `openwork compare` again"
        )
    trained = read_results(folder, f"report: {path}: results", _objects(path, values, "results"))
    failed = [
        Failed(_cell(f"report: {path}: failed[{n}]", said), str(said.get("error", "")))
        for n, said in enumerate(_objects(path, values, "failed"))
    ]
    total = number(values, "total")
    about = table(values, "methods")
    return Compared(
        folder=folder,
        task=str(values.get("task", folder.name)),
        budget=table(values, "budget"),
        machine=table(values, "machine"),
        about={name: table(about, name) for name in about},
        trained=trained,
        failed=failed,
        total=max(int(total or 0), len(trained) + len(failed)),
    )


def read_results(folder: Path | None, place: str, results: Sequence[Mapping[str, Json]]) -> list[Trained]:
    """Read finished networks.

    Args:
        folder: Of the comparison, with the records of its runs; None for the numbers alone.
        place: Where the results are, for messages.
        results: Plain values, one object per network.

    Returns:
        What they say.

    Raises:
        ValueError: If there is none, one does not say what was trained, or the records of a run are damaged.
    """
    if not results:
        raise ValueError(f"{place} is empty; let the comparison train its first network")
    return [_trained(folder, result, _cell(f"{place}[{n}]", result)) for n, result in enumerate(results)]


def _objects(path: Path, values: Mapping[str, Json], key: str) -> list[Mapping[str, Json]]:
    found = values.get(key, [])
    listed = found if isinstance(found, Sequence) and not isinstance(found, str) else [found]
    objects = [one for one in listed if isinstance(one, Mapping)]
    if len(objects) < len(listed):
        raise ValueError(f"report: {path}: {key} must be a list of objects; restore the file from a copy")
    return objects


def _cell(place: str, value: Mapping[str, Json]) -> Cell:
    said = table(value, "cell")
    method, strength, seed = said.get("method"), number(said, "strength"), number(said, "seed")
    if not isinstance(method, str) or strength is None or seed is None:
        raise ValueError(
            f"{place}.cell must have a method, a strength and a seed, got {dict(said)!r:.80}; "
            "restore the file from a copy"
        )
    name = f"{method.rpartition(':')[2]}-{strength:.6g}-s{seed:.0f}"
    return Cell(method, strength, int(seed), str(value.get("name", name)), table(said, "settings"))


def _trained(folder: Path | None, result: Mapping[str, Json], cell: Cell) -> Trained:
    records = _records(folder, cell) if folder is not None else []
    last = records[-1] if records else {}
    clock = "epoch" if records and all(number(record, "epoch") is not None for record in records) else "unit"
    picked = np.unique(np.linspace(0, len(records) - 1, min(len(records), RECORDS)).round().astype(int))
    curves = {key: [number(records[n], key) for n in picked] for key in CURVES}
    times = [number(records[n], clock) for n in picked]
    return Trained(
        cell=cell,
        numbers=_numbers(result),
        zeros=_zeros(table(result, "layers")) or _zeros(table(last, "layers")),
        widths=_widths(result.get("widths")),
        clock=clock,
        curves={
            # A run that counts nothing is drawn over the numbers of its records.
            clock: [n if time is None else time for n, time in enumerate(times, start=1)],
            **{key: curve for key, curve in curves.items() if any(value is not None for value in curve)},
        },
    )


def _records(folder: Path, cell: Cell) -> list[dict[str, Json]]:
    path = folder / "runs" / cell.folder / "metrics.jsonl"
    return read_records(path) if path.is_file() else []


def _numbers(result: Mapping[str, Json]) -> dict[str, float | None]:
    """Measures of a network, by the names that reports give them."""
    (dense_params, params), (dense_bytes, size) = _pair(result.get("params")), _pair(result.get("bytes"))
    (dense_macs, macs), (dense_ms, ms) = _pair(result.get("macs")), _pair(result.get("latency_ms"))
    nonzero, memory = number(result, "nonzero"), number(result, "memory_mib")
    return {
        "test_accuracy": number(result, "accuracy"),
        "test_loss": number(result, "loss"),
        "valid_accuracy": number(result, "valid_accuracy"),
        "valid_loss": number(result, "valid_loss"),
        "compression_ratio": None if dense_params is None or nonzero is None else dense_params / max(1, nonzero),
        "unstructured_sparsity": number(result, "unstructured"),
        "group_sparsity": number(result, "group"),
        "weighted_group_sparsity": number(result, "weighted_group"),
        "nonzero_params": nonzero,
        "params": params,
        "dense_params": dense_params,
        "size_bytes": size,
        "dense_size_bytes": dense_bytes,
        "macs": macs,
        "dense_macs": dense_macs,
        "latency_ms": ms,
        "dense_latency_ms": dense_ms,
        "speedup": dense_ms / ms if dense_ms and ms else None,
        "seconds": number(result, "seconds"),
        "memory_bytes": None if memory is None else memory * 2**20,
        "difference": number(result, "test_unequal"),
    }


def _pair(value: Json) -> tuple[float | None, float | None]:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        return None, None
    before, after = (number({"": item}, "") for item in value)
    return before, after


def _zeros(layers: Mapping[str, Json]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in layers:
        alive, total = number(table(layers, name), "alive"), number(table(layers, name), "total")
        if alive is not None and total:
            found[name] = 1 - alive / total
    return found


def _widths(value: Json) -> dict[str, tuple[int, int]]:
    found = {name: _pair(value[name]) for name in value} if isinstance(value, Mapping) else {}
    return {
        name: (int(before), int(after))
        for name, (before, after) in found.items()
        if before is not None and after is not None
    }


__all__ = ["COMPARISON", "Cell", "Compared", "Failed", "Trained", "read_comparison", "read_results"]
