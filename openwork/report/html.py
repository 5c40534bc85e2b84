"""Pieces of HTML that several sections are made of."""

from collections.abc import Sequence
from html import escape

from openwork.report.text import Unit, shown


def cell(value: float | None, unit: Unit, *, main: bool = False, small: str = "") -> str:
    """A cell of a table with a number; ``small`` is text below it."""
    if value is None:
        return '<td class="none">–</td>'
    below = f"<small>{escape(small)}</small>" if small else ""
    return f'<td data-value="{value!r}"{" class=main" if main else ""}>{shown(value, unit)}{below}</td>'


def named(name: str) -> str:
    """A name that may be broken into lines at its dots."""
    return f'<span class="name">{escape(name).replace(".", ".<wbr>")}</span>'


def lines(parts: Sequence[str]) -> str:
    """What is not empty, each on its own line."""
    return "\n".join(["", *(part for part in parts if part), ""])


def notes_list(notes: Sequence[str]) -> str:
    """Sentences that a reader should not miss."""
    return f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>\n' if notes else ""


def table(head: Sequence[str], rows: Sequence[str], *, kind: str = "") -> str:
    """A table that scrolls sideways where it is too wide.

    Args:
        head: Titles of the columns.
        rows: ``<tr>`` elements.
        kind: Class of the table.

    Returns:
        The table and what scrolls it.
    """
    columns = "".join(f"<th scope=col>{escape(title)}</th>" for title in head)
    return (
        f'<div class="scroll"><table{f" class={kind}" if kind else ""}><thead><tr>{columns}</tr></thead>\n'
        f"<tbody>{lines(rows)}</tbody></table></div>"
    )
