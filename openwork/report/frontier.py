"""The frontiers of a comparison: pictures to switch between, with one legend, for a page and for a notebook."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

from openwork.files import Json
from openwork.report.compared import Point, read_points
from openwork.report.html import lines
from openwork.report.marks import icon, labels
from openwork.report.scatter import Scatter
from openwork.report.summary import COSTS, LOST, WORSE, Cost, Quality, quality_of, reference

STYLES = ("colors.css", "frontier.css")


def frontier_picture(rows: Sequence[Mapping[str, Json]], baselines: Sequence[str] = ()) -> str:
    """The frontier of a comparison as a piece of HTML that needs nothing else, for a notebook.

    Args:
        rows: Plain values of the rows of its table, as ``comparison.json`` lists them.
        baselines: Methods with hollow marks.

    Returns:
        Pictures against compression, MACs and latency, of which one is shown.

    Raises:
        ValueError: If no row has a network, or one does not say which method it is about.
    """
    found = read_points("frontier_picture: rows", rows)
    if not found:
        raise ValueError("frontier_picture: rows holds no network; let the comparison train its first one")
    names = list(dict.fromkeys(point.method for point in found))
    named = dict(zip(names, labels(names), strict=True))
    style = "\n".join(files("openwork.report").joinpath(name).read_text("utf-8") for name in STYLES)
    return (
        f'<div class="openwork-frontier"><style>\n{style.replace(":root", ".openwork-frontier")}</style>\n'
        f"{frontier(found, quality_of(found), named, baselines)}</div>"
    )


def frontier(found: Sequence[Point], quality: Quality, named: Mapping[str, str], baselines: Sequence[str]) -> str:
    """Pictures against each cost that was measured, of which one is shown; all of them on paper.

    Args:
        found: All points.
        quality: The vertical measure.
        named: Methods and their names for a reader.
        baselines: Methods with hollow marks.

    Returns:
        A form that needs no script.
    """
    dense = reference(found)
    pictures = [Scatter(found, quality, cost, dense, named, baselines) for cost in COSTS]
    pictures = [picture for picture in pictures if picture.drawn]
    if not pictures:
        return f'<p class="say">No network has both {quality.label.lower()} and a size, so there is no frontier.</p>'
    switch = "".join(
        f'<label><input type="radio" name="cost" value="{n}"{" checked" if n == 0 else ""}>{escape(picture.cost.label)}'
        "</label>"
        for n, picture in enumerate(pictures)
    )
    views = [
        f'<figure class="view view-{n}"><figcaption>{escape(quality.label)} against '
        f"{escape(picture.cost.words)}</figcaption>"
        f'<div class="plot">{picture.svg()}</div>'
        f'<p class="across">{escape(picture.cost.title)}{_direction(picture.cost)}</p>'
        f"{_left_out(picture, len(found))}</figure>"
        for n, picture in enumerate(pictures)
    ]
    keys = [
        f'<li data-method="{n}">{icon(n, hollow=name in baselines)}{escape(label)}</li>'
        for n, (name, label) in enumerate(named.items())
    ]
    return (
        f'<form class="frontier"><fieldset class="switch"><legend>Against</legend>{switch}</fieldset>\n'
        f'{lines(views)}<ul class="methods">{lines(keys)}</ul></form>'
    )


def _direction(cost: Cost) -> str:
    return "" if cost.rising else ", fewer to the right" if cost.unit == "count" else ", shorter to the right"


def _left_out(picture: Scatter, count: int) -> str:
    said: list[str] = []
    if absent := count - len(picture.drawn):
        be = "is" if absent == 1 else "are"
        said.append(f"{absent} of {count} points {be} not drawn: this was not measured, or is 0.")
    if outside := len(picture.outside):
        far = f"{100 * LOST:g} points below the best" if picture.quality.rising else f"{WORSE:g} times the best loss"
        said.append(f"{outside} {'is' if outside == 1 else 'are'} more than {far}: at the lower edge, with an arrow.")
    return f'<p class="hint">{" ".join(said)}</p>' if said else ""


__all__ = ["frontier", "frontier_picture"]
