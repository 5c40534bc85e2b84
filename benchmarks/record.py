"""What every script here does with its numbers: keep the parts of a long run, and write the table that README shows."""

import os
import platform
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from readme_table import RESULTS, Cell

from openwork.files import read_json, write_json

# Where tables and parts go: those of a machine that is lent may be looked at before they become the committed ones.
FOLDER = Path(os.environ.get("OPENWORK_RESULTS") or RESULTS)


def data_dir() -> Path:
    """Folder of the real data sets, the environment's OPENWORK_DATA.

    Raises:
        SystemExit: If it is not set.
    """
    folder = os.environ.get("OPENWORK_DATA")
    if not folder:
        raise SystemExit("set OPENWORK_DATA to the folder that holds mnist/ and fashion-mnist/")
    return Path(folder)


def remembered(name: str, part: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The part of a long run as it was computed the first time; a run that was stopped goes on after its last part.

    Args:
        name: Of the script; parts lie in the folder of that name in benchmarks/results.
        part: File name of this part, without its ending.
        compute: Called if there is no such file. Delete the file to compute it again.
    """
    file = FOLDER / name / f"{part}.json"
    if not file.exists():
        result = compute()
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, result)
    return dict(read_json(file))


def write_table(
    name: str, title: str, columns: list[str], rows: list[list[Cell]], note: str, picture: str | None = None
) -> None:
    """Write one table of benchmarks/results; see readme_table.py for what its parts mean."""
    table: dict[str, Any] = {"title": title, "columns": columns, "rows": rows, "note": note}
    table |= {"command": f"python benchmarks/{name.removesuffix('_cuda')}.py", "machine": machine()}
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_json(FOLDER / f"{name}.json", table if picture is None else {**table, "picture": picture})


def machine() -> str:
    """The processor, the threads in use, and the versions that a time or a rounding depends on; the device if used."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    threads = f"{threads} thread{'s' if threads > 1 else ''} of {os.cpu_count()} cores"
    host = f"{processor}, {threads}, Python {platform.python_version()}, torch {torch.__version__}"
    return f"{device()}, {host}" if torch.cuda.is_initialized() else host


def device() -> str:
    """The current CUDA device, its driver, and the versions of CUDA and Triton."""
    name = torch.cuda.get_device_name()
    return f"{name}, driver {driver()}, CUDA {torch.version.cuda}, Triton {triton()}"


def driver() -> str:
    """Version of the driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return told.strip().partition("\n")[0] or "unknown"


def triton() -> str:
    """Version of Triton."""
    try:
        return version("triton")
    except PackageNotFoundError:
        return "unknown"
