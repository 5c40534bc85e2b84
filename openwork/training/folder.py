"""Run folders: what was asked for, and how to build it again."""

import inspect
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from accelerate.utils import set_seed

import openwork.files as files
from openwork.files import Json
from openwork.training.finding import find_function
from openwork.training.run import Run

SCHEMA = 1


@dataclass(frozen=True)
class Recipe:
    """A recipe and what it is called with.

    Args:
        name: A function of ``openwork.recipes``, or ``package.module:function``.
        arguments: Of that function, by name; plain values.
    """

    name: str
    arguments: Mapping[str, Json]

    def build(self) -> Run:
        """Call the recipe, all global random generators seeded with its ``seed``, or 0.

        Returns:
            A run at its beginning.

        Raises:
            ValueError: If there is no such recipe, or an argument is wrong.
            TypeError: If it returns no run.
        """
        function = find_recipe(self.name)
        parameters = inspect.signature(function).parameters
        unknown = [name for name in self.arguments if name not in parameters]
        if unknown:
            raise ValueError(f"recipe {self.name} has no argument {unknown[0]!r}; it has {', '.join(parameters)}")
        values = {name: _restored(value, str(parameters[name].annotation)) for name, value in self.arguments.items()}
        # Dropout, and a network made without a seed of its own, draw from the global generators.
        seed = values.get("seed", 0)
        set_seed(seed if isinstance(seed, int) else 0)
        run = function(**values)
        if not isinstance(run, Run):
            raise TypeError(f"recipe {self.name} must return an openwork.training.Run, got {type(run).__name__}")
        return run


def _restored(value: Json, annotation: str) -> object:
    """JSON knows no tuples and no paths."""
    if isinstance(value, list):
        return tuple(value)
    return Path(value) if isinstance(value, str) and "Path" in annotation else value


def find_recipe(name: str) -> Callable[..., Run]:
    """The function a recipe's name stands for.

    Args:
        name: A function of ``openwork.recipes``, or ``package.module:function``.

    Returns:
        The function.

    Raises:
        ValueError: If there is none.
    """
    return find_function(name, kind="recipe", home="openwork.recipes", listing="openwork recipes")


def check_new(out: Path) -> None:
    """Refuse a folder that cannot be that of a new run, before anything takes time.

    Args:
        out: Should not exist, or be an empty folder.

    Raises:
        ValueError: If there is something.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; choose another folder with --out")
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty; choose another folder with --out, or go on with --resume {out}")


def new_folder(out: Path) -> Path:
    """Make a folder for a run.

    Args:
        out: Must not exist, or be an empty folder.

    Returns:
        ``out``.

    Raises:
        ValueError: If there is something in it.
        OSError: If it cannot be made or written to.
    """
    check_new(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{out} cannot be made ({error.strerror}); choose another folder with --out") from error
    if not os.access(out, os.W_OK):
        raise OSError(f"{out} cannot be written to; choose another folder with --out")
    return out


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Write down what a run is, so that it can be built again, and the machine it runs on.

    Args:
        folder: Of the run.
        recipe: What was asked for.
    """
    from openwork import __version__

    files.write_json(
        folder / "recipe.json",
        {
            "schema": SCHEMA,
            "recipe": recipe.name,
            "arguments": dict(recipe.arguments),
            "openwork": __version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
            "machine": machine(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )


def read_recipe(folder: Path) -> Recipe:
    """What a run folder was made for.

    Args:
        folder: Of a run.

    Returns:
        The recipe.

    Raises:
        ValueError: If it is not a run folder, or one of another schema version.
    """
    file = folder / "recipe.json"
    if not file.is_file():
        raise ValueError(
            f"{folder} is not a run folder: it has no recipe.json; name a folder that `openwork train` wrote"
        )
    found = files.read_json(file)
    if found.get("schema") != SCHEMA:
        raise ValueError(
            f"{file} has schema {found.get('schema')!r}, and this version of openwork reads {SCHEMA}; use the version "
            "that wrote it"
        )
    name, arguments = found.get("recipe"), found.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise ValueError(f"{file} names no recipe and arguments; it was not written by openwork, or was changed")
    return Recipe(name, arguments)


def machine() -> dict[str, Json]:
    """What a number that depends on the machine must be read with: processor, accelerator, cores and threads."""
    found: dict[str, Json] = {"cpu": _processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    return {**found, "gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
