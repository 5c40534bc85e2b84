"""What the report of a comparison says, as plain values: all of its ``report.json``, and all that its page shows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from openwork.files import Json
from openwork.report.compared import Compared, Failed, Trained
from openwork.report.contents import REPORT_SCHEMA
from openwork.report.marks import labels
from openwork.report.read import table
from openwork.report.summary import ALLOWED, Point, Quality, Reach, points, quality_of, reaches, reference
from openwork.report.text import significant


@dataclass(frozen=True)
class MethodContents:
    """What the report says of one method.

    Args:
        name: As in the files.
        label: Short name for a reader.
        about: One sentence on it; may be empty.
        baseline: Whether it is there to be compared with.
        runs: Its networks.
    """

    name: str
    label: str
    about: str
    baseline: bool
    runs: Sequence[Trained]


@dataclass(frozen=True)
class ComparedContents:
    """What the report of a comparison says.

    Args:
        headline: The result in one sentence.
        notes: What a reader must know to read the numbers right.
        task: Name of what was learned.
        budget: The same for all.
        machine: Where it ran.
        quality: What a network is good at.
        dense: The point that removes nothing; None if there is none.
        points: Means over seeds, by method and strength.
        reaches: How far each method goes.
        methods: Methods with their networks.
        failed: Cells that gave no network.
        total: Cells that there are.
    """

    headline: str
    notes: Sequence[str]
    task: str
    budget: Mapping[str, Json]
    machine: Mapping[str, Json]
    quality: Quality
    dense: Point | None
    points: Sequence[Point]
    reaches: Sequence[Reach]
    methods: Sequence[MethodContents]
    failed: Sequence[Failed]
    total: int

    @property
    def labels(self) -> dict[str, str]:
        """Names of the methods for a reader."""
        return {method.name: method.label for method in self.methods}

    @property
    def baselines(self) -> list[str]:
        """Names of those to compare with."""
        return [method.name for method in self.methods if method.baseline]

    def record(self) -> dict[str, Json]:
        """Plain values for ``report.json``."""
        return {"schema": REPORT_SCHEMA, **asdict(self)}


def compared_contents(compared: Compared) -> ComparedContents:
    """Gather what the report says.

    Args:
        compared: What the files of the comparison say.

    Returns:
        The report as plain values.
    """
    quality = quality_of(compared.trained)
    found = points(compared, quality)
    reached = reaches(found, quality)
    names = list(dict.fromkeys(one.cell.method for one in compared.trained))
    methods = [
        MethodContents(
            name,
            label,
            str(table(compared.about, name).get("about", "")),
            table(compared.about, name).get("baseline") is True,
            [one for one in compared.trained if one.cell.method == name],
        )
        for name, label in zip(names, labels(names), strict=True)
    ]
    return ComparedContents(
        headline=_headline(compared, reached, len(methods)),
        notes=_notes(compared, found, quality),
        task=compared.task,
        budget=compared.budget,
        machine=compared.machine,
        quality=quality,
        dense=reference(found),
        points=found,
        reaches=reached,
        methods=methods,
        failed=compared.failed,
        total=compared.total,
    )


def _headline(compared: Compared, reached: Sequence[Reach], methods: int) -> str:
    many = f"{_many(methods, 'method')} on {compared.task}"
    furthest: list[str] = []
    for n, loss in enumerate(ALLOWED):
        ratio = max((pair[1] for reach in reached if (pair := reach.points[n])), default=1.0)
        # A network that is no smaller than the dense one is no result.
        if ratio > 1.05:
            points = f"{100 * loss:g} point{'s' if loss > 0.01 else ''}"
            within = f"{100 * loss:g}" if furthest else f"{points} of dense"
            furthest.append(f"{significant(ratio)}×{'' if furthest else ' compression'} within {within}")
    return f"{many}: {', '.join(furthest)}." if furthest else f"{many}."


def _notes(compared: Compared, found: Sequence[Point], quality: Quality) -> list[str]:
    notes: list[str] = []
    missing = compared.total - len(compared.trained) - len(compared.failed)
    if missing:
        notes.append(f"The comparison is not finished: {missing} of {compared.total} networks are still to come.")
    if compared.failed:
        notes.append(
            f"{_many(len(compared.failed), 'network')} could not be trained; see Failures. A strength with a failure is "
            "on no frontier, since the mean over its other seeds would flatter it."
        )
    silent = sum(one.numbers[quality.key] is None for one in compared.trained)
    if silent:
        notes.append(
            f"{_many(silent, 'network')} diverged: {'it has' if silent == 1 else 'they have'} no {quality.label.lower()}."
        )
    if all(point.wanted == 1 for point in found):
        notes.append("There is one seed only, so nothing says how much of a difference is chance.")
    timed = sum(one.numbers["latency_ms"] is not None for one in compared.trained)
    if not timed:
        notes.append("Latency was not measured.")
    elif timed < len(compared.trained):
        notes.append(f"Latency was measured for {timed} of {len(compared.trained)} networks.")
    worst = max((one.numbers["difference"] or 0.0 for one in compared.trained), default=0.0)
    notes.append(
        "Every network is finished: its zeros are exact, what nothing reads was taken out, and the smaller network "
        + (f"computes the same up to {worst:.1e} of its largest output. " if worst else "computes the same. ")
        + "Single zeros make a file smaller, not a network faster: only MACs and latency say what a computer saves."
    )
    return notes


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


__all__ = ["ComparedContents", "MethodContents", "compared_contents"]
