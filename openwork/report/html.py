"""Pieces of HTML that several sections are made of."""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from openwork.files import Json
from openwork.report.text import Unit, shown


def cell(value: float | None, unit: Unit, *, main: bool = False, small: str = "") -> str:
    """A cell of a table with a number; ``small`` is text below it."""
    if value is None:
        return '<td class="none">–</td>'
    below = f"<small>{escape(small)}</small>" if small else ""
    return f'<td data-value="{value!r}"{" class=main" if main else ""}>{shown(value, unit)}{below}</td>'


def header(headline: str, facts: Sequence[str], notes: Sequence[str]) -> str:
    """The head of a page.

    Args:
        headline: The result in one sentence.
        facts: What it is about.
        notes: What a reader should not miss.

    Returns:
        A ``<header>`` element.
    """
    told = "".join(f"<span>{escape(fact)}</span>" for fact in facts)
    return (
        f'<header>\n<p class="over">openwork report</p>\n<h1>{escape(headline)}</h1>\n'
        f'<p class="under">{told}</p>\n{notes_list(notes)}</header>'
    )


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
    name = f' class="{kind}"' if kind else ""
    return (
        f'<div class="scroll"><table{name}><thead><tr>{columns}</tr></thead>\n'
        f"<tbody>{lines(rows)}</tbody></table></div>"
    )


def described(entries: Iterable[tuple[str, Json]]) -> str:
    """Entries of a list of descriptions."""
    return "".join(f"<dt>{escape(key)}</dt><dd>{escape(_plain(value))}</dd>" for key, value in entries)


def _plain(value: Json) -> str:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return str(value)
    return ", ".join(_plain(item) for item in value)


def document(title: str, body: Sequence[str], *, made: str = "") -> str:
    """One HTML document that loads nothing.

    Args:
        title: Of the window.
        body: Parts of it.
        made: What the last line begins with.

    Returns:
        The document.
    """
    styles, script = (
        "\n".join(files("openwork.report").joinpath(name).read_text("utf-8") for name in names)
        for names in (("colors.css", "page.css", "frontier.css"), ("page.js",))
    )
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{styles}</style>",
            "</head>",
            '<body class="openwork-report">',
            *body,
            f"<footer>{escape(made)}Every number on this page is in <code>report.json</code>.</footer>",
            f"<script>\n{script}</script>",
            "</body>",
            "</html>",
            "",
        ]
    )
