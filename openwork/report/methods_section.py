"""The section of a comparison on its methods, one after the other: curves, layers, widths, runs."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Literal

from openwork.report.charts import Chart, Line
from openwork.report.compared import Trained
from openwork.report.compared_contents import ComparedContents, Level, MethodContents
from openwork.report.compared_lives import Lives
from openwork.report.figures import charts_section, life_figure
from openwork.report.html import cell, described, lines, named, notes_list, table
from openwork.report.life import Life
from openwork.report.marks import COLORS, icon
from openwork.report.text import Unit, shown

DASHES: Sequence[Literal["solid", "dashed", "dotted"]] = ("solid", "dashed", "dotted")
MOST_LAYERS = 40  # of a table; of more, those with the most zeros
CURVES: Sequence[tuple[str, Sequence[str], Unit]] = (
    ("Validation accuracy", ("structured_valid_accuracy", "valid_accuracy"), "fraction"),
    ("Validation loss", ("structured_valid_loss", "valid_loss"), "loss"),
    ("Zero parameters", ("unstructured_sparsity",), "fraction"),
    ("Training loss", ("train_loss",), "loss"),
)
RUN_MEASURES: Sequence[tuple[str, str, Unit]] = (
    ("accuracy", "Test accuracy", "fraction"),
    ("loss", "Test loss", "loss"),
    ("valid_accuracy", "Validation accuracy", "fraction"),
    ("valid_loss", "Validation loss", "loss"),
    ("compression", "Compression ratio", "times"),
    ("unstructured", "Zero parameters", "fraction"),
    ("params", "Parameters", "count"),
    ("bytes", "File", "bytes"),
    ("macs", "MACs", "count"),
    ("latency_ms", "Latency", "ms"),
    ("seconds", "Training", "s"),
    ("memory_mib", "Memory", "mib"),
    ("test_unequal", "Outputs differ by", "residual"),
)
SEARCH_MEASURES: Sequence[tuple[str, str, Unit]] = (
    ("valid_accuracy", "Validation accuracy", "fraction"),
    ("valid_loss", "Validation loss", "loss"),
    ("unstructured", "Zero parameters", "fraction"),
    ("seconds", "Training", "s"),
)

ByStrength = Mapping[float, Sequence[Trained]]


def methods_section(report: ComparedContents, lives: Lives) -> str:
    """What there is to say of each method.

    Args:
        report: What the report says.
        lives: Pictures of groups.

    Returns:
        One folded part per method.
    """
    parts = [_method(n, method, lives) for n, method in enumerate(report.methods)]
    return f"<h2>Method by method</h2>\n{lines(parts)}"


def _method(n: int, method: MethodContents, lives: Lives) -> str:
    by_strength = _by_strength(method.runs)
    say = "Of the structured weights, where a method has them. Color by strength, dashes by seed."
    inside = lines(
        [
            f'<p class="say">{escape(method.about)}</p>' if method.about else "",
            charts_section("Training", _curves(method.runs), say=say, place=method.name),
            _layers(method.levels),
            _widths(by_strength),
            _lives(method, lives),
            _runs(method.runs),
            _warned(method.runs),
            _settings(method.runs),
            _searched(method.searched),
        ]
    )
    networks = f"{len(method.runs)} network{'' if len(method.runs) == 1 else 's'}"
    return (
        f"<details><summary>{icon(n, hollow=method.baseline)}{named(method.label)} <span>{networks}</span></summary>"
        f"{inside}</details>"
    )


def _by_strength(runs: Sequence[Trained]) -> ByStrength:
    strengths = sorted({run.cell.strength for run in runs})
    return {strength: [run for run in runs if run.cell.strength == strength] for strength in strengths}


def _curves(every: Sequence[Trained]) -> list[Chart]:
    runs = [run for run in every if run.clock]
    if len({run.clock for run in runs}) != 1:
        return []
    clock = runs[0].clock
    times = sorted({time for run in runs for time in run.curves[clock] if time is not None})
    # As many as can be told apart.
    strengths = _picked(sorted({run.cell.strength for run in runs}), len(COLORS))
    seeds = sorted({run.cell.seed for run in runs})
    drawn = [run for run in runs if run.cell.strength in strengths and run.cell.seed in seeds[: len(DASHES)]]
    some = "" if len(drawn) == len(runs) else f"{len(drawn)} of {len(runs)} networks, to tell them apart."
    by_accuracy = any("valid_accuracy" in run.curves for run in runs)
    charts: list[Chart] = []
    for title, keys, unit in CURVES:
        if title == "Validation loss" and by_accuracy:
            continue
        curves: list[Line] = []
        for run in drawn:
            wanted = (run.curves.get(key, []) for key in keys)
            values = next((curve for curve in wanted if any(v is not None for v in curve)), [])
            at = dict(zip(run.curves[clock], values, strict=False))
            color, dash = COLORS[strengths.index(run.cell.strength)], DASHES[seeds.index(run.cell.seed)]
            label = f"{run.cell.strength:.3g}" + (f", seed {run.cell.seed}" if len(seeds) > 1 else "")
            curves.append(Line(label, [at.get(time) for time in times], color, dash))
        if title == "Zero parameters" and not any(value for curve in curves for value in curve.values):
            continue
        charts.append(Chart(title, times, curves, unit, clock, some, "auto" if unit == "loss" else False))
    return charts


def _picked(strengths: Sequence[float], most: int) -> list[float]:
    """So many of them at most, the first and the last among them."""
    if len(strengths) <= most:
        return list(strengths)
    return [strengths[round(n * (len(strengths) - 1) / (most - 1))] for n in range(most)]


def _layers(levels: Sequence[Level]) -> str:
    names = list(dict.fromkeys(name for level in levels for name in level.zeros))
    if not names:
        return ""
    told = "Fraction of zeros in each weight, by strength; the mean over seeds."
    if len(names) > MOST_LAYERS:
        told += f" The {MOST_LAYERS} of {len(names):,} weights with the most zeros."
        zeros = {name: sum(level.zeros.get(name, 0.0) for level in levels) for name in names}
        most = sorted(names, key=lambda name: -zeros[name])[:MOST_LAYERS]
        names = [name for name in names if name in most]
    rows = [
        f"<tr><th scope=row>{named(name)}</th>{''.join(_share(level.zeros.get(name)) for level in levels)}</tr>"
        for name in names
    ]
    heads = ["Weight", *(f"{level.strength:.3g}" for level in levels)]
    return f'<h2>Sparsity per layer</h2>\n<p class="say">{told}</p>\n{table(heads, rows, kind="shares")}'


def _share(value: float | None) -> str:
    if value is None:
        return '<td class="none">–</td>'
    return f'<td data-value="{value!r}">{shown(value, "fraction")}<i><b style="width:{100 * value:.1f}%"></b></i></td>'


def _widths(by_strength: ByStrength) -> str:
    before = {name: pair[0] for own in by_strength.values() for run in own for name, pair in run.widths.items()}
    if not before:
        return ""
    rows = [
        f'<tr><th scope=row>{named(name)}</th><td data-value="{units}">{units:,}</td>'
        + "".join(_after(name, units, own) for own in by_strength.values())
        + "</tr>"
        for name, units in before.items()
    ]
    heads = ["Units of", "Before", *(f"{strength:.3g}" for strength in by_strength)]
    several = "; one number per seed" if any(len(own) > 1 for own in by_strength.values()) else ""
    return (
        f'<h2>Architecture</h2>\n<p class="say">Units before, and after what nothing reads was taken out, by '
        f"strength{several}. Bars: what is left.</p>\n{table(heads, rows, kind='shares')}"
    )


def _after(name: str, units: int, runs: Sequence[Trained]) -> str:
    # A network without the name lost nothing there, or all of it went.
    found = [run.widths[name][1] if name in run.widths else 0 if run.numbers["macs"] == 0 else units for run in runs]
    told = ", ".join(f'<data value="{after}">{after:,}</data>' for after in found)
    left = 100 * sum(found) / len(found) / max(1, units)
    return f'<td>{told}<i><b style="width:{left:.1f}%"></b></i></td>'


def _lives(method: MethodContents, lives: Lives) -> str:
    pictures = [
        f'<h3>Strength {level.strength:.3g}</h3>\n<div class="lives">{_figures(found)}</div>'
        for level in method.levels
        if (found := lives.get((method.name, level.strength)))
    ]
    if not pictures:
        return ""
    some = (
        "" if len(pictures) == len(method.levels) else ", of those strengths that have pictures and fit into the page"
    )
    return (
        '<h2>Which groups are alive</h2>\n<p class="say">Time runs from left to right and groups from top to bottom: '
        f"blue while one is alive, bare while it is zero. Of the first seed{some}.</p>\n{lines(pictures)}"
    )


def _figures(found: Sequence[Life]) -> str:
    return "".join(life_figure(life, single=False) for life in found)


def _runs(runs: Sequence[Trained]) -> str:
    measures = [m for m in RUN_MEASURES if any(run.numbers[m[0]] is not None for run in runs)]
    rows = [
        f"<tr><th scope=row>{run.cell.strength:.3g}{'<small>ignores its inputs</small>' if run.constant else ''}</th>"
        f'<td data-value="{run.cell.seed}">{run.cell.seed}</td>'
        + "".join(_number(run, key, unit) for key, _, unit in measures)
        + "</tr>"
        for run in runs
    ]
    heads = ["Strength", "Seed", *(label for _, label, _ in measures)]
    return f"<h2>Runs</h2>\n{table(heads, rows, kind='runs wide')}"


def _number(run: Trained, key: str, unit: Unit) -> str:
    before = run.numbers.get(f"dense_{key}")
    return cell(run.numbers[key], unit, small="" if before is None else f"of {shown(before, unit)}")


def _warned(runs: Sequence[Trained]) -> str:
    """What was warned of, each sentence once."""
    who: dict[str, list[str]] = {}
    for run in runs:
        for note in run.notes:
            who.setdefault(note, []).append(f"{run.cell.strength:.3g} (seed {run.cell.seed})")
    told = [f"{note.removesuffix('.')}: at {', '.join(them)}." for note, them in who.items()]
    return f"<h2>Warnings</h2>\n{notes_list(told)}" if told else ""


def _settings(runs: Sequence[Trained]) -> str:
    kinds = list(dict.fromkeys(described(run.cell.settings.items()) for run in runs))
    if not any(kinds):
        return ""
    more = "" if len(kinds) == 1 else '<p class="say">Not the same for all runs; these are the different ones.</p>\n'
    told = "".join(f"<div><dl>{kind}</dl></div>" for kind in kinds)
    return f'<h2>Settings</h2>\n{more}<div class="facts">{told}</div>'


def _searched(trials: Sequence[Trained]) -> str:
    if not trials:
        return ""
    rows = [
        f"<tr><th scope=row>{trial.cell.trial}</th>"
        f"<td class=words>{escape(', '.join(f'{key} {value}' for key, value in trial.cell.settings.items()))}</td>"
        + "".join(cell(trial.numbers[key], unit) for key, _, unit in SEARCH_MEASURES)
        + "</tr>"
        for trial in trials
    ]
    heads = ["Trial", "Settings", *(label for _, label, _ in SEARCH_MEASURES)]
    told = "Trials that the settings were chosen from, on validation samples alone."
    return f'<h2>Search</h2>\n<p class="say">{told}</p>\n{table(heads, rows)}'


__all__ = ["methods_section"]
