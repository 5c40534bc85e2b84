"""The table of a comparison: one row per method and strength, with mean and spread over the seeds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from html import escape
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast, overload

from typing_extensions import override

from openwork.comparison.result import Failure, Result, Searched
from openwork.files import Json
from openwork.report import frontier_picture

if TYPE_CHECKING:
    from pandas import DataFrame  # pyright: ignore[reportMissingImports]


@dataclass(frozen=True)
class Mean:
    """A number over the seeds.

    Args:
        mean: Arithmetic mean.
        std: Standard deviation of the sample; None for a single seed.
    """

    mean: float
    std: float | None = None

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "Mean | None":
        """Of numbers; None if one is missing.

        Args:
            values: One per seed.
        """
        there = [value for value in values if value is not None]
        if not there or len(there) < len(values):
            return None
        return cls(statistics.fmean(there), statistics.stdev(there) if len(there) > 1 else None)


@dataclass(frozen=True)
class Row:
    """One method at one strength, or at the strengths that meet the target.

    Args:
        method: Name.
        settings: Its hyper-parameters.
        strength: How sparse; differs between seeds only on the way to a target.
        seeds: Networks that the numbers are over; 0 if all failed.
        epochs: Passes over the training samples.
        accuracy: On the test samples, in [0, 1].
        loss: On the test samples.
        valid_accuracy: On the validation samples, in [0, 1]: what to choose by.
        valid_loss: On the validation samples: what to choose by where there are no classes.
        unstructured: Fraction of zero parameters.
        group: Fraction of zero groups, the same for every method.
        weighted_group: The same, groups counted by their entries.
        compression: Parameters of the dense network for each that is left after shrinking and not zero.
        params: Of the shrunk network.
        bytes: Of its file.
        macs: Of the shrunk network, for a sample.
        latency_ms: Of the shrunk network, for a batch of one.
        speedup: Time of the dense network, measured beside it, over that.
        seconds: Of training.
        memory_mib: Largest memory of training.
        failures: Why seeds are missing, one sentence each.
        notes: What a reader must know, one sentence each.
    """

    method: str
    settings: Mapping[str, Json]
    strength: Mean | None
    seeds: int
    epochs: int
    accuracy: Mean | None = None
    loss: Mean | None = None
    valid_accuracy: Mean | None = None
    valid_loss: Mean | None = None
    unstructured: Mean | None = None
    group: Mean | None = None
    weighted_group: Mean | None = None
    compression: Mean | None = None
    params: Mean | None = None
    bytes: Mean | None = None
    macs: Mean | None = None
    latency_ms: Mean | None = None
    speedup: Mean | None = None
    seconds: Mean | None = None
    memory_mib: Mean | None = None
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, results: Sequence[Result], failures: Sequence[Failure] = (), notes: Sequence[str] = ()) -> "Row":
        """From the networks of the seeds.

        Args:
            results: Those that are there.
            failures: Those that are not; at least one of either.
            notes: What a reader must know.
        """
        cells = [one.cell for one in (*results, *failures)]
        times = [r.latency_ms or (None, None) for r in results]
        return cls(
            method=cells[0].method,
            settings=cells[0].settings,
            strength=Mean.of([cell.strength for cell in cells]),
            seeds=len(results),
            epochs=cells[0].epochs,
            accuracy=Mean.of([r.accuracy for r in results]),
            loss=Mean.of([r.loss for r in results]),
            valid_accuracy=Mean.of([r.valid_accuracy for r in results]),
            valid_loss=Mean.of([r.valid_loss for r in results]),
            unstructured=Mean.of([r.unstructured for r in results]),
            group=Mean.of([r.group for r in results]),
            weighted_group=Mean.of([r.weighted_group for r in results]),
            compression=Mean.of([r.compression for r in results]),
            params=Mean.of([r.params[1] for r in results]),
            bytes=Mean.of([r.bytes[1] for r in results]),
            macs=Mean.of([r.macs[1] for r in results]),
            latency_ms=Mean.of([after for _, after in times]),
            speedup=Mean.of([before / after if before and after else None for before, after in times]),
            seconds=Mean.of([r.seconds for r in results]),
            memory_mib=Mean.of([r.memory_mib for r in results]),
            failures=tuple(f"seed {f.cell.seed}: {f.reason}" for f in failures),
            notes=tuple(notes),
        )


@dataclass(frozen=True, eq=False)
class Table(Sequence[Row]):
    """What a comparison found; a sequence of rows.

    Args:
        rows: By method, in the order they were asked for, and strength.
        results: Of all networks that ``rows`` are about.
        failures: Cells that could not be trained.
        searched: Trials of the searches for settings.
        notes: What a reader must know of the whole, one sentence each.
        folder: Of the comparison.
        finished: Whether nothing is left to train, for this call or another.
        baselines: Methods that others are compared with.
    """

    rows: Sequence[Row]
    results: Sequence[Result]
    failures: Sequence[Failure]
    searched: Sequence[Searched]
    notes: Sequence[str]
    folder: Path
    finished: bool = True
    baselines: Sequence[str] = ()

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...

    @override
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        return self.rows[index]

    @override
    def __len__(self) -> int:
        return len(self.rows)

    def _repr_html_(self) -> str:
        """The frontier, for notebooks; what there is to say where no network is there yet."""
        if not any(row.seeds for row in self.rows):
            return f"<pre>{escape(str(self))}</pre>"
        return frontier_picture([cast("dict[str, Json]", asdict(row)) for row in self.rows], self.baselines)

    def to_pandas(self) -> "DataFrame":
        """A data frame with a row for each, the spread over the seeds in columns that end in ``_std``.

        Returns:
            The data frame.

        Raises:
            ModuleNotFoundError: If pandas is not installed.
        """
        try:
            pandas = import_module("pandas")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "to_pandas needs pandas, which is not installed; pip install pandas, or read the rows as they are"
            ) from error
        return pandas.DataFrame([flat(row) for row in self.rows])

    @override
    def __str__(self) -> str:
        lines = [[title for title, _, _ in COLUMNS]]
        lines += [[_shown(row, key, form) for _, key, form in COLUMNS] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
        said = [f"{row.method}: {note}" for row in self.rows for note in row.notes]
        lost = [f"failed: {f.cell.name}: {f.reason}" for f in self.failures]
        return "\n".join([*text, *said, *lost, *(f"note: {note}" for note in self.notes)])


def flat(row: Row) -> dict[str, object]:
    """Plain values by the names of columns.

    Args:
        row: Of a table.
    """
    found: dict[str, object] = {}
    for one in fields(row):
        value = getattr(row, one.name)
        if isinstance(value, Mean) or (value is None and one.name != "settings"):
            found[one.name] = None if value is None else value.mean
            found[f"{one.name}_std"] = None if value is None else value.std
        else:
            found[one.name] = value
    return found


# Title, field and form of what is printed.
COLUMNS: Sequence[tuple[str, str, str]] = (
    ("method", "method", ""),
    ("strength", "strength", ".3g"),
    ("seeds", "seeds", "d"),
    ("accuracy", "accuracy", ".2%"),
    ("zeros", "unstructured", ".1%"),
    ("groups", "group", ".1%"),
    ("by size", "weighted_group", ".1%"),
    ("ratio", "compression", ".3g"),
    ("params", "params", ",.0f"),
    ("bytes", "bytes", ",.0f"),
    ("MACs", "macs", ",.0f"),
    ("ms", "latency_ms", ".3g"),
    ("speedup", "speedup", ".2f"),
    ("train s", "seconds", ".1f"),
    ("MiB", "memory_mib", ".0f"),
)


def _shown(row: Row, key: str, form: str) -> str:
    value = getattr(row, key)
    if isinstance(value, Mean):
        spread = f" ± {format(value.std, form).rstrip('%')}" if value.std and key in ("accuracy", "compression") else ""
        return f"{format(value.mean, form)}{spread}" if math.isfinite(value.mean) else "-"
    return "-" if value is None else format(value, form)


__all__ = ["Mean", "Row", "Table", "flat"]
