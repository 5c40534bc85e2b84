"""The page: what the report says, as one HTML file."""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from openwork.files import Json
from openwork.report.alternating_section import alternating_section
from openwork.report.charts import Chart
from openwork.report.contents import EVALUATIONS, STRUCTURES, Contents, Layer, RunContents
from openwork.report.curves import certificate, comparison, factors, training
from openwork.report.html import cell, lines, named, notes_list, table
from openwork.report.life import Life, lives
from openwork.report.read import RunFolder
from openwork.report.shrunk_section import conditions, shrunk_section
from openwork.report.sketched_section import sketched_section
from openwork.report.text import shown

VARIANTS = (("weights", "weights"), ("structured", "structured"), ("final", "finished"))
PIXELS_HIGH = 128  # of a picture of groups: with no more groups than that, every group has sharp edges


def page(report: Contents, runs: Sequence[RunFolder]) -> str:
    """One HTML document that loads nothing.

    Args:
        report: What it says.
        runs: The runs it says it about, for the pictures of their groups.

    Returns:
        The document.

    Raises:
        ValueError: If a record of the groups is damaged.
    """
    style, script = (files("openwork.report").joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    alone = report.runs[0] if len(report.runs) == 1 else None
    body = [_header(report, alone)]
    if alone:
        body += [_results(alone), *_sections(alone, runs[0])]
    else:
        body.append(_table_of_runs(report.runs))
        body.append(_charts("Side by side", comparison(report.runs), say="The structured weights of every run."))
        body.append("<h2>Run by run</h2>")
        shared = _shared_notes(report.runs)
        for run, folder in zip(report.runs, runs, strict=True):
            body.append(_details(run, folder, [note for note in run.notes if note not in shared]))
    version = alone and alone.versions.get("openwork")
    made = f"Trained with openwork {escape(str(version))}. " if version else ""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(report.headline)}</title>",
            f"<style>\n{style}</style>",
            "</head>",
            "<body>",
            *body,
            f"<footer>{made}Every number on this page is in <code>report.json</code>.</footer>",
            f"<script>\n{script}</script>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _header(report: Contents, alone: RunContents | None) -> str:
    facts = _facts(alone) if alone else [", ".join(sorted({run.recipe for run in report.runs}))]
    lines = "".join(f"<span>{escape(fact)}</span>" for fact in facts)
    return (
        f'<header>\n<p class="over">openwork report</p>\n<h1>{escape(report.headline)}</h1>\n'
        f'<p class="under">{lines}</p>\n{notes_list(_shared_notes(report.runs))}</header>'
    )


def _shared_notes(runs: Sequence[RunContents]) -> list[str]:
    return [note for note in runs[0].notes if all(note in run.notes for run in runs)]


def _facts(run: RunContents) -> list[str]:
    times, seconds = run.curves[run.clock], run.curves.get("seconds", [None])[-1]
    facts = [run.recipe] if run.recipe == run.name else [run.recipe, f"run {run.name}"]
    facts.append("finished" if run.complete else "not finished")
    facts.append(f"{times[-1] or 0:,.0f} {run.clock}s")
    if seconds is not None:
        facts.append(_duration(seconds))
    return [*facts, run.created[:10]] if run.created else facts


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _results(run: RunContents) -> str:
    columns = [("weights", "Weights"), ("structured", "Structured weights"), ("final", "Finished network")]
    columns = [(key, label) for key, label in columns if any(getattr(r, key) is not None for r in run.results)]
    if not columns:
        return "<h2>Result</h2>\n<p>The run recorded no accuracy, loss or sparsity.</p>"
    rows = [
        f"<tr><th scope=row>{escape(result.label)}</th>"
        + "".join(cell(getattr(result, key), result.unit, main=key == columns[-1][0]) for key, _ in columns)
        + "</tr>"
        for result in run.results
    ]
    says = {
        "weights": f"Weights: as trained, at the last {run.clock}.",
        "structured": "Structured weights: the same with exact zeros, as the optimizer holds them at the last epoch.",
        "final": "Finished network: after the zeros were made final."
        if run.alternating is None
        else "Finished network: the weights that were chosen.",
    }
    head = "".join(f"<th scope=col>{label}</th>" for _, label in columns)
    return (
        f'<h2>Result</h2>\n<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead>\n'
        f"<tbody>{lines(rows)}</tbody></table></div>\n"
        f'<p class="say">{" ".join(says[key] for key, _ in columns)}</p>'
    )


def _table_of_runs(runs: Sequence[RunContents]) -> str:
    known = {key: _label(runs, key, label) for key, label, _ in (*EVALUATIONS, *STRUCTURES)}
    known = {key: label for key, label in known.items() if label}
    # One split of the data is enough here, that which no choice was made on; run by run there are both.
    split = "test" if known.keys() & {"test_accuracy", "test_loss"} else "valid"
    columns: list[tuple[str, str, str]] = []
    above, below = ["<th scope=col rowspan=2 data-sort=0>Run</th>"], list[str]()
    for key, label in known.items():
        evaluated = key.endswith(("_accuracy", "_loss"))
        if evaluated and not key.startswith(split):
            continue
        first = len(columns) + 1
        if not evaluated:
            columns.append((key, "best_known", label))
            above.append(f"<th scope=col rowspan=2 data-sort={first}>{escape(label)}</th>")
            continue
        found = [result for run in runs if (result := run.result(key))]
        variants = [(v, words) for v, words in VARIANTS if any(getattr(r, v) is not None for r in found)]
        columns += [(key, variant, words) for variant, words in variants]
        above.append(f"<th scope=colgroup colspan={len(variants)}>{escape(label)}</th>")
        below += [f"<th scope=col data-sort={n}>{words}</th>" for n, (_, words) in enumerate(variants, start=first)]
    shrunk = any(run.shrunk for run in runs)
    if shrunk:
        first = len(columns) + 1
        above.append("<th scope=colgroup colspan=2>Shrunk</th>")
        below += [
            f"<th scope=col data-sort={first}>parameters</th>",
            f"<th scope=col data-sort={first + 1}>speed-up</th>",
        ]
    rows = [
        f"<tr><th scope=row>{named(run.name)}"
        f"{'' if run.complete else '<small>not finished</small>'}</th>"
        + "".join(
            cell(getattr(result, variant), result.unit) if (result := run.result(key)) else cell(None, "count")
            for key, variant, _ in columns
        )
        + (_shrunk_cells(run) if shrunk else "")
        + "</tr>"
        for run in runs
    ]
    return (
        f'<h2>Results</h2>\n<div class="scroll"><table class="runs"><thead><tr>{"".join(above)}</tr>'
        f"<tr>{''.join(below)}</tr></thead>\n<tbody>{lines(rows)}</tbody></table></div>"
    )


def _label(runs: Sequence[RunContents], key: str, usual: str) -> str:
    """What all runs call a measure, or else its usual name; empty if none has it."""
    labels = {result.label for run in runs if (result := run.result(key))}
    return labels.pop() if len(labels) == 1 else usual if labels else ""


def _shrunk_cells(run: RunContents) -> str:
    after, timing = (run.shrunk.params.after, run.shrunk.timing) if run.shrunk else (None, None)
    if timing is None:
        return cell(after, "count") + cell(None, "times")
    batch = "" if timing.batch is None else f"batch {timing.batch:,}, "
    return cell(after, "count") + cell(timing.speedup.median, "times", small=f"{batch}{conditions(timing)}")


def _details(run: RunContents, folder: RunFolder, notes: Sequence[str]) -> str:
    inside = lines([notes_list(notes), _results(run), *_sections(run, folder)])
    return f"<details><summary>{named(run.name)} <span>{escape(run.headline)}</span></summary>{inside}</details>"


def _sections(run: RunContents, folder: RunFolder) -> list[str]:
    charts = training(run)
    marked = "A dotted upright line marks a change of the learning rate." if any(c.marks for c in charts) else ""
    exact = "How exactly the last step's subproblem was solved, and how long the set of zeros has stood still."
    return [
        shrunk_section(run.shrunk) if run.shrunk else "",
        _charts("Training", charts, say=marked, place=run.name),
        _factors(run),
        sketched_section(run, lambda title, drawn, say: _charts(title, drawn, say=say, place=run.name)),
        alternating_section(run, lambda title, drawn, say: _charts(title, drawn, say=say, place=run.name)),
        _layers(run.layers, single=run.single),
        _lives(lives(folder), single=run.single),
        _charts("Certificate", certificate(run), say=exact, place=run.name),
        _configuration(run),
    ]


def _charts(title: str, charts: Sequence[Chart], *, say: str, place: str = "") -> str:
    drawn = [_chart(chart, place) for chart in charts if chart.drawn]
    if not drawn:
        return ""
    told = f'<p class="say">{escape(say)}</p>\n' if say else ""
    return f'<h2>{escape(title)}</h2>\n{told}<div class="charts">{lines(drawn)}</div>'


def _chart(chart: Chart, place: str) -> str:
    legend = "".join(
        f'<span><i style="border-top-color:var(--ink-{line.ink});border-top-style:{line.dash}"></i>'
        f"{escape(line.label)}<data>{shown(line.values[-1], chart.unit)}</data></span>"
        for line in chart.drawn
    )
    hint = f'<p class="hint">{escape(chart.caption)}</p>' if chart.caption else ""
    return (
        f'<figure class="chart" data-chart="{escape(chart.readings())}"><figcaption>{escape(chart.title)}'
        f"<output>{chart.clock} {chart.times[-1]:g}</output></figcaption>"
        f'<div class="plot" role="img" aria-label="{escape(chart.title)} over time">{chart.svg(place)}</div>'
        f'<p class="legend">{legend}</p>{hint}</figure>'
    )


def _factors(run: RunContents) -> str:
    said = run.factors
    if said is None:
        return ""
    sentences = ["The weights are products of factors."]
    if said.spent is not None and said.planned is not None:
        sentences.append(
            f"Collapse budget: {said.spent:.3g} spent, {said.planned:.3g} planned; from about 14 on weights reach zero."
        )
    if said.onset is not None:
        sentences.append(f"The first exact zeros came in epoch {said.onset:g}.")
    drawn = _charts("Factors", factors(run), say=" ".join(sentences), place=run.name)
    if not said.thresholds:
        return drawn
    rows = [
        f"<tr><th scope=row>{escape(t.threshold)}</th>{cell(t.compression_ratio, 'times')}"
        f"{cell(t.accuracy, 'fraction')}{cell(t.loss, 'loss')}</tr>"
        for t in said.thresholds
    ]
    head = ("Zero below", "Compression ratio", "Validation accuracy", "Validation loss")
    return (
        f"{drawn}\n<h3>Other thresholds</h3>\n"
        '<p class="say">What would be left, and how well it would predict, if larger weights counted as zero too.</p>\n'
        f"{table(head, rows)}"
    )


def _layers(layers: Sequence[Layer], *, single: bool) -> str:
    if not layers:
        return ""
    what = "Weights that are not zero, out of all."
    if not single:
        what = (
            "Groups that are not zero, out of all, and the entries in each; singular values where the penalty acts on "
            "the rank."
        )
    rows = [
        f"<tr><th scope=row>{named(layer.name)}</th>{cell(layer.alive, 'count')}"
        f"{cell(layer.total, 'count')}{cell(layer.size, 'count')}"
        f'<td class="bar" data-value="{layer.sparsity!r}"><span>{shown(layer.sparsity, "fraction")}</span> '
        f'<i><b style="width:{100 * layer.sparsity:.2f}%"></b></i></td></tr>'
        for layer in layers
    ]
    return (
        f'<h2>Sparsity per layer</h2>\n<p class="say">{what}</p>\n<div class="scroll"><table><thead><tr>'
        "<th scope=col>Weight</th><th scope=col>Alive</th><th scope=col>Of</th><th scope=col>Group size</th>"
        f'<th scope=col class="bar">Zero</th></tr></thead>\n<tbody>{lines(rows)}</tbody></table></div>'
    )


def _lives(pictures: Sequence[Life], *, single: bool) -> str:
    what = "weights" if single else "groups"
    figures = [
        f'<figure><img src="{life.url}" class="{"sharp" if life.groups <= PIXELS_HIGH else "smooth"}" '
        f'alt="{escape(life.name)}: {life.last} of {life.groups} {what} alive at the end, {life.first} at the start">'
        f"<figcaption>{named(life.name)}"
        f"<span>{life.last:,} of {life.groups:,}</span></figcaption></figure>"
        for life in pictures
    ]
    if not figures:
        return ""
    return (
        f'<h2>Which {what} are alive</h2>\n<p class="say">Time runs from left to right and {what} from top to bottom: '
        "blue while one is alive, bare while it is zero; where there are too many for a line each, the shade is "
        f'the fraction alive.</p>\n<div class="lives">{lines(figures)}</div>'
    )


def _configuration(run: RunContents) -> str:
    where = [*run.machine.items(), *run.versions.items()]
    if run.created:
        where.append(("created", run.created))
    lists = [("Recipe", [("recipe", run.recipe), *run.arguments.items()]), ("Machine", where)]
    told = "".join(f"<div><h3>{title}</h3><dl>{_entries(entries)}</dl></div>" for title, entries in lists if entries)
    return f'<h2>Configuration</h2>\n<div class="facts">{told}</div>'


def _entries(entries: Iterable[tuple[str, Json]]) -> str:
    return "".join(f"<dt>{escape(key)}</dt><dd>{escape(_plain(value))}</dd>" for key, value in entries)


def _plain(value: Json) -> str:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return str(value)
    return ", ".join(_plain(item) for item in value)
