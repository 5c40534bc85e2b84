"""The section of the page on sketched training."""

from collections.abc import Callable, Sequence
from html import escape

from openwork.report.charts import Chart, Line
from openwork.report.contents import RunContents
from openwork.report.html import cell, table
from openwork.report.sketched import SketchContents, Traffic
from openwork.report.text import Unit, percent, shown

SCHEMES = {
    "ring": "Dense gradients, all-reduce around a ring",
    "replicated": "Perm-K, every worker holds all weights",
    "sharded": "Perm-K, every weight is held by one worker",
    "server": "Perm-K, between a worker and a server, each way",
    "rand_k": "Independent Rand-K, gathered",
}
RULES = {
    "random": "a random mask",
    "best_of": "the best of several random masks by validation accuracy",
    "magnitude": "the largest entries or units",
    "nested": "the first entries or units",
}
MEASURES: dict[str, tuple[str, Unit]] = {
    "accuracy": ("Validation accuracy of pruned models", "fraction"),
    "loss": ("Validation loss of pruned models", "loss"),
}


def sketched_section(run: RunContents, charts: Callable[[str, Sequence[Chart], str], str]) -> str:
    """The section on sketches; empty if the run had none.

    Args:
        run: What the report says.
        charts: Draws charts under a title, with a sentence.
    """
    said = run.sketch
    if said is None:
        return ""
    drawn = charts("Under sketches", [_loss(run), *_curves(said)], " ".join(_sentences(said)))
    return "\n".join(
        part for part in (drawn, _delta(said), "" if said.traffic is None else _sent(said.traffic)) if part
    )


def _sentences(said: SketchContents) -> list[str]:
    found = [f"Trained under {said.law}." if said.law else "Trained under sketches."]
    if said.loss is not None and said.stderr is not None and said.draws is not None:
        found.append(
            f"The validation loss under that law is {shown(said.loss, 'loss')} ± {said.stderr:.2g} (mean and standard "
            f"error of {said.draws:,.0f} draws)."
        )
    if said.keep is not None:
        found.append(f"The finished network keeps {percent(said.keep, 0)}: {RULES.get(said.rule, said.rule)}.")
    return found


def _loss(run: RunContents) -> Chart:
    times = [0.0 if time is None else time for time in run.curves[run.clock]]
    nothing: Sequence[float | None] = [None] * len(times)
    mean, error = (run.curves.get(key, nothing) for key in ("sketched_loss", "sketched_loss_stderr"))
    ends = [
        [None if m is None or e is None else m + sign * e for m, e in zip(mean, error, strict=True)] for sign in (1, -1)
    ]
    lines = [
        Line("under the law", mean, "b"),
        Line("plus its standard error", ends[0], "b", "dotted"),
        Line("minus its standard error", ends[1], "b", "dotted"),
        Line("dense model", run.curves.get("valid_loss", nothing), "a", "dashed"),
    ]
    return Chart("Validation loss under the law", times, lines, "loss", run.clock, log="auto")


def _curves(said: SketchContents) -> list[Chart]:
    caption = f"Over {said.masks:,.0f} random masks at each ratio." if said.masks else ""
    found: list[Chart] = []
    for name, of in said.curve.items():
        title, unit = MEASURES.get(name, (name, "loss"))
        lines = [
            Line("mean", of["mean"], "b"),
            Line("a quarter is above", of["third_quartile"], "c", "dashed"),
            Line("a quarter is below", of["first_quartile"], "c", "dashed"),
            Line("largest", of["max"], "d", "dotted"),
            Line("smallest", of["min"], "d", "dotted"),
        ]
        found.append(
            Chart(title, said.ratios, lines, unit, "keep ratio", caption, log="auto" if unit == "loss" else False)
        )
    return found


def _delta(said: SketchContents) -> str:
    values, entries, size = (said.delta.get(key) for key in ("values", "entries", "file_bytes"))
    if values is None or entries is None or size is None:
        return ""
    return (
        f'<p class="say">As a delta of its base model it is {values:,.0f} of {entries:,.0f} values, in a file of '
        f"{shown(size, 'bytes')}; the dense values alone are {shown(4 * entries, 'bytes')}.</p>"
    )


def _sent(traffic: Traffic) -> str:
    rows = [
        f"<tr><th scope=row>{escape(SCHEMES.get(name, name))}</th>{''.join(cell(sent, 'bytes') for sent in row)}</tr>"
        for name, row in traffic.bytes.items()
    ]
    head = ("Scheme", *(f"{n:,.0f} workers" for n in traffic.workers))
    told = (
        f"Bytes that each worker would send for one step of this model of {traffic.size:,.0f} numbers, by formula, "
        "at 4 bytes each; this run had one worker."
    )
    return f'<h3>Traffic</h3>\n<p class="say">{told}</p>\n{table(head, rows)}'


__all__ = ["sketched_section"]
