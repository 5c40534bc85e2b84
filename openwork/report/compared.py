"""What ``openwork compare`` left in its folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from openwork.files import Json, read_json
from openwork.report.read import number, table

COMPARISON_SCHEMA = 1
COMPARISON = "comparison.json"
# Measures of a row, each a mean and a standard deviation over seeds.
MEASURES = (
    *("accuracy", "loss", "valid_accuracy", "valid_loss", "compression", "unstructured", "group", "weighted_group"),
    *("params", "bytes", "macs", "latency_ms", "speedup", "seconds", "memory_mib"),
)
# Measures of a network that come alone, and those that come before and after it was shrunk.
ALONE = (
    *("accuracy", "loss", "valid_accuracy", "valid_loss", "unstructured", "group", "weighted_group"),
    *("nonzero", "seconds", "memory_mib", "test_unequal"),
)
TWICE = ("params", "bytes", "macs", "latency_ms")


@dataclass(frozen=True)
class Spread:
    """One measure over seeds.

    Args:
        mean: Over the seeds.
        std: Sample standard deviation; None for a single seed.
    """

    mean: float
    std: float | None = None


@dataclass(frozen=True)
class Point:
    """One method at one strength, or at the strengths that meet a target, over its seeds.

    Args:
        method: Name.
        strength: How sparse.
        seeds: Networks that the measures are over, at least one.
        values: Measures by name; those that some network lacks are left out.
        failures: Why seeds are missing, one sentence each.
        notes: What a reader must know, one sentence each.
    """

    method: str
    strength: float
    seeds: int
    values: Mapping[str, Spread]
    failures: Sequence[str] = ()
    notes: Sequence[str] = ()

    def mean(self, key: str) -> float | None:
        """Of a measure; None where it is missing."""
        return self.values[key].mean if key in self.values else None


@dataclass(frozen=True)
class Cell:
    """What was to be trained.

    Args:
        method: Name.
        strength: How sparse.
        seed: Of everything that is random.
        trial: Number among the trials of a search for settings; None if it is none of these.
        settings: Hyper-parameters of the method.
    """

    method: str
    strength: float
    seed: int
    trial: int | None = None
    settings: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """A network that was trained, and finished unless it was a trial of a search.

    Args:
        cell: What was trained.
        numbers: Measures by name, None where one is missing; with ``dense_`` before it was shrunk.
        constant: Whether its outputs are the same whatever the inputs are.
        zeros: Fraction of zeros in each weight.
        widths: Units before and after it was shrunk, by the name of a tensor that has them.
        curves: Numbers over time by name, None where one is missing.
        notes: What was warned of while training.
    """

    cell: Cell
    numbers: Mapping[str, float | None]
    constant: bool
    zeros: Mapping[str, float]
    widths: Mapping[str, tuple[int, int]]
    curves: Mapping[str, Sequence[float | None]]
    notes: Sequence[str]

    @property
    def clock(self) -> str:
        """What the times of the curves are; empty if there are none."""
        known = [key for key in ("epoch", "unit") if key in self.curves and None not in self.curves[key]]
        return known[0] if known else ""


@dataclass(frozen=True)
class Failed:
    """A cell that gave no network.

    Args:
        cell: What was to be trained.
        reason: One sentence.
    """

    cell: Cell
    reason: str


@dataclass(frozen=True)
class Compared:
    """What the files of a comparison say.

    Args:
        folder: Where they are.
        task: Name of what was learned.
        budget: The same for all.
        finished: Whether nothing is left to train.
        configuration: What else was.
        machine: Where it ran.
        version: Of openwork; empty if unknown.
        methods: What is known of the methods, by name.
        points: The table.
        trained: The networks.
        searched: Trials of searches for settings.
        failed: Cells that gave no network.
        notes: What a reader must know, one sentence each.
    """

    folder: Path
    task: str
    budget: str
    finished: bool
    configuration: Mapping[str, Json]
    machine: Mapping[str, Json]
    version: str
    methods: Mapping[str, Mapping[str, Json]]
    points: Sequence[Point]
    trained: Sequence[Trained]
    searched: Sequence[Trained]
    failed: Sequence[Failed]
    notes: Sequence[str]

    def records(self) -> dict[tuple[str, float, int], Path]:
        """Files with the periodic numbers of the networks that are in the folder, by method, strength and seed."""
        found: dict[tuple[str, float, int], Path] = {}
        for file in sorted((self.folder / "runs").glob("*/cell.json")):
            cell = _cell(str(file), {"cell": read_json(file)})
            if cell.trial is None and (metrics := file.with_name("metrics.jsonl")).is_file():
                found[cell.method, cell.strength, cell.seed] = metrics
        return found


def read_comparison(folder: Path) -> Compared:
    """Read a comparison, finished or not.

    Args:
        folder: That holds ``comparison.json``.

    Returns:
        What it says.

    Raises:
        ValueError: If the file is damaged, of another version, or has no result.
        OSError: If it cannot be read.
    """
    path = folder / COMPARISON
    values = read_json(path)
    if values.get("schema") != COMPARISON_SCHEMA:
        raise ValueError(
            f"report: {path} has schema {values.get('schema')!r}, and this version of openwork reads "
            f"{COMPARISON_SCHEMA}; report it with the version that wrote it, {values.get('openwork', 'unknown')}"
        )
    place = f"report: {path}"
    trained = [_trained(*one) for one in _objects(place, values, "results")]
    points = read_points(f"{place}: rows", [row for _, row in _objects(place, values, "rows")])
    if not points or not trained:
        raise ValueError(f"{place} holds no result; let the comparison train its first network")
    methods = table(values, "methods")
    return Compared(
        folder=folder,
        task=str(values.get("task", folder.name)),
        budget=str(values.get("budget", "")),
        finished=values.get("finished") is not False,
        configuration=table(values, "configuration"),
        machine=table(values, "machine"),
        version=str(values.get("openwork", "")),
        methods={name: table(methods, name) for name in methods},
        points=points,
        trained=trained,
        searched=[_trained(*one) for one in _objects(place, values, "searched")],
        failed=[
            Failed(_cell(at, said), str(said.get("reason", ""))) for at, said in _objects(place, values, "failures")
        ],
        notes=_texts(values.get("notes")),
    )


def read_points(place: str, rows: Sequence[Mapping[str, Json]]) -> list[Point]:
    """Rows of a table, those with a network.

    Args:
        place: Where they are, for messages.
        rows: Plain values.

    Returns:
        What they say.

    Raises:
        ValueError: If one does not say which method it is about.
    """
    found: list[Point] = []
    for n, row in enumerate(rows):
        method, seeds, strength = row.get("method"), number(row, "seeds"), _spread(row.get("strength"))
        if not isinstance(method, str) or seeds is None or strength is None:
            raise ValueError(
                f"{place}[{n}] must have a method, seeds and a strength, got {dict(row)!r:.80}; "
                "run `openwork compare` again"
            )
        values = {key: spread for key in MEASURES if (spread := _spread(row.get(key)))}
        if seeds:
            failures, notes = _texts(row.get("failures")), _texts(row.get("notes"))
            found.append(Point(method, strength.mean, int(seeds), values, failures, notes))
    return found


def _spread(value: Json) -> Spread | None:
    said = value if isinstance(value, Mapping) else {}
    mean = number(said, "mean")
    return None if mean is None else Spread(mean, number(said, "std"))


def _objects(place: str, values: Mapping[str, Json], key: str) -> list[tuple[str, Mapping[str, Json]]]:
    """Objects of a list, and where each stands.

    Raises:
        ValueError: If it is none.
    """
    found = values.get(key, [])
    listed = found if isinstance(found, Sequence) and not isinstance(found, str) else [found]
    objects = [one for one in listed if isinstance(one, Mapping)]
    if len(objects) < len(listed):
        raise ValueError(f"{place}: {key} must be a list of objects; run `openwork compare` again")
    return [(f"{place}: {key}[{n}]", one) for n, one in enumerate(objects)]


def _cell(place: str, value: Mapping[str, Json]) -> Cell:
    said = table(value, "cell")
    method, strength, seed = said.get("method"), number(said, "strength"), number(said, "seed")
    if not isinstance(method, str) or strength is None or seed is None:
        raise ValueError(
            f"{place}: cell must have a method, a strength and a seed, got {dict(said)!r:.80}; "
            "run `openwork compare` again"
        )
    trial = number(said, "trial")
    return Cell(method, strength, int(seed), None if trial is None else int(trial), table(said, "settings"))


def _trained(place: str, result: Mapping[str, Json]) -> Trained:
    numbers: dict[str, float | None] = {key: number(result, key) for key in ALONE}
    for key in TWICE:
        numbers[f"dense_{key}"], numbers[key] = _pair(result.get(key))
    dense, nonzero = numbers["dense_params"], numbers["nonzero"]
    numbers["compression"] = None if dense is None or nonzero is None else dense / max(1, nonzero)
    layers, widths, curves = (table(result, key) for key in ("layers", "widths", "curves"))
    left = {name: _pair(layers[name]) for name in layers}
    units = {name: _pair(widths[name]) for name in widths}
    return Trained(
        cell=_cell(place, result),
        numbers=numbers,
        constant=result.get("constant") is True,
        zeros={name: 1 - alive / total for name, (alive, total) in left.items() if alive is not None and total},
        widths={
            name: (int(before), int(after))
            for name, (before, after) in units.items()
            if before is not None and after is not None
        },
        curves={name: [number({"": item}, "") for item in _list(curves[name])] for name in curves},
        notes=_texts(result.get("notes")),
    )


def _pair(value: Json) -> tuple[float | None, float | None]:
    items = [number({"": item}, "") for item in _list(value)]
    return (items[0], items[1]) if len(items) == 2 else (None, None)


def _list(value: Json) -> Sequence[Json]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else []


def _texts(value: Json) -> list[str]:
    return [text for text in _list(value) if isinstance(text, str) and text]


__all__ = [
    "COMPARISON",
    "Cell",
    "Compared",
    "Failed",
    "Point",
    "Spread",
    "Trained",
    "read_comparison",
    "read_points",
]
