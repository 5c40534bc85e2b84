"""Reading the folder of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from openwork.files import Json, read_json, read_records
from openwork.report.shrunk import Shrunk, read_shrunk

RUN_SCHEMA = 1


@dataclass(frozen=True)
class RunFolder:
    """What the files of a run say.

    Args:
        folder: Where they are.
        recipe: ``recipe.json``: what was run, with which arguments, where.
        records: ``metrics.jsonl``: one record per epoch (or other period), at least one.
        final: ``final.json``: numbers of the finished network; None while the run is not finished.
        shrunk: ``shrink.json``: what shrink did to it; None if nobody has shrunk it.
    """

    folder: Path
    recipe: Mapping[str, Json]
    records: Sequence[Mapping[str, Json]]
    final: Mapping[str, Json] | None
    shrunk: Shrunk | None = None


def read_run(folder: Path) -> RunFolder:
    """Read a run, finished or not.

    Args:
        folder: What ``openwork train`` wrote.

    Returns:
        Its records.

    Raises:
        ValueError: If ``folder`` is not that of a run, was written by another version, or holds a damaged file.
        OSError: If a file cannot be read.
    """
    folder = folder.absolute()
    if not (folder / "recipe.json").is_file():
        what = "has no recipe.json" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
        raise ValueError(
            f"report: {folder} is not a run, it {what}; name a folder that `openwork train` or `openwork compare` wrote"
        )
    recipe = read_json(folder / "recipe.json")
    if recipe.get("schema") != RUN_SCHEMA:
        raise ValueError(
            f"report: {folder / 'recipe.json'} has schema {recipe.get('schema')!r}, and this version of openwork "
            f"reads {RUN_SCHEMA}; report the run with the version that wrote it, {recipe.get('openwork', 'unknown')}"
        )
    metrics = folder / "metrics.jsonl"
    records = read_records(metrics) if metrics.is_file() else []
    if not records:
        what = "holds no complete record" if metrics.is_file() else "does not exist"
        raise ValueError(f"report: {metrics} {what}; let the run reach the end of its first epoch")
    final = folder / "final.json"
    ended = read_json(final) if final.is_file() else None
    return RunFolder(folder, recipe, records, ended, read_shrunk(folder))


def number(record: Mapping[str, Json], key: str) -> float | None:
    """The finite number under ``key``; None where there is none, or another kind of value."""
    value = record.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) else None


def table(record: Mapping[str, Json], key: str) -> Mapping[str, Json]:
    """The object under ``key``; an empty one where there is none, or another kind of value."""
    value = record.get(key)
    return value if isinstance(value, Mapping) else {}
