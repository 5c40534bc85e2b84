"""What a report says, as plain values: all of ``report.json``, and all that the page shows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os.path import commonpath
from pathlib import Path
from typing import Literal

from openwork.files import Json
from openwork.report.alternating import AlternatingContents, read_alternating
from openwork.report.factors import FactorsContents, alarms, read_factors
from openwork.report.read import RunFolder, number, table
from openwork.report.shrunk import Shrunk
from openwork.report.sketched import SketchContents, read_sketch
from openwork.report.text import Unit, percent

REPORT_SCHEMA = 1
Clock = Literal["epoch", "sweep", "unit"]


@dataclass(frozen=True)
class Result:
    """One measure of a run.

    Args:
        key: Its name in the files of the run.
        label: Its name for a reader.
        unit: What the numbers are: fractions in [0, 1], losses, or counts.
        weights: Of the weights as they were at the last epoch.
        structured: Of the structured weights, those with the zeros, at the last epoch.
        final: Of the finished network.
    """

    key: str
    label: str
    unit: Unit
    weights: float | None = None
    structured: float | None = None
    final: float | None = None

    @property
    def best_known(self) -> float | None:
        """Of the finished network if there is one, else of the structured weights, else of the weights."""
        return next((v for v in (self.final, self.structured, self.weights) if v is not None), None)


@dataclass(frozen=True)
class Layer:
    """What survives in one weight.

    Args:
        name: Name of the parameter.
        alive: Groups, or singular values, that are not zero.
        total: All of them.
        size: Entries per group; None for singular values.
        sparsity: Fraction of them that is zero.
    """

    name: str
    alive: int
    total: int
    size: int | None
    sparsity: float


@dataclass(frozen=True)
class RunContents:
    """What the report says about one run.

    Args:
        name: Shortest name that tells it from the other runs.
        recipe: What was run.
        created: When, as the run wrote it.
        complete: Whether it is finished.
        headline: The result in one sentence.
        notes: What a reader must know to read the numbers right.
        results: The final table.
        clock: Whether ``curves`` are over epochs, sweeps, or other units of training.
        curves: Numbers over time by name, None where one is missing; ``clock`` itself is one of them.
        layers: What survives in each weight.
        shrunk: What shrink took out; None if nobody has shrunk the run.
        factors: What there is to say about factors; None if the weights have none.
        sketch: What there is to say about sketches; None if it was trained without.
        alternating: What there is to say about alternating minimization; None if it was trained otherwise.
        alive: Groups of each weight that were not zero, over time.
        arguments: Arguments of the recipe.
        machine: Where it ran.
        versions: Of openwork, torch and Python.
    """

    name: str
    recipe: str
    created: str
    complete: bool
    headline: str
    notes: Sequence[str]
    results: Sequence[Result]
    clock: Clock
    curves: Mapping[str, Sequence[float | None]]
    layers: Sequence[Layer]
    shrunk: Shrunk | None
    factors: FactorsContents | None
    sketch: SketchContents | None
    alternating: AlternatingContents | None
    alive: Mapping[str, Sequence[float | None]]
    arguments: Mapping[str, Json]
    machine: Mapping[str, Json]
    versions: Mapping[str, Json]

    @property
    def single(self) -> bool:
        """Whether what becomes zero is single weights, not groups of them."""
        return _single(self.layers)

    def result(self, *keys: str) -> Result | None:
        """The first of these measures that the run has."""
        return next((r for key in keys for r in self.results if r.key == key), None)


@dataclass(frozen=True)
class Contents:
    """What a report says.

    Args:
        headline: The result in one sentence.
        runs: What it says about each run.
    """

    headline: str
    runs: Sequence[RunContents]

    def record(self) -> dict[str, Json]:
        """Plain values for ``report.json``."""
        return {"schema": REPORT_SCHEMA, **asdict(self)}


EVALUATIONS: Sequence[tuple[str, str, Unit]] = (
    ("test_accuracy", "Test accuracy", "fraction"),
    ("test_loss", "Test loss", "loss"),
    ("valid_accuracy", "Validation accuracy", "fraction"),
    ("valid_loss", "Validation loss", "loss"),
)
STRUCTURES: Sequence[tuple[str, str, Unit]] = (
    ("group_sparsity", "Zero groups", "fraction"),
    ("weighted_group_sparsity", "Zero groups, by size", "fraction"),
    ("low_rank_level", "Zero singular values", "fraction"),
    ("unstructured_sparsity", "Zero parameters", "fraction"),
    ("compression_ratio", "Compression ratio", "times"),
    ("params", "Parameters", "count"),
    ("nonzero_params", "Nonzero parameters", "count"),
)
CURVES = (
    *("seconds", "train_loss", "lr", "averaging", "residual", "steps_unchanged", "skipped", "alive", "total"),
    *(
        "sketched_loss",
        "sketched_loss_stderr",
        "budget_spent",
        "relative_misalignment",
        "mean_penalty",
        "weight_norm",
        "sign_flips",
        "objective",
        "surrogate_loss",
        "rho",
        "restarts",
    ),
    *(key for key, _, _ in EVALUATIONS),
    *(f"structured_{key}" for key, _, _ in EVALUATIONS),
    *(key for key, _, _ in STRUCTURES),
)


def contents(runs: Sequence[RunFolder]) -> Contents:
    """Gather what the report says.

    Args:
        runs: What the files of the runs say, at least one run.

    Returns:
        The report as plain values.
    """
    pages = [_run(run, name) for run, name in zip(runs, _names([run.folder for run in runs]), strict=True)]
    if len(pages) == 1:
        return Contents(pages[0].headline, pages)
    return Contents(_headline_of_several(pages), pages)


def _names(folders: Sequence[Path]) -> list[str]:
    if len({folder.name for folder in folders}) == len(folders):
        return [folder.name for folder in folders]
    above = commonpath([folder.parent for folder in folders])
    return [folder.relative_to(above).as_posix() for folder in folders]


def _run(run: RunFolder, name: str) -> RunContents:
    last = run.records[-1]
    clock = _clock(run.records)
    curves = {key: [number(record, key) for record in run.records] for key in CURVES}
    curves = {key: values for key, values in curves.items() if any(value is not None for value in values)}
    times = [number(record, clock) for record in run.records]
    layers = _layers(run.final or {}) or _layers(last)
    alternating = read_alternating(run)
    results = _results(last, run.final, layers, in_weights=alternating is not None)
    return RunContents(
        name=name,
        recipe=str(run.recipe.get("recipe", name)),
        created=str(run.recipe.get("created", "")),
        complete=run.final is not None,
        headline=_headline(results, layers, run),
        notes=_notes(results, layers, run),
        results=results,
        clock=clock,
        # A run that counts nothing is drawn over the numbers of its records.
        curves={clock: [n if t is None else t for n, t in enumerate(times, start=1)], **curves},
        layers=layers,
        shrunk=run.shrunk,
        factors=read_factors(run),
        sketch=read_sketch(run),
        alternating=alternating,
        alive={
            name: [number(table(table(record, "layers"), name), "alive") for record in run.records]
            for name in table(last, "layers")
        },
        arguments=table(run.recipe, "arguments"),
        machine=table(run.recipe, "machine"),
        versions={key: run.recipe[key] for key in ("openwork", "torch", "python") if key in run.recipe},
    )


def _clock(records: Sequence[Mapping[str, Json]]) -> Clock:
    known: Sequence[Clock] = ("epoch", "sweep")
    counted: list[Clock] = [key for key in known if all(number(record, key) is not None for record in records)]
    return counted[0] if counted else "unit"


def _results(
    last: Mapping[str, Json], final: Mapping[str, Json] | None, layers: Sequence[Layer], *, in_weights: bool
) -> list[Result]:
    end = final or {}
    found = [
        Result(key, label, unit, number(last, key), number(last, f"structured_{key}"), number(end, key))
        for key, label, unit in EVALUATIONS
    ]
    # Zeros are counted in the structured weights, where these are apart: the weights have none until they settle.
    for key, label, unit in _structures(layers):
        now = number(last, key)
        weights, structured = (now, None) if in_weights else (None, now)
        found.append(Result(key, label, unit, weights, structured, number(end, key)))
    return [result for result in found if result.best_known is not None]


def _single(layers: Sequence[Layer]) -> bool:
    return bool(layers) and all(layer.size == 1 for layer in layers)


def _structures(layers: Sequence[Layer]) -> Sequence[tuple[str, str, Unit]]:
    """Measures of zeros, by names that fit: single weights are no groups, and all of one size."""
    if not _single(layers):
        return STRUCTURES
    names = {"group_sparsity": "Zero weights of layers with a penalty"}
    return [(key, names.get(key, label), unit) for key, label, unit in STRUCTURES if key != "weighted_group_sparsity"]


def _layers(record: Mapping[str, Json]) -> list[Layer]:
    layers = table(record, "layers")
    found: list[Layer] = []
    for name in layers:
        layer = table(layers, name)
        alive, total, size = number(layer, "alive"), number(layer, "total"), number(layer, "size")
        if alive is not None and total:
            found.append(
                Layer(name, int(alive), int(total), None if size is None else int(size), sparsity=1 - alive / total)
            )
    return found


def _quality(results: Sequence[Result]) -> str:
    for key in ("test_accuracy", "valid_accuracy", "test_loss", "valid_loss"):
        for result in results:
            value = result.best_known
            if result.key == key and value is not None:
                if result.unit == "fraction":
                    return f"{percent(value, 1)} {result.label.lower()}"
                return f"{result.label.lower()} {value:.4g}"
    return ""


def _structure(results: Sequence[Result], layers: Sequence[Layer]) -> str:
    what = {
        "group_sparsity": "of the penalized weights" if _single(layers) else "of the groups",
        "low_rank_level": "of the singular values",
        "unstructured_sparsity": "of the parameters",
    }
    found = {result.key: result.best_known for result in results}
    for key, words in what.items():
        value = found.get(key)
        if value is not None:
            return f"{percent(value, 1)} {words} exactly zero"
    return ""


def _headline(results: Sequence[Result], layers: Sequence[Layer], run: RunFolder) -> str:
    parts = [part for part in (_quality(results), _structure(results, layers)) if part]
    said = ", with ".join(parts) if parts else "No result was recorded"
    said = said[0].upper() + said[1:]
    if run.shrunk is not None and run.shrunk.params.left is not None:
        said = f"{said}, shrunk to {percent(run.shrunk.params.left, 1)} of its parameters"
    return f"{said}." if run.final is not None else f"{said}, so far."


def _groups(runs: Sequence[RunContents]) -> str:
    return "penalized weights" if all(run.single for run in runs) else "groups"


def _headline_of_several(runs: Sequence[RunContents]) -> str:
    said = [f"{len(runs)} runs"]
    for keys, words in (
        (("test_accuracy", "valid_accuracy"), "{}"),
        (("group_sparsity",), f"{{}} of the {_groups(runs)} exactly zero"),
    ):
        found = [r for run in runs if (r := run.result(*keys)) is not None and r.best_known is not None]
        values = sorted(r.best_known for r in found if r.best_known is not None)
        if len(values) == len(runs) and len({r.key for r in found}) == 1:
            label = f" {found[0].label.lower()}" if words == "{}" else ""
            said.append(words.format(f"{percent(values[0], 1)} to {percent(values[-1], 1)}") + label)
    return f"{', '.join(said)}."


def _notes(results: Sequence[Result], layers: Sequence[Layer], run: RunFolder) -> list[str]:
    notes: list[str] = []
    averaging, skipped = number(run.records[-1], "averaging"), number(run.records[-1], "skipped")
    if run.final is None:
        notes.append("The run is not finished: these are its numbers so far.")
    if averaging is not None and averaging < 1:
        notes.append(
            f"Averaging {'stands at' if run.final is None else 'had only reached'} {averaging:.3g}. Until it reaches 1 "
            "the zeros are in the structured weights alone, and these can predict far worse than the weights."
        )
    notes += alarms(run)
    if skipped:
        notes.append(f"{skipped:,.0f} steps were skipped, because their gradients were not finite.")
    if run.shrunk is not None:  # which says itself what was gained
        return notes
    gone = {result.key for result in results if result.best_known}
    if "low_rank_level" in gone:
        notes.append("A low rank makes the network smaller and faster once its weights are replaced by their factors.")
    if "group_sparsity" in gone and any(layer.size != 1 for layer in layers):
        notes.append("Zeros make the file smaller; the network only gets faster once the zero groups are taken out.")
    elif "unstructured_sparsity" in gone:
        notes.append("Single zeros make the file smaller, not the network faster.")
    return notes
