"""What there is to train, read without importing it: torch takes a second, and a list should not."""

import ast
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from openwork.cli.mistakes import Mistake

FOLDER = Path(__file__).parents[1] / "recipes"


def recipes(arguments: Sequence[str]) -> int:
    """List the recipes.

    Args:
        arguments: None, or ``--help``.

    Returns:
        The exit code.

    Raises:
        Mistake: If there are others.
    """
    parser = ArgumentParser("openwork recipes", description="What there is to train, one line each.", add_help=False)
    parser.add_argument("-h", "--help", action="store_true", help="show this message")
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise Mistake(f"recipes takes no argument, got {unknown[0]!r}")
    if known.help:
        parser.print_help()
        return 0
    found = documented()
    width = max(map(len, found))
    for name, line in found.items():
        print(f"{name:{width}}  {line}")
    print("\nYour own: openwork train package.module:function, a function that returns a Run.", file=sys.stderr)
    return 0


def documented() -> dict[str, str]:
    """Names of the recipes and the first line of each one's documentation, sorted."""
    public = {name for _, names in _imports(FOLDER / "__init__.py") for name in names}
    lines: dict[str, str] = {}
    for file in sorted(FOLDER.glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name in public:
                lines[node.name] = (ast.get_docstring(node) or "").partition("\n")[0]
    return dict(sorted(lines.items()))


def _imports(file: Path) -> list[tuple[str, list[str]]]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [
        (node.module or "", [alias.name for alias in node.names])
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
    ]
