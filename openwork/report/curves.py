"""Which curves a report draws."""

from collections.abc import Sequence

from openwork.report.charts import INKS, Chart, Line, Log
from openwork.report.contents import EVALUATIONS, RunContents
from openwork.report.text import Unit

MOST_MARKS = 8  # a schedule that changes the learning rate more often changes it all the time
COLORS = [ink for ink in INKS if len(ink) == 1]
DASHES = ("solid", "dashed", "dotted")


def training(run: RunContents) -> list[Chart]:
    """Accuracy, loss and sparsity over time, of the weights and of the structured weights."""
    charts = [
        _chart(
            run,
            label,
            Line("weights", _values(run, key), "a"),
            Line("structured weights", _values(run, f"structured_{key}"), "b", "dashed"),
            unit=unit,
            log="auto" if unit == "loss" else False,
        )
        for key, label, unit in sorted(EVALUATIONS, key=lambda evaluation: evaluation[2])  # accuracies, then losses
    ]
    sparsities = _chart(
        run,
        "Sparsity of the structured weights" if run.alternating is None else "Sparsity",
        Line("penalized weights" if run.single else "groups", _values(run, "group_sparsity"), "b"),
        *([] if run.single else [Line("groups, by size", _values(run, "weighted_group_sparsity"), "c", "dashed")]),
        Line("singular values", _values(run, "low_rank_level"), "d"),
        # A run that makes its zeros at the very end has none to show over time.
        Line("parameters", values if any(values := _values(run, "unstructured_sparsity")) else [], "f", "dotted"),
        unit="fraction",
    )
    losses = _chart(run, "Training loss", Line("loss", _values(run, "train_loss"), "a"), unit="loss", log="auto")
    # Alternating minimization has the loss beside that of its surrogate.
    return [*charts, sparsities, *([losses] if run.alternating is None else [])]


def factors(run: RunContents) -> list[Chart]:
    """How far the factors are: compression by threshold, balance, budget."""
    if run.factors is None:
        return []
    thresholds = [
        Line(f"below {name} is zero", values, COLORS[n % len(COLORS)], DASHES[n % len(DASHES)])
        for n, (name, values) in enumerate(run.factors.compression.items())
    ]
    return [
        _chart(
            run,
            "Compression ratio",
            *thresholds,
            unit="times",
            log="auto",
            caption="Lines far apart: many weights are still on their way to zero.",
        ),
        _chart(
            run,
            "Relative misalignment",
            Line("misalignment over penalty", _values(run, "relative_misalignment"), "a"),
            unit="residual",
            log=True,
            caption="0 where all factors of a weight are equally large, and L2 on them is the sparse penalty.",
        ),
        _chart(
            run,
            "Mean penalty",
            Line("penalty over strength, per weight", _values(run, "mean_penalty"), "c"),
            unit="residual",
            log=True,
        ),
        _chart(
            run,
            "Collapse budget spent",
            Line("budget", _values(run, "budget_spent"), "d"),
            unit="loss",
            caption="A weight without a gradient shrinks to exp(-budget) of itself.",
        ),
    ]


def certificate(run: RunContents) -> list[Chart]:
    """How exact the last steps were, and how long the structure has stood still."""
    return [
        _chart(
            run,
            "Residual",
            Line("residual", _values(run, "residual"), "c"),
            unit="residual",
            log=True,
            caption="Norm of a subgradient of the subproblem at its solution, in units of the loss gradient.",
        ),
        _chart(
            run,
            "Steps since the structure last changed",
            Line("steps", _values(run, "steps_unchanged"), "d"),
            unit="count",
            caption="A line that climbs to the end: the set of zeros has stopped changing.",
        ),
    ]


def comparison(runs: Sequence[RunContents]) -> list[Chart]:
    """Accuracy and sparsity of several runs over time; nothing when they are too many to tell apart."""
    if len(runs) > len(COLORS) * len(DASHES) or len({run.clock for run in runs}) > 1:
        return []
    times = sorted({time for run in runs for time in run.curves[run.clock] if time is not None})
    charts: list[Chart] = []
    for title, keys in (
        ("Test accuracy", ("structured_test_accuracy", "test_accuracy")),
        ("Validation accuracy", ("structured_valid_accuracy", "valid_accuracy")),
        ("Zero weights" if all(run.single for run in runs) else "Zero groups", ("group_sparsity",)),
        ("Zero singular values", ("low_rank_level",)),
        ("Zero parameters", ("unstructured_sparsity",)),
    ):
        lines: list[Line] = []
        for n, run in enumerate(runs):
            values = next((run.curves[key] for key in keys if key in run.curves), [])
            at = dict(zip(run.curves[run.clock], values, strict=False))
            dash = DASHES[n // len(COLORS)]
            lines.append(Line(run.name, [at.get(time) for time in times], COLORS[n % len(COLORS)], dash))
        charts.append(Chart(title, times, lines, "fraction", runs[0].clock))
    return charts


def _chart(run: RunContents, title: str, *lines: Line, unit: Unit, log: Log = False, caption: str = "") -> Chart:
    times = [0.0 if time is None else time for time in run.curves[run.clock]]
    return Chart(title, times, lines, unit, run.clock, caption, log, changes(times, _values(run, "lr")))


def _values(run: RunContents, key: str) -> Sequence[float | None]:
    return run.curves.get(key, [None] * len(run.curves[run.clock]))


def changes(times: Sequence[float], rates: Sequence[float | None]) -> list[float]:
    """Times at which a number such as the learning rate stepped; none if it moves all the time."""
    steps = [times[n] for n in range(1, len(times)) if rates[n] != rates[n - 1]]
    return steps if len(steps) <= MOST_MARKS else []
