"""The section of a comparison on its methods, one after the other: curves, layers, widths, runs."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Literal

from openwork.report.charts import Chart, Line
from openwork.report.compared import Compared, Trained
from openwork.report.compared_contents import ComparedContents, MethodContents
from openwork.report.figures import charts_section, life_figure
from openwork.report.html import cell, described, lines, named, table
from openwork.report.life import lives
from openwork.report.marks import COLORS, icon
from openwork.report.read import RunFolder
from openwork.report.summary import Point
from openwork.report.text import Unit, shown

DASHES: Sequence[Literal["solid", "dashed", "dotted"]] = ("solid", "dashed", "dotted")
MOST_LAYERS = 40  # of a table; of more, those with the most zeros
MOST_PICTURES = 8  # of one network
PICTURES_BYTES = 900_000  # of all networks together, as addresses in the page
CURVES: Sequence[tuple[str, Sequence[str], Unit]] = (
    ("Validation accuracy", ("structured_valid_accuracy", "valid_accuracy"), "fraction"),
    ("Validation loss", ("structured_valid_loss", "valid_loss"), "loss"),
    ("Zero parameters", ("unstructured_sparsity",), "fraction"),
    ("Training loss", ("train_loss",), "loss"),
)
RUN_MEASURES: Sequence[tuple[str, str, Unit]] = (
    ("test_accuracy", "Test accuracy", "fraction"),
    ("valid_accuracy", "Validation accuracy", "fraction"),
    ("test_loss", "Test loss", "loss"),
    ("compression_ratio", "Compression ratio", "times"),
    ("unstructured_sparsity", "Zero parameters", "fraction"),
    ("params", "Parameters", "count"),
    ("macs", "MACs", "count"),
    ("latency_ms", "Latency", "ms"),
    ("seconds", "Training", "s"),
    ("difference", "Outputs differ by", "residual"),
)
DENSE = {"params": "dense_params", "macs": "dense_macs", "latency_ms": "dense_latency_ms"}


def methods_section(report: ComparedContents, compared: Compared) -> str:
    """What there is to say of each method.

    Args:
        report: What the report says.
        compared: What the files say, for the pictures of groups.

    Returns:
        One folded part per method.

    Raises:
        ValueError: If a record of the groups is damaged.
    """
    pictures = _pictures(report, compared)
    parts = [
        _method(n, method, [p for p in report.points if p.method == method.name], pictures)
        for n, method in enumerate(report.methods)
    ]
    return f"<h2>Method by method</h2>\n{lines(parts)}"


def _method(n: int, method: MethodContents, points: Sequence[Point], pictures: Mapping[str, str]) -> str:
    drawn = [pictures[run.cell.folder] for run in method.runs if run.cell.folder in pictures]
    inside = lines(
        [
            f'<p class="say">{escape(method.about)}</p>' if method.about else "",
            charts_section(
                "Training",
                _curves(method),
                say="Of the structured weights, where a method has them.",
                place=method.name,
            ),
            _layers(method.runs, points),
            _widths(method.runs, points),
            _lives(drawn, method),
            _runs(method.runs),
            _settings(method.runs),
        ]
    )
    networks = f"{len(method.runs)} network{'' if len(method.runs) == 1 else 's'}"
    return (
        f"<details><summary>{icon(n, hollow=method.baseline)}{named(method.label)} <span>{networks}</span></summary>"
        f"{inside}</details>"
    )


def _curves(method: MethodContents) -> list[Chart]:
    runs = [run for run in method.runs if run.curves.get(run.clock)]
    if not runs or len({run.clock for run in runs}) > 1:
        return []
    clock = runs[0].clock
    times = sorted({time for run in runs for time in run.curves[clock] if time is not None})
    strengths = sorted({run.cell.strength for run in runs})
    seeds = sorted({run.cell.seed for run in runs})
    # As many as can be told apart, color by strength and dashes by seed.
    strengths, drawn_seeds = _picked(strengths, len(COLORS)), seeds[: len(DASHES)]
    fewer = "" if seeds == drawn_seeds else f"Of the first {len(drawn_seeds)} of {len(seeds)} seeds."
    by_accuracy = any("valid_accuracy" in run.curves for run in runs)
    charts: list[Chart] = []
    for title, keys, unit in CURVES:
        if title == "Validation loss" and by_accuracy:
            continue
        drawn: list[Line] = []
        for run in runs:
            if run.cell.strength not in strengths or run.cell.seed not in drawn_seeds:
                continue
            values = next((run.curves[key] for key in keys if key in run.curves), [])
            at = dict(zip(run.curves[clock], values, strict=False))
            dash = DASHES[drawn_seeds.index(run.cell.seed)]
            label = f"{run.cell.strength:.3g}" + (f", seed {run.cell.seed}" if len(seeds) > 1 else "")
            drawn.append(
                Line(label, [at.get(time) for time in times], COLORS[strengths.index(run.cell.strength)], dash)
            )
        log = "auto" if unit == "loss" else False
        charts.append(Chart(title, times, drawn, unit, clock, fewer, log))
    return charts


def _picked(strengths: Sequence[float], most: int) -> list[float]:
    """So many of them at most, the first and the last among them."""
    if len(strengths) <= most:
        return list(strengths)
    return [strengths[round(n * (len(strengths) - 1) / (most - 1))] for n in range(most)]


def _layers(runs: Sequence[Trained], points: Sequence[Point]) -> str:
    names = list(dict.fromkeys(name for run in runs for name in run.zeros))
    if not names:
        return ""
    by_strength = _by_strength(runs, points)

    def mean(own: Sequence[Trained], name: str) -> float | None:
        found = [run.zeros[name] for run in own if name in run.zeros]
        return sum(found) / len(found) if found else None

    told = "Fraction of zeros in each weight, by strength; the mean over seeds."
    if len(names) > MOST_LAYERS:
        told += f" The {MOST_LAYERS} of {len(names):,} weights with the most zeros."
        totals = {name: sum(mean(own, name) or 0.0 for own in by_strength.values()) for name in names}
        kept = sorted(names, key=lambda name: -totals[name])[:MOST_LAYERS]
        names = [name for name in names if name in kept]
    rows = [
        f"<tr><th scope=row>{named(name)}</th>"
        + "".join(_share(mean(own, name)) for own in by_strength.values())
        + "</tr>"
        for name in names
    ]
    heads = ["Weight", *(f"{strength:.3g}" for strength in by_strength)]
    return f'<h2>Sparsity per layer</h2>\n<p class="say">{told}</p>\n{table(heads, rows, kind="shares")}'


def _share(value: float | None) -> str:
    if value is None:
        return '<td class="none">–</td>'
    return f'<td>{shown(value, "fraction")}<i><b style="width:{100 * value:.1f}%"></b></i></td>'


def _widths(runs: Sequence[Trained], points: Sequence[Point]) -> str:
    before = {name: pair[0] for run in runs for name, pair in run.widths.items()}
    if not before:
        return ""
    by_strength = _by_strength(runs, points)
    rows = [
        f'<tr><th scope=row>{named(name)}</th><td data-value="{units}">{units:,}</td>'
        + "".join(_after(name, units, own) for own in by_strength.values())
        + "</tr>"
        for name, units in before.items()
    ]
    heads = ["Units of", "Before", *(f"{strength:.3g}" for strength in by_strength)]
    several = "; one number per seed" if any(len(own) > 1 for own in by_strength.values()) else ""
    return (
        f'<h2>Architecture</h2>\n<p class="say">Units before and after what nothing reads was taken out, by '
        f"strength{several}. Bars: what is left.</p>\n{table(heads, rows, kind='shares')}"
    )


def _after(name: str, units: int, own: Sequence[Trained]) -> str:
    found = [run.widths[name][1] for run in own if name in run.widths]
    if not found:
        return '<td class="none">–</td>'
    told = ", ".join(f'<data value="{after}">{after:,}</data>' for after in found)
    left = 100 * sum(found) / len(found) / max(1, units)
    return f'<td>{told}<i><b style="width:{left:.1f}%"></b></i></td>'


def _by_strength(runs: Sequence[Trained], points: Sequence[Point]) -> dict[float, list[Trained]]:
    return {
        point.strength: [run for run in runs if f"{run.cell.strength:.6g}" == f"{point.strength:.6g}"]
        for point in points
    }


def _pictures(report: ComparedContents, compared: Compared) -> dict[str, str]:
    """Pictures of the first seed of each method and strength, as many as the page has room for."""
    room, drawn = PICTURES_BYTES, dict[str, str]()
    for run in _first_seeds(report):
        records = compared.records(run.cell)
        if not records:
            continue
        found = lives(RunFolder(compared.folder / "runs" / run.cell.folder, {}, records, None))[:MOST_PICTURES]
        picture = "".join(life_figure(life, single=False) for life in found)
        room -= len(picture)
        if room < 0:
            break
        if picture:
            drawn[run.cell.folder] = f'<h3>Strength {run.cell.strength:.3g}</h3>\n<div class="lives">{picture}</div>'
    return drawn


def _first_seeds(report: ComparedContents) -> Iterator[Trained]:
    """One network of each point, method after method within each strength, so that no method is left out first."""
    by_method = [
        [min(own, key=lambda run: run.cell.seed) for own in _by_strength(method.runs, points).values() if own]
        for method in report.methods
        if (points := [p for p in report.points if p.method == method.name])
    ]
    for n in range(max(map(len, by_method), default=0)):
        yield from (own[n] for own in by_method if n < len(own))


def _lives(drawn: Sequence[str], method: MethodContents) -> str:
    if not drawn:
        return ""
    return (
        '<h2>Which groups are alive</h2>\n<p class="say">Time runs from left to right and groups from top to bottom: '
        "blue while one is alive, bare while it is zero. Of the first seed"
        f"{'' if len(drawn) == len({run.cell.strength for run in method.runs}) else ', as far as the page has room'}"
        f".</p>\n{lines(drawn)}"
    )


def _runs(runs: Sequence[Trained]) -> str:
    measures = [m for m in RUN_MEASURES if any(run.numbers[m[0]] is not None for run in runs)]
    rows = [
        f'<tr><th scope=row>{run.cell.strength:.3g}</th><td data-value="{run.cell.seed}">{run.cell.seed}</td>'
        + "".join(_number(run, key, unit) for key, _, unit in measures)
        + "</tr>"
        for run in runs
    ]
    return f"<h2>Runs</h2>\n{table(['Strength', 'Seed', *(label for _, label, _ in measures)], rows, kind='runs')}"


def _number(run: Trained, key: str, unit: Unit) -> str:
    before = run.numbers.get(DENSE.get(key, ""))
    return cell(run.numbers[key], unit, small="" if before is None else f"of {shown(before, unit)}")


def _settings(runs: Sequence[Trained]) -> str:
    kinds = list(dict.fromkeys(described(run.cell.settings.items()) for run in runs))
    if not any(kinds):
        return ""
    more = "" if len(kinds) == 1 else '<p class="say">Not the same for all runs; these are the different ones.</p>\n'
    return f"<h2>Settings</h2>\n{more}{lines([f'<dl>{kind}</dl>' for kind in kinds])}"


__all__ = ["methods_section"]
