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
    found = documented(FOLDER / "__init__.py")
    width = max(map(len, found))
    for name, line in found.items():
        print(f"{name:{width}}  {line}")
    print("\nYour own: openwork train package.module:function, a function that returns a Run.", file=sys.stderr)
    return 0


def documented(module: Path) -> dict[str, str]:
    """Names of the public functions of a module and the first line of each one's documentation, sorted.

    Args:
        module: Source file; with an ``__init__.py``, functions may also be in the other files of its folder.
    """
    public = _public(module)
    lines: dict[str, str] = {}
    for file in sorted(module.parent.glob("*.py")) if module.name == "__init__.py" else [module]:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name in public:
                lines[node.name] = (ast.get_docstring(node) or "").partition("\n")[0]
    return dict(sorted(lines.items()))


def _public(module: Path) -> set[str]:
    """What ``__all__`` says."""
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name("__all__")], value=ast.List(elts=names)):
                return {str(name.value) for name in names if isinstance(name, ast.Constant)}
            case _:
                pass
    return set()
