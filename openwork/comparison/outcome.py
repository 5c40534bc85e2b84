"""What a study came to: the table, what a reader must be told about it, and the file that a report is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar, cast

from openwork.comparison.plan import Fit, Plan, probed
from openwork.comparison.result import Failure, Result
from openwork.comparison.study import Known, Study
from openwork.comparison.table import Row, Table
from openwork.comparison.target import Target, nearest
from openwork.files import Json, write_json
from openwork.training import machine

FILE, SCHEMA = "comparison.json", 1
# A network with fewer zeros is called dense.
SPARSE = 0.01
# Passes are as many as fit into a budget of time, by a measurement; what takes this much of it is said to be late.
LATE = 1.1

T = TypeVar("T", Result, Failure)


def outcome(plan: Plan, study: Study, folder: Path, done: bool) -> Table:
    """The table of what is there, also of methods and seeds that other calls asked for.

    Args:
        plan: What was to be compared.
        study: Where the results are.
        folder: Of the comparison.
        done: Whether all that this call asked for is trained and measured.
    """
    known, fits = study.known(), plan.fits(study)
    finished = done and not (known.waiting or known.running)
    rows: list[Row] = []
    for name, fit in fits.items():
        if plan.target is not None and any(fit.strengths):
            rows += _row_at(known, plan.target, name, finished)
        else:
            rows += _rows(known, name)
    notes = [] if finished else [_unfinished(plan, known)]
    notes += [f"{name} is left out: {fit.refused}" for name, fit in fits.items() if fit.refused]
    if plan.target is None:
        notes += [note for name, fit in fits.items() if (note := _degenerate(known, name, fit))]
    if known.searched:
        counts = {name: sum(s.cell.method == name for s in known.searched.values()) for name in fits}
        said = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
        notes.append(f"settings were chosen on validation samples, at a middle strength and seed 0; trials: {said}")
    for what, machines in (
        ("trained", {r.trained_on for r in known.results.values()}),
        ("timed", {r.timed_on for r in known.results.values()}),
    ):
        if len(found := sorted(machines - {""})) > 1:
            notes.append(f"networks were {what} on different machines, compare times within one: {'; '.join(found)}")
    if (most := plan.budget.seconds) is not None:
        late = [f"{name} ({slow:.3g} s)" for name in fits if (slow := _slowest(known, name)) > LATE * most]
        notes += [f"longer than the {plan.budget} were trained: {', '.join(late)}"] if late else []
    untimed = [r for r in known.results.values() if r.latency_ms is None]
    if untimed and finished:
        notes.append(
            f"{len(untimed)} networks have no time: they are on another machine, where the same command measures them, "
            "or are no smaller form of the task's network"
        )
    return Table(
        rows,
        [*known.results.values()],
        [*known.failures.values()],
        [*known.searched.values()],
        notes,
        folder,
        finished=finished,
        baselines=[name for name, about in plan.described(study).items() if about.get("baseline")],
    )


def write_outcome(plan: Plan, study: Study, table: Table) -> Path:
    """Write ``comparison.json``, from which ``openwork report`` makes its page.

    Args:
        plan: What was to be compared.
        study: Where the results are.
        table: What it came to.

    Returns:
        Path of the file.

    Raises:
        OSError: If it cannot be written.
    """
    from openwork import __version__

    def plain(rows: Sequence[Result] | Sequence[Failure]) -> list[Json]:
        return [row.to_json() for row in rows]

    file, described = table.folder / FILE, plan.described(study)
    write_json(
        file,
        {
            "schema": SCHEMA,
            "openwork": __version__,
            "task": plan.task.name,
            "budget": str(plan.budget),
            "finished": table.finished,
            "configuration": plan.configuration(),
            "methods": {
                name: cast("dict[str, Json]", asdict(fit)) | described.get(name, {})
                for name, fit in plan.fits(study).items()
            },
            "machine": machine(),
            "results": plain(table.results),
            "failures": plain(table.failures),
            "searched": [trial.to_json() for trial in table.searched],
            "rows": [cast("Json", asdict(row)) for row in table.rows],
            "notes": list(table.notes),
        },
    )
    return file


def _slowest(known: Known, name: str) -> float:
    return max((r.seconds for r in _of(known.results, name)), default=0.0)


def _unfinished(plan: Plan, known: Known) -> str:
    """How far a comparison is."""
    ended = sum(map(known.finished, known.cells))
    # The next networks are only known once these are there.
    more = " so far" if plan.target is not None or plan.search else ""
    return (
        f"this comparison is not finished: {ended} of {len(known.cells)} networks{more} are trained or have failed; "
        "the same call goes on with it"
    )


def _rows(known: Known, name: str) -> list[Row]:
    """One for each strength."""
    results, failures = _of(known.results, name), _of(known.failures, name)
    strengths = sorted({one.cell.strength for one in (*results, *failures)})
    return [
        Row.of(
            [one for one in results if one.cell.strength == strength],
            [one for one in failures if one.cell.strength == strength],
        )
        for strength in strengths
    ]


def _row_at(known: Known, target: Target, name: str, finished: bool) -> list[Row]:
    """The networks of each seed that come nearest to the target."""
    chosen: list[Result] = []
    lost: list[Failure] = []
    notes: list[str] = []
    seeds = sorted({one.cell.seed for one in (*_of(known.results, name), *_of(known.failures, name))})
    for seed in seeds:
        tried = probed(known, target, name, seed) or []
        best = nearest([probe for probe, _ in tried])
        if best is None:
            lost += [one for _, one in tried if isinstance(one, Failure)][:1]
            continue
        probe, result = tried[best]
        chosen.append(cast("Result", result))
        reached = cast("float", probe.reached) * target.value
        if not target.met(reached):
            notes.append(
                f"seed {seed}: {target} was not met{'' if finished else ' yet'} with {len(tried)} networks, the "
                f"nearest is {target.measure}={reached:.3g} at strength {probe.strength:g}"
            )
    return [Row.of(chosen, lost, notes)] if chosen or lost else []


def _of(found: Mapping[str, T], method: str) -> list[T]:
    return [one for one in found.values() if one.cell.method == method and one.cell.trial is None]


def _degenerate(known: Known, name: str, fit: Fit) -> str:
    """What to say of a path of strengths that shows nothing; nothing if it shows something."""
    results = _of(known.results, name)
    if not results or not any(fit.strengths):
        return ""
    low, high = min(fit.strengths), max(fit.strengths)
    tried = f"strengths {low:.3g} to {high:.3g}" if low < high else f"strength {low:.3g}"
    if all(r.unstructured < SPARSE for r in results):
        most = max(r.unstructured for r in results)
        return (
            f"{name}: {tried} leave the network dense, at most {most:.2%} of the parameters are zero; "
            f"try {high:.3g} to {100 * high:.3g}"
        )
    if all(r.constant for r in results):
        return f"{name}: {tried} leave nothing of the network; try {low / 100:.3g} to {low:.3g}"
    dense = [r.cell.strength for r in results if r.unstructured < SPARSE]
    empty = [r.cell.strength for r in results if r.constant]
    if len(dense) + len(empty) == len(results):
        return (
            f"{name}: {tried} leave the network dense or leave nothing of it; try {max(dense):.3g} to {min(empty):.3g}"
        )
    return ""


__all__ = ["FILE", "outcome", "write_outcome"]
