"""Every public name imports and is documented, and importing the package costs no more than it must."""

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import openwork as ow

PACKAGE = Path(ow.__file__).parent
PACKAGES = sorted(
    entry.stem
    for entry in PACKAGE.iterdir()
    if not entry.name.startswith("_") and (entry.suffix == ".py" or (entry / "__init__.py").exists())
)

# Folders that users reach by their import path only: the shells, the contract checks, the hot loops, and what the rest
# is built on.
NOT_LISTED = {"cli", "testing", "kernels", "reductions", "sharding", "forward_pass", "running_statistics"}

# Functions that the package offers by their own name, and where they live.
FUNCTIONS = {"compare": "comparison", "load": "shrinking", "save": "shrinking", "shrink": "shrinking"}

HEAVY = {
    "accelerate",
    "alembic",
    "jsonargparse",
    "lightning",
    "llvmlite",
    "matplotlib",
    "numba",
    "onnx",
    "onnxruntime",
    "optuna",
    "rich",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "tensorboard",
    "transformers",
}


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_every_package_is_reachable_from_the_top() -> None:
    assert set(ow.__all__) - set(FUNCTIONS) == set(PACKAGES) - NOT_LISTED
    assert set(ow.__all__) <= set(dir(ow))


@pytest.mark.parametrize(("name", "home"), FUNCTIONS.items())
def test_functions_at_the_top_are_those_of_their_packages(name: str, home: str) -> None:
    assert name in ow.__all__
    assert getattr(ow, name) is getattr(import_module(f"openwork.{home}"), name)
    assert inspect.isfunction(getattr(ow, name))


@pytest.mark.parametrize("name", PACKAGES)
def test_public_names_import_and_are_documented(name: str) -> None:
    package = import_module(f"openwork.{name}")
    assert package.__doc__, f"openwork.{name} has no docstring"
    assert package.__all__, f"openwork.{name} has no __all__"
    for public in package.__all__:
        found = getattr(package, public)
        assert not inspect.ismodule(found), f"{name}.{public} is a file that hides the function of its name"
        if inspect.isclass(found) or inspect.isroutine(found):  # a type alias has no place for a docstring
            assert found.__doc__, f"{name}.{public} has no docstring"


def test_an_unknown_name_is_refused_with_what_there_is() -> None:
    with pytest.raises(AttributeError, match=r"module 'openwork' has no attribute 'optimizers'; it offers .*optim"):
        ow.__getattr__("optimizers")


def test_importing_the_package_imports_no_torch() -> None:
    loaded = set(run("import sys, openwork; print(*sys.modules)").split())
    assert not loaded & {"torch", "numpy", *HEAVY}


OPTIMIZERS = """
import sys, time
start = time.process_time()
import torch
torch_alone, loaded = time.process_time() - start, set(sys.modules)
import openwork; openwork.optim
print(torch_alone, time.process_time() - start)
print(*set(sys.modules) - loaded)
"""


def test_the_optimizers_need_torch_and_little_else() -> None:
    """And take under 1.2 times as long to import.

    The fastest of several runs is what the import costs; the rest is the machine. It stops at the first ratio below the
    limit, so noise costs time and not a failure, while a slow import fails however often it is tried.
    """
    torch_alone = ours = float("inf")
    for _ in range(8):
        times, modules = run(OPTIMIZERS).splitlines()
        assert not {name.partition(".")[0] for name in modules.split()} & HEAVY
        torch_alone, ours = map(min, zip((torch_alone, ours), map(float, times.split()), strict=True))
        if ours < 1.2 * torch_alone:
            return
    pytest.fail(f"importing openwork.optim takes {ours:.2f} s, torch alone {torch_alone:.2f} s")


def test_a_comparison_imports_its_database_when_it_runs() -> None:
    loaded = set(run("import sys, openwork; openwork.compare; print(*sys.modules)").split())
    assert "openwork.comparison.compare" in loaded
    assert not {name.partition(".")[0] for name in loaded} & {"optuna", "sqlalchemy", "alembic"}
