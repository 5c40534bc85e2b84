"""Rewrite the results in README.md from the committed tables in benchmarks/results.

Every ``benchmarks/results/*.json`` is one table, written by the script that its ``command`` names:

    title     what was measured
    columns   names of the columns, with units
    rows      lists of cells: text, numbers, or null where there is nothing to say
    note      what a reader must know to judge it: split, budget, seeds, what differs from the source
    command   how to write the file again
    machine   where it was measured
    picture   optional: file name of a picture beside the JSON

A test compares the README with what this script writes, so a number there cannot drift from its source.
"""

import json
from pathlib import Path
from typing import NotRequired, TypedDict

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"

BEGIN = "<!-- results: written by benchmarks/readme_table.py, do not edit -->"
END = "<!-- results: end -->"
NOTHING_YET = "No table is committed yet: `make bench` and `make reproduce` write them."

Cell = str | int | float | None


class Table(TypedDict):
    """One file of benchmarks/results."""

    title: str
    columns: list[str]
    rows: list[list[Cell]]
    note: str
    command: str
    machine: str
    picture: NotRequired[str]


def read(file: Path) -> Table:
    """One table from its file.

    Raises:
        ValueError: If a key is missing, or a row has another length than the columns.
    """
    table = json.loads(file.read_text(encoding="utf-8"))
    if missing := Table.__required_keys__ - table.keys():
        raise ValueError(f"{file.name}: {', '.join(sorted(missing))} missing; run the script that writes it again")
    for row in table["rows"]:
        if len(row) != len(table["columns"]):
            raise ValueError(f"{file.name}: row {row} has {len(row)} cells for {len(table['columns'])} columns")
    return table


def cell(value: Cell) -> str:
    """Text of one cell: four significant digits, and a bar that does not end the cell."""
    match value:
        case None:
            return "–"
        case float():
            return f"{value:.4g}"
        case _:
            return str(value).replace("|", r"\|")


def line(cells: list[str]) -> str:
    """One row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def markdown(table: Table) -> str:
    """One table with its title, note and origin."""
    numeric = [
        all(isinstance(row[i], int | float | None) for row in table["rows"]) for i in range(len(table["columns"]))
    ]
    picture = [f"![{table['title']}](benchmarks/results/{table['picture']})", ""] if "picture" in table else []
    return "\n".join(
        [
            f"### {table['title']}",
            "",
            line([cell(column) for column in table["columns"]]),
            line(["--:" if right else "---" for right in numeric]),
            *(line([cell(value) for value in row]) for row in table["rows"]),
            "",
            *picture,
            table["note"],
            "",
            f"Written by `{table['command']}` on {table['machine']}.",
        ]
    )


def block(results: Path) -> str:
    """All tables of a folder in the order of their file names, between the two markers."""
    tables = [markdown(read(file)) for file in sorted(results.glob("*.json"))]
    return "\n\n".join([BEGIN, *(tables or [NOTHING_YET]), END])


def rewrite(readme: str, results: Path) -> str:
    """The README with the tables of a folder between its markers.

    Raises:
        ValueError: If a marker is missing.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(
            f"README.md: the results need the lines {BEGIN!r} and {END!r}; put them back where they belong"
        )
    return before + block(results) + after


if __name__ == "__main__":
    README.write_text(rewrite(README.read_text(encoding="utf-8"), RESULTS), encoding="utf-8")
