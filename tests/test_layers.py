"""The picture "who may import whom" stays true: every import of the package is read and checked against it."""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import openwork

PACKAGE = Path(openwork.__file__).parent

# A folder or module imports from lower rows only; neighbors in a row do not import each other.
ROWS = (
    {"sharding"},
    {"reductions", "forward_pass", "running_statistics", "files"},
    {"partitions", "kernels", "models", "data"},
    {"structure", "wiring"},
    {"penalties", "factorizations"},
    {"optim", "altmin", "baselines", "metrics"},
    {"shrinking"},
    {"training", "report", "sketches"},
    {"recipes"},
    {"comparison"},
    {"cli"},
    {"__main__"},
)
ROW = {name: row for row, names in enumerate(ROWS) for name in names}

# Contract checks for tests, ours and other people's: `testing` imports what it checks, up to `sketches`, and nothing
# imports it.
TESTING = "testing"
ROWS_FOR_TESTING = ROW["sketches"] + 1

# What row 0 may use besides the standard library.
THIRD_PARTY = {"torch", "typing_extensions"}
THIRD_PARTY_OF = {
    "data": THIRD_PARTY | {"numpy", "sklearn"},
    "files": THIRD_PARTY | {"safetensors"},
    "kernels": THIRD_PARTY | {"numpy", "numba", "llvmlite", "triton"},
}


def imports(source: str, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of all that ``source`` imports, also inside functions and under TYPE_CHECKING.

    ``package`` is the package that holds the module: what a relative import starts from.
    """
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield node.lineno, alias.name
            case ast.ImportFrom(module=module, names=names, level=level):
                base = [*package[: len(package) - level + 1]] if level else []
                base += [module] if module else []
                for alias in names:
                    yield node.lineno, ".".join([*base, alias.name])
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name
            case _:
                pass


def violation(home: str, imported: str) -> str | None:
    """Why ``openwork.<home>`` may not import the dotted name ``imported``; None if it may."""
    root, _, rest = imported.partition(".")
    if root != "openwork":
        allowed = THIRD_PARTY_OF.get(home, THIRD_PARTY)
        foreign = root not in sys.stdlib_module_names and root not in allowed
        return f"row 0 may not use {root}" if ROW.get(home, 9) <= ROW["partitions"] and foreign else None
    target = rest.partition(".")[0]
    if target in (home, "__version__"):
        return None
    if not target:
        return "`import openwork` inside the package hides what is used; import the package that is meant"
    if target == TESTING:
        return "only tests import testing"
    if target not in ROW:
        return f"{target} is not in the table of rows"
    if home == TESTING:
        return (
            None
            if ROW[target] < ROWS_FOR_TESTING
            else f"testing imports no higher than sketches, and {target} is above"
        )
    if ROW[target] < ROW[home]:
        return None
    return f"{target} is a neighbor" if ROW[target] == ROW[home] else f"{target} is above"


def violations(file: Path, source: str) -> list[str]:
    """All violations in one source file, whose path is relative to the package."""
    home = file.parts[0].removesuffix(".py")
    package = ("openwork", *file.parent.parts)
    found = ((line, name, violation(home, name)) for line, name in imports(source, package))
    return [f"{file}:{line} imports {name}: {why}" for line, name, why in found if why]


SOURCES = sorted(file.relative_to(PACKAGE) for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py")


def test_every_package_has_a_row() -> None:
    homes = {file.parts[0].removesuffix(".py") for file in SOURCES}
    assert homes <= {*ROW, TESTING}


def test_the_lower_rows_are_typed_strictly() -> None:
    checked = json.loads((PACKAGE.parent / "pyright-strict.json").read_text(encoding="utf-8"))["include"]
    homes = {file.parts[0] for file in SOURCES}
    lower = {name for name, row in ROW.items() if row <= ROW["penalties"]}
    assert set(checked) == {f"openwork/{home}" for home in homes if home.removesuffix(".py") in lower}


@pytest.mark.parametrize("file", SOURCES, ids=str)
def test_imports_go_down(file: Path) -> None:
    assert violations(file, (PACKAGE / file).read_text(encoding="utf-8")) == []


def test_the_package_itself_imports_only_the_standard_library_at_run_time() -> None:
    """Its lazy attributes are listed for type checkers under TYPE_CHECKING, which never runs."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if not isinstance(node, ast.If)]
    roots = {name.partition(".")[0] for _, name in imports(ast.unparse(tree), ("openwork",))}
    assert roots <= sys.stdlib_module_names


@pytest.mark.parametrize(
    ("file", "source", "why"),
    [
        ("penalties/l1.py", "from openwork.optim import RMDA", "optim is above"),
        ("penalties/l1.py", "from openwork.optim.rmda import rmda", "optim is above"),
        ("penalties/l1.py", "import openwork.optim.rmda", "optim is above"),
        ("penalties/l1.py", "from openwork import optim", "optim is above"),
        ("penalties/l1.py", "from .. import optim", "optim is above"),
        ("penalties/l1.py", "from ..optim import RMDA", "optim is above"),
        ("penalties/deep/l1.py", "from ...optim import RMDA", "optim is above"),
        ("penalties/l1.py", "def lazy():\n    from openwork.optim import RMDA", "optim is above"),
        ("penalties/l1.py", "if TYPE_CHECKING:\n    from openwork.optim import RMDA", "optim is above"),
        ("penalties/l1.py", "importlib.import_module('openwork.optim')", "optim is above"),
        ("penalties/l1.py", "from openwork.factorizations import Gated", "factorizations is a neighbor"),
        ("structure.py", "from openwork.wiring import Coupling", "wiring is a neighbor"),
        ("cli.py", "from openwork.helpers import anything", "helpers is not in the table"),
        ("optim/rmda.py", "import openwork", "hides what is used"),
        ("optim/rmda.py", "from openwork.testing import check_penalty", "only tests import testing"),
        ("testing/optim.py", "from openwork.recipes import ramda_digits", "testing imports no higher than sketches"),
        ("partitions/slices.py", "import numpy as np", "row 0 may not use numpy"),
        ("files/models.py", "import numpy as np", "row 0 may not use numpy"),
        ("partitions/slices.py", "import safetensors", "row 0 may not use safetensors"),
        ("data/digits.py", "import pandas", "row 0 may not use pandas"),
    ],
)
def test_a_planted_violation_is_found(file: str, source: str, why: str) -> None:
    (message,) = violations(Path(file), source)
    assert message.startswith(f"{file}:{source.count(chr(10)) + 1} imports ")
    assert why in message


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("penalties/l1.py", "from openwork.partitions import Slices\nfrom openwork.structure import Support"),
        ("penalties/l1.py", "from openwork.penalties.penalty import Penalty"),
        ("penalties/l1.py", "from .penalty import Penalty\nfrom ..partitions import Slices"),
        ("penalties/__init__.py", "from .l1 import L1"),
        ("testing/optim.py", "from openwork.optim import RMDA\nfrom openwork.partitions import Slices"),
        ("cli/train.py", "from openwork import __version__, training"),
        ("data/digits.py", "import gzip\nimport numpy\nfrom sklearn.datasets import load_digits"),
        ("files/models.py", "from safetensors.torch import load, save"),
        ("optim/rmda.py", "import numpy"),
    ],
)
def test_what_is_allowed_passes(file: str, source: str) -> None:
    assert violations(Path(file), source) == []
