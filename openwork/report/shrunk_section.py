"""The section about what shrink did."""

from collections.abc import Sequence
from html import escape

from openwork.report.contents import EVALUATIONS
from openwork.report.html import cell, lines, named, notes_list, table
from openwork.report.shrunk import Change, Measured, Proof, Resized, Shape, Shrunk, Timing
from openwork.report.text import Unit, scientific, shown, significant

MOST_OPEN = 12  # rows of a table that is not folded away
MOST_BARS = 200  # of the picture; of more, those that lost the largest part


def shrunk_section(shrunk: Shrunk) -> str:
    """What went, what it gained and the proof.

    Args:
        shrunk: What ``shrink.json`` says.

    Returns:
        Headings, tables and pictures.
    """
    return lines(
        [
            "<h2>Shrunk</h2>",
            f'<p class="say">{escape(_proven(shrunk.proof))}</p>',
            _sizes(shrunk),
            _timings(shrunk.timings),
            _why(shrunk),
            _picture(shrunk),
            _tensors(shrunk.tensors),
            _splits(shrunk),
            _constants(shrunk),
            _unread(shrunk),
        ]
    )


def conditions(timing: Timing) -> str:
    """What else a time depends on than the batch."""
    threads = f"{timing.threads} thread{'' if timing.threads == 1 else 's'}"
    where = threads if timing.device == "cpu" else timing.device
    return f"{where}, compiled" if timing.compiled else where


def _proven(proof: Proof) -> str:
    example, *fresh = proof.batches or [0]
    on = f"on an example of {example:,} sample{'' if example == 1 else 's'}" + (
        f" and on random inputs, {_and(fresh)} at a time" if fresh else ""
    )
    every = "Predictions" if proof.on_data is None else f"All {proof.on_data:,} predictions"
    # A network that predicts no classes has no predictions to compare.
    told = proof.same_predictions and proof.on_data != 0
    equal = f" {every} on the data are the same before and after." if told else ""
    counted = (
        f" {proof.predictions:,} of {proof.samples:,} predictions there were clear enough to count, and all agreed."
    )
    return (
        f"Proven to compute the same: outputs differ by {scientific(proof.difference, 1)} of the largest at most, "
        f"where {scientific(proof.tolerance)} is allowed in {proof.dtype}, {on}."
        f"{counted if proof.samples else ''}{equal}"
    )


def _and(numbers: Sequence[int]) -> str:
    *most, last = (f"{number:,}" for number in numbers)
    return f"{', '.join(most)} and {last}" if most else last


def _sizes(shrunk: Shrunk) -> str:
    known: dict[str, tuple[str, Unit]] = {key: (label, unit) for key, label, unit in EVALUATIONS}
    # Of another measure, the name says what it is.
    names = [*(key for key in known if key in shrunk.scores), *(key for key in shrunk.scores if key not in known)]
    scores = [(*known.get(key, (key, "loss")), shrunk.scores[key]) for key in names]
    rows: list[tuple[str, Unit, Change]] = [
        ("Parameters", "count", shrunk.params),
        ("Size", "bytes", shrunk.size_bytes),
        ("Multiply-accumulates per sample", "count", shrunk.macs),
        *scores,
    ]
    left_out = (
        f'<p class="say">Not counted there: {", ".join(map(named, shrunk.uncounted))}.</p>' if shrunk.uncounted else ""
    )
    made = [
        f"<tr><th scope=row>{escape(label)}</th>{cell(change.before, unit)}{cell(change.after, unit, main=True)}"
        f"{'<td></td>' if change.left is None else cell(change.left, 'fraction')}</tr>"
        for label, unit, change in rows
    ]
    return table(["", "Before", "After", "Left"], made, kind="before-after") + left_out


def _timings(timings: Sequence[Timing]) -> str:
    if not timings:
        return ""
    rows = [
        f"<tr><th scope=row>{_latency(timing.batch)}"
        f"<small>{escape(conditions(timing))}</small></th>{_measured(timing.before_ms, 'ms')}"
        f"{_measured(timing.after_ms, 'ms', main=True)}{_measured(timing.speedup, 'times')}</tr>"
        for timing in timings
    ]
    say = "Time of one call: the median of many rounds, in which both take turns, and below it the quartiles."
    return table(["", "Before", "After", "Speed-up"], rows, kind="before-after") + f'\n<p class="say">{say}</p>'


def _latency(batch: int | None) -> str:
    return "Latency" if batch is None else f"Latency, batch\u00a0{batch:,}"


def _measured(found: Measured, unit: Unit, *, main: bool = False) -> str:
    return cell(found.median, unit, main=main, small=f"{significant(found.low)} to {shown(found.high, unit)}")


def _why(shrunk: Shrunk) -> str:
    reasons = f"<h3>What limits the gain</h3>\n{notes_list(_sentences(shrunk.why))}" if shrunk.why else ""
    return notes_list(_sentences([*_differing(shrunk.proof), *shrunk.notes])) + reasons


def _differing(proof: Proof) -> list[str]:
    if proof.same_predictions:
        return []
    if proof.on_data is None or proof.differing is None:
        return ["some predictions on the data are not the same before and after"]
    return [f"{proof.differing:,} of {proof.on_data:,} predictions on the data are not the same before and after"]


def _sentences(said: Sequence[str]) -> list[str]:
    return [f"{text[:1].upper()}{text[1:].removesuffix('.')}." for text in said if text]


def _picture(shrunk: Shrunk) -> str:
    bars = [(named(units.name), units.before, units.after) for units in shrunk.units if units.before]
    bars += [(f"{named(split.name)} rank", split.most, split.rank) for split in shrunk.splits if split.most]
    if not bars:
        return ""
    said = "One bar per layer, or per group of layers that share their units: outlined before, filled after."
    if len(bars) > MOST_BARS:
        said += f" These {MOST_BARS} of {len(bars):,} lost the largest part."
        bars = sorted(bars, key=lambda bar: bar[2] / bar[1])[:MOST_BARS]
    widest = max(before for _, before, _ in bars)
    drawn = [
        f'<li><span>{label}</span><svg role="img" aria-label="{after} of {before}">{_bar(before, after, widest)}</svg>'
        f'<span><data value="{before}">{before:,}</data> → <data value="{after}"><b>{after:,}</b></data></span></li>'
        for label, before, after in bars
    ]
    kind = "widths many" if len(bars) > MOST_OPEN else "widths"
    return f'<h3>Units</h3>\n<p class="say">{said}</p>\n<ul class="{kind}">{lines(drawn)}</ul>'


def _bar(before: int, after: int, widest: int) -> str:
    outline, filled = (f"{100 * units / widest:.2f}%" for units in (before, after))
    return f'<rect class="was" width="{outline}" height="100%"/><rect class="is" width="{filled}" height="100%"/>'


def _tensors(tensors: Sequence[Resized]) -> str:
    rows = [
        f"<tr><th scope=row>{named(tensor.name)}</th>"
        f"<td>{'new' if tensor.before is None else _shape(tensor.before)}</td>"
        f"<td class=main>{_shape(tensor.after)}</td></tr>"
        for tensor in tensors
    ]
    return _foldable("Shapes", ["Tensor", "Before", "After"], rows)


def _shape(shape: Shape) -> str:
    return " × ".join(f"{length:,}" for length in shape) or "one number"


def _splits(shrunk: Shrunk) -> str:
    rows = [
        f"<tr><th scope=row>{named(split.name)}</th>"
        f"{cell(split.most, 'count')}{cell(split.rank, 'count', main=True)}</tr>"
        for split in shrunk.splits
    ]
    return _foldable("Layers of low rank, now two each", ["Layer", "Possible rank", "Rank"], rows)


def _constants(shrunk: Shrunk) -> str:
    parts: list[str] = []
    if shrunk.constant:
        parts.append(f"These gave the same whatever the input, and are now constants: {_names(shrunk.constant)}.")
    if shrunk.folded:
        many = "1 constant unit" if shrunk.folded == 1 else f"{shrunk.folded:,} constant units"
        parts.append(f"{many} went into the biases of what reads them.")
    return f"<h3>Constants</h3>\n<p>{' '.join(parts)}</p>" if parts else ""


def _names(names: Sequence[str]) -> str:
    return ", ".join(named(name or "the whole network") for name in names)


def _unread(shrunk: Shrunk) -> str:
    rows = [
        f"<tr><th scope=row>{named(unread.name)}</th>{cell(unread.units, 'count')}"
        f"<td class=words>{escape('; '.join(unread.reasons)) or '–'}</td></tr>"
        for unread in shrunk.unread
    ]
    title = "Units that nothing reads and that had to stay"
    return _foldable(title, ["First tensor", "Units", "What holds them"], rows, kind="reasons")


def _foldable(title: str, head: Sequence[str], rows: Sequence[str], *, kind: str = "") -> str:
    if not rows:
        return ""
    if len(rows) <= MOST_OPEN:
        return f"<h3>{title}</h3>\n{table(head, rows, kind=kind)}"
    return (
        f"<details><summary>{title} <span>{len(rows):,} rows</span></summary>\n{table(head, rows, kind=kind)}</details>"
    )
