"""A comparison that is killed again and again, or shared by two processes, comes to the same table as one left alone.

Four methods on the digits at two strengths with two seeds, 6 epochs. Compared is every number of every row but times
and memory. Killed: SIGKILL after 25 s, over and over, until it gets through; a killed process's networks are free for
others after the study's usual time without a sign of life.
"""

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from readme_table import Cell
from record import write_table

from openwork.files import read_json

NAME = "compare_resume"
METHODS = ("ramda", "dwf3", "gradual", "tiam_l1")
COMMAND = ("compare", "digits", "--methods", ",".join(METHODS), "--strengths", "2", "--seeds", "2", "--epochs", "6")
KILL_AFTER_S = 25.0
# Of a row, what no two runs share.
TIMES = ("latency_ms", "speedup", "seconds", "memory_mib")


def main() -> None:
    """All three, and the table."""
    with TemporaryDirectory() as base:
        root = Path(base)
        start = time.perf_counter()
        wait(begin(root / "alone"))
        seconds = {"alone": time.perf_counter() - start}

        start, kills = time.perf_counter(), 0
        while True:
            process = begin(root / "killed")
            try:
                wait(process, KILL_AFTER_S)
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
        seconds["killed"] = time.perf_counter() - start

        start = time.perf_counter()
        for process in [begin(root / "shared"), begin(root / "shared")]:
            wait(process)
        seconds["shared"] = time.perf_counter() - start

        wanted = numbers(root / "alone")
        said = {"alone": "left alone", "killed": f"killed {kills} times", "shared": "two processes"}
        rows: list[list[Cell]] = []
        for name, what in said.items():
            found = numbers(root / name)
            equal = sum(one == other for one, other in zip(found, wanted, strict=True))
            rows.append([what, len(found), f"{equal} of {len(wanted)}", round(seconds[name], 1)])
    write_table(
        NAME,
        "Interrupted and shared comparisons: rows that are the same as those of one left alone",
        ["comparison", "rows", "equal in every number", "s"],
        rows,
        f"`openwork {' '.join(COMMAND)}`; each row is a method at a strength, over two seeds. Times and memory are not "
        f"compared. Killed by SIGKILL every {KILL_AFTER_S:g} s. Seconds include the starts of processes, and the wait "
        "until a killed process is given up.",
    )


def begin(out: Path) -> subprocess.Popen[bytes]:
    """One process of a comparison."""
    return subprocess.Popen([sys.executable, "-m", "openwork", *COMMAND, "--out", str(out)])


def wait(process: subprocess.Popen[bytes], seconds: float | None = None) -> None:
    """Until it has ended well.

    Raises:
        SystemExit: If it fails.
    """
    if process.wait(seconds):
        raise SystemExit(f"a comparison ended with code {process.returncode}")


def numbers(folder: Path) -> list[dict[str, Any]]:
    """Rows without times."""
    study: dict[str, Any] = dict(read_json(folder / "comparison.json"))
    return [{key: value for key, value in row.items() if key not in TIMES} for row in study["rows"]]


if __name__ == "__main__":
    main()
