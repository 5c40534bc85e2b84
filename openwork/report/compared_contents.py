"""What the report of a comparison says, as plain values: all of its ``report.json``, and all that its page shows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from openwork.files import Json
from openwork.report.compared import Compared, Failed, Point, Trained
from openwork.report.compared_lives import Lives
from openwork.report.contents import REPORT_SCHEMA
from openwork.report.marks import labels
from openwork.report.read import table
from openwork.report.summary import ALLOWED, COSTS, Quality, Reach, judge, pareto, quality_of, reaches, reference
from openwork.report.text import percent, significant


@dataclass(frozen=True)
class Alive:
    """How many groups of a weight were alive.

    Args:
        name: Name of the parameter.
        groups: All of them.
        first: At the first record.
        last: At the last record.
    """

    name: str
    groups: int
    first: int
    last: int


@dataclass(frozen=True)
class Level:
    """What the report says of one method at one strength, beyond the numbers of its networks.

    Args:
        strength: How sparse.
        zeros: Fraction of zeros in each weight, mean over the seeds that have it.
        alive: Groups of the first seed, for each weight that has a picture of them.
    """

    strength: float
    zeros: Mapping[str, float]
    alive: Sequence[Alive]


@dataclass(frozen=True)
class MethodContents:
    """What the report says of one method.

    Args:
        name: As in the files.
        label: Short name for a reader.
        about: One sentence on it; may be empty.
        baseline: Whether it is there to be compared with.
        levels: Its strengths, the smallest first.
        runs: Its networks.
        searched: Trials of the search for its settings.
    """

    name: str
    label: str
    about: str
    baseline: bool
    levels: Sequence[Level]
    runs: Sequence[Trained]
    searched: Sequence[Trained]


@dataclass(frozen=True)
class ComparedContents:
    """What the report of a comparison says.

    Args:
        headline: The result in one sentence.
        notes: What a reader must know to read the numbers right.
        task: Name of what was learned.
        budget: The same for all.
        finished: Whether nothing is left to train.
        configuration: What else was.
        machine: Where it ran.
        version: Of openwork; empty if unknown.
        quality: What a network is good at.
        judge: The measure that the strengths in ``reaches`` were chosen by.
        allowed: Losses of that measure, below the dense point, that ``reaches`` is about.
        dense: The point that removes nothing; None if there is none.
        points: Methods at their strengths, over seeds.
        frontiers: Numbers of the points on each frontier, from 0, by the name of the cost; of test numbers, for
            pictures, not for a choice.
        reaches: How far each method goes.
        methods: Methods with their networks.
        failed: Cells that gave no network.
    """

    headline: str
    notes: Sequence[str]
    task: str
    budget: str
    finished: bool
    configuration: Mapping[str, Json]
    machine: Mapping[str, Json]
    version: str
    quality: Quality
    judge: str
    allowed: Sequence[float]
    dense: Point | None
    points: Sequence[Point]
    frontiers: Mapping[str, Sequence[int]]
    reaches: Sequence[Reach]
    methods: Sequence[MethodContents]
    failed: Sequence[Failed]

    @property
    def labels(self) -> dict[str, str]:
        """Names of the methods for a reader."""
        return {method.name: method.label for method in self.methods}

    @property
    def baselines(self) -> list[str]:
        """Names of those to compare with."""
        return [method.name for method in self.methods if method.baseline]

    @property
    def validated(self) -> bool:
        """Whether strengths were chosen on validation samples."""
        return self.judge != self.quality.key

    def record(self) -> dict[str, Json]:
        """Plain values for ``report.json``."""
        return {"schema": REPORT_SCHEMA, **asdict(self)}


def compared_contents(compared: Compared, lives: Lives) -> ComparedContents:
    """Gather what the report says.

    Args:
        compared: What the files of the comparison say.
        lives: Pictures of groups, whose numbers are said too.

    Returns:
        The report as plain values.
    """
    found, quality = compared.points, quality_of(compared.points)
    reached = reaches(found, quality)
    names = list(dict.fromkeys(point.method for point in found))
    methods = [
        MethodContents(
            name,
            label,
            str(table(compared.methods, name).get("about", "")),
            table(compared.methods, name).get("baseline") is True,
            _levels([one for one in compared.trained if one.cell.method == name], lives),
            [one for one in compared.trained if one.cell.method == name],
            [one for one in compared.searched if one.cell.method == name],
        )
        for name, label in zip(names, labels(names), strict=True)
    ]
    return ComparedContents(
        headline=_headline(compared, reached, len(methods), reference(found)),
        notes=[*_notes(compared), *_choice(reached, judge(found, quality), quality)],
        task=compared.task,
        budget=compared.budget,
        finished=compared.finished,
        configuration=compared.configuration,
        machine=compared.machine,
        version=compared.version,
        quality=quality,
        judge=judge(found, quality),
        allowed=ALLOWED,
        dense=reference(found),
        points=found,
        frontiers={cost.key: [found.index(point) for point in pareto(found, quality, cost)] for cost in COSTS},
        reaches=reached,
        methods=methods,
        failed=compared.failed,
    )


def _levels(runs: Sequence[Trained], lives: Lives) -> list[Level]:
    made: list[Level] = []
    for strength in sorted({run.cell.strength for run in runs}):
        own = [run for run in runs if run.cell.strength == strength]
        zeros: dict[str, list[float]] = {}
        for run in own:
            for name, fraction in run.zeros.items():
                zeros.setdefault(name, []).append(fraction)
        pictures = lives.get((own[0].cell.method, strength), [])
        alive = [Alive(life.name, life.groups, life.first, life.last) for life in pictures]
        made.append(Level(strength, {name: fmean(fractions) for name, fractions in zeros.items()}, alive))
    return made


def _headline(compared: Compared, reached: Sequence[Reach], methods: int, dense: Point | None) -> str:
    many = f"{methods} method{'' if methods == 1 else 's'} on {compared.task}{'' if compared.finished else ' so far'}"
    furthest: list[str] = []
    last = 1.05  # a network that is no smaller than the dense one is no result
    for n in range(len(ALLOWED)):
        step = max((s for reach in reached if (s := reach.steps[n])), key=lambda s: s.compression, default=None)
        if step and step.compression > last:
            accuracy = f"{percent(step.accuracy, 1)}{'' if furthest else ' test accuracy'}"
            furthest.append(f"{significant(step.compression)}×{'' if furthest else ' compression'} at {accuracy}")
            last = step.compression
    if not furthest or dense is None:
        return f"{many}."
    return f"{many}: {', '.join(furthest)}; dense {percent(dense.values['accuracy'].mean, 1)}."


def _choice(reached: Sequence[Reach], by: str, quality: Quality) -> list[str]:
    """What chose the networks that the report names."""
    if not reached:
        return []
    *most, last = (f"{100 * loss:g}" for loss in ALLOWED)
    said = (
        "The headline and the table of how far each method goes are about the smallest networks within "
        f"{', '.join(most)} or {last} points of the dense one on"
    )
    if by != quality.key:
        return [f"{said} validation samples; test samples chose nothing."]
    return [
        f"{said} test samples, since some network has no number on validation samples. What is chosen by an accuracy "
        "looks better by it than it is."
    ]


def _notes(compared: Compared) -> list[str]:
    notes = [f"{text[:1].upper()}{text[1:].removesuffix('.')}." for text in compared.notes]
    notes += [f"{point.method}: {note.removesuffix('.')}." for point in compared.points for note in point.notes]
    if failed := len(compared.failed):
        notes.append(
            f"{failed} network{'' if failed == 1 else 's'} could not be trained; see Failures. A strength with a "
            "failure is on no frontier, since the mean over its other seeds would flatter it."
        )
    if all(point.seeds == 1 for point in compared.points):
        notes.append("There is one seed only, so nothing says how much of a difference is chance.")
    if not any("latency_ms" in point.values for point in compared.points):
        notes.append("Latency was not measured.")
    worst = max((one.numbers["test_unequal"] or 0.0 for one in compared.trained), default=0.0)
    notes.append(
        "Every network is finished: its zeros are exact, what nothing reads was taken out, and the smaller network "
        + (f"computes the same up to {worst:.1e} of its largest output. " if worst else "computes the same. ")
        + "Single zeros make a file smaller, not a network faster: only MACs and latency say what a computer saves."
    )
    return notes


__all__ = ["Alive", "ComparedContents", "Level", "MethodContents", "compared_contents"]
