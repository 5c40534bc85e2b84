"""Charts as figures of a page."""

from collections.abc import Sequence
from html import escape

from openwork.report.charts import Chart
from openwork.report.html import lines, named
from openwork.report.life import Life
from openwork.report.text import shown

PIXELS_HIGH = 128  # of a picture of groups: with no more groups than that, every group has sharp edges


def charts_section(title: str, charts: Sequence[Chart], *, say: str, place: str = "") -> str:
    """Charts under a title, those that have a line; empty if none has.

    Args:
        title: The heading.
        charts: What to draw.
        say: A sentence below the heading.
        place: Where on the page it is, so that equal charts elsewhere have other ids.

    Returns:
        Heading and pictures.
    """
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


def lives_section(pictures: Sequence[Life], *, single: bool) -> str:
    """Who was alive when, one picture per weight; empty if there is none.

    Args:
        pictures: Of the weights.
        single: Whether single weights live and die, not groups of them.

    Returns:
        Heading and pictures.
    """
    what = "weights" if single else "groups"
    figures = [life_figure(life, single=single) for life in pictures]
    if not figures:
        return ""
    return (
        f'<h2>Which {what} are alive</h2>\n<p class="say">Time runs from left to right and {what} from top to bottom: '
        "blue while one is alive, bare while it is zero; where there are too many for a line each, the shade is "
        f'the fraction alive.</p>\n<div class="lives">{lines(figures)}</div>'
    )


def life_figure(life: Life, *, single: bool, name: str = "") -> str:
    """The picture of one weight.

    Args:
        life: It.
        single: Whether single weights live and die, not groups of them.
        name: What to write below it, if not the name of the weight.

    Returns:
        A figure.
    """
    what = "weights" if single else "groups"
    return (
        f'<figure><img src="{life.url}" class="{"sharp" if life.groups <= PIXELS_HIGH else "smooth"}" '
        f'alt="{escape(life.name)}: {life.last} of {life.groups} {what} alive at the end, {life.first} at the start">'
        f"<figcaption>{named(name or life.name)}"
        f"<span>{life.last:,} of {life.groups:,}</span></figcaption></figure>"
    )


__all__ = ["charts_section", "life_figure", "lives_section"]
