"""The page of a comparison."""

from collections.abc import Sequence
from html import escape

from openwork.report.compared import Point
from openwork.report.compared_contents import ComparedContents
from openwork.report.compared_lives import Lives
from openwork.report.frontier import frontier
from openwork.report.html import cell, described, document, header, lines, named
from openwork.report.marks import icon
from openwork.report.methods_section import methods_section
from openwork.report.scatter import spread_text
from openwork.report.summary import MEASURES, Step
from openwork.report.text import Unit, shown


def compared_page(report: ComparedContents, lives: Lives) -> str:
    """One HTML document that loads nothing.

    Args:
        report: What it says.
        lives: Pictures of groups.

    Returns:
        The document.
    """
    body = [
        header(report.headline, _facts(report), report.notes),
        _frontier(report),
        _reaches(report),
        _table(report),
        _failures(report),
        methods_section(report, lives),
        _configuration(report),
    ]
    return document(report.headline, body, made=f"Compared with openwork {report.version}. " if report.version else "")


def _facts(report: ComparedContents) -> list[str]:
    networks = sum(len(method.runs) for method in report.methods)
    seeds = len({run.cell.seed for method in report.methods for run in method.runs})
    facts = [report.task, f"{len(report.methods)} methods", f"{networks} networks"]
    facts += [f"{seeds} seed{'' if seeds == 1 else 's'}", *([f"{report.budget} each"] if report.budget else [])]
    return [*facts, f"target {target}"] if (target := report.configuration.get("target")) else facts


def _frontier(report: ComparedContents) -> str:
    spread = any(point.seeds > 1 for point in report.points)
    target = report.configuration.get("target")
    said = [
        f"One mark is one method at {'the strengths that come nearest to the target' if target else 'one strength'}"
        + (
            ", the mean over seeds; bars reach one standard deviation, of costs as a factor both ways."
            if spread
            else "."
        ),
        "Up and to the right is better in each picture.",
        "Ringed marks and the stepped line: nothing else is both better and cheaper. All of this is test numbers: "
        "a picture of what there is, not a way to choose.",
    ]
    if report.baselines:
        said.append("Hollow marks are baselines.")
    drawn = frontier(report.points, report.quality, report.labels, report.baselines)
    return f'<h2>Frontier</h2>\n<p class="say">{" ".join(said)}</p>\n{drawn}'


def _reaches(report: ComparedContents) -> str:
    if not report.reaches or report.dense is None:
        return ""
    icons = _icons(report)
    columns = [
        [step.compression for reach in report.reaches if (step := reach.steps[n])] for n in range(len(report.allowed))
    ]
    # The best of a column means something where there is a choice.
    best = [max(column) if len(column) > 1 else None for column in columns]
    rows = [
        f"<tr><th scope=row>{icons[reach.method]}{named(report.labels[reach.method])}</th>"
        + "".join(_step(step, best[n]) for n, step in enumerate(reach.steps))
        + cell(reach.best.accuracy, "fraction", small=f"at {reach.best.strength:.3g}")
        + "</tr>"
        for reach in report.reaches
    ]
    heads = ["Method", *(f"Within {100 * loss:g} point{'s' if loss > 0.01 else ''}" for loss in report.allowed)]
    if report.validated:
        samples, last, why = "validation", "Test accuracy, best on validation", ""
    else:
        samples, last = "test", "Best test accuracy"
        why = (
            " Some network has no number on validation samples, so the test samples choose, which flatters the choice."
        )
    dense = shown(report.dense.mean("accuracy"), "fraction")
    return (
        '<h3>How far each method goes</h3>\n<p class="say">Among the strengths tried, the one with the largest '
        f"compression ratio whose mean {samples} accuracy is at most so much below that of the dense network; in the "
        f"last column, the one with the best mean {samples} accuracy. Below the ratio: test accuracy of that choice, "
        f"and its strength. The dense network has {dense} test accuracy. Nothing is interpolated.{why}</p>\n"
        f"{_sortable([*heads, last], rows, kind='runs reaches')}"
    )


def _step(step: Step | None, best: float | None) -> str:
    if step is None:
        return cell(None, "times")
    told = f"<span>{shown(step.accuracy, 'fraction')}</span> <span>at {step.strength:.3g}</span>"
    return (
        f'<td data-value="{step.compression!r}"{" class=main" if step.compression == best else ""}>'
        f"{shown(step.compression, 'times')}<small>{told}</small></td>"
    )


def _table(report: ComparedContents) -> str:
    measures = [m for m in MEASURES if any(m[0] in point.values for point in report.points)]
    # Of quality one measure is enough here, run by run there are all; that on validation samples is there to choose by.
    others = {"accuracy", "loss", "valid_accuracy", "valid_loss"} - {key := report.quality.key, f"valid_{key}"}
    measures = [m for m in measures if m[0] not in others]
    valid = any(measure.startswith("valid_") for measure, _, _ in measures)
    front = report.frontiers["compression"]
    icons = _icons(report)
    rows = [
        f"<tr{' class=front' if n in front else ''}>"
        f"<th scope=row>{icons[point.method]}{named(report.labels[point.method])}</th>"
        f'<td data-value="{point.strength!r}">{point.strength:.3g}</td>'
        f'<td data-value="{point.seeds}">{_seeds(point)}</td>'
        + "".join(_spread(point, key, unit) for key, _, unit in measures)
        + "</tr>"
        for n, point in enumerate(report.points)
    ]
    heads = ["Method", "Strength", "Seeds", *(label for _, label, _ in measures)]
    bold = "Bold: on the frontier of compression, by test numbers. " if front else ""
    choose = "Choose by validation numbers; test numbers say what the choice is worth. " if valid else ""
    return (
        f'<h2>Results</h2>\n<p class="say">Mean ± standard deviation over seeds; of accuracy in points. {bold}{choose}'
        "Zeros are those of the weights as trained; compression, parameters, file, MACs and latency (batch of one) "
        "those of the finished network, without what nothing reads and with layers of low rank split in two. "
        "Click a heading to sort.</p>\n"
        f"{_sortable(heads, rows, kind='runs wide')}"
    )


def _seeds(point: Point) -> str:
    failed = len(point.failures)
    return f"{point.seeds} of {point.seeds + failed}" if failed else f"{point.seeds}"


def _spread(point: Point, key: str, unit: Unit) -> str:
    if key not in point.values:
        return cell(None, unit)
    spread = point.values[key]
    mean, _, std = spread_text(spread, unit).partition(" ± ")
    return f'<td data-value="{spread.mean!r}">{mean}{f"<small>± {std}</small>" if std else ""}</td>'


def _icons(report: ComparedContents) -> dict[str, str]:
    return {method.name: icon(n, hollow=method.baseline) for n, method in enumerate(report.methods)}


def _sortable(heads: Sequence[str], rows: Sequence[str], *, kind: str) -> str:
    columns = "".join(f"<th scope=col data-sort={n}>{escape(head)}</th>" for n, head in enumerate(heads))
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{columns}</tr></thead>\n'
        f"<tbody>{lines(rows)}</tbody></table></div>"
    )


def _failures(report: ComparedContents) -> str:
    if not report.failed:
        return ""
    rows = [
        f"<tr><th scope=row>{named(failed.cell.method)}</th>"
        f'<td data-value="{failed.cell.strength!r}">{failed.cell.strength:.3g}</td>'
        f'<td data-value="{failed.cell.seed}">{failed.cell.seed}</td><td class=words>{escape(failed.reason)}</td></tr>'
        for failed in report.failed
    ]
    heads = "".join(f"<th scope=col>{head}</th>" for head in ("Method", "Strength", "Seed", "What happened"))
    return (
        f'<h2>Failures</h2>\n<div class="scroll"><table class="reasons"><thead><tr>{heads}</tr></thead>\n'
        f"<tbody>{lines(rows)}</tbody></table></div>"
    )


def _configuration(report: ComparedContents) -> str:
    facts = {"task": report.task, "budget": report.budget, **report.configuration}
    lists = [("Comparison", list(facts.items())), ("Machine", list(report.machine.items()))]
    told = "".join(f"<div><h3>{title}</h3><dl>{described(entries)}</dl></div>" for title, entries in lists if entries)
    return f'<h2>Configuration</h2>\n<div class="facts">{told}</div>'


__all__ = ["compared_page"]
