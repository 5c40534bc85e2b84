"""The full comparison on the digits, with one command, timed.

``openwork compare digits --strengths 3 --seeds 1``: every method at three strengths. It starts from nothing each time,
and takes two threads while nothing else runs.
"""

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from compare_fashion import keep, point
from readme_table import RESULTS, Cell
from record import write_table

from openwork.files import read_json

NAME = "compare_digits"
COMMAND = ("compare", "digits", "--strengths", "3", "--seeds", "1")


def main() -> None:
    """Run the command, and write the table; only that with the argument "table"."""
    if sys.argv[1:] != ["table"]:
        with TemporaryDirectory() as folder:
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "openwork", *COMMAND, "--out", f"{folder}/digits"], check=True)
            keep(Path(folder) / "digits", NAME, "digits", minutes=(time.perf_counter() - start) / 60)
    study: dict[str, Any] = dict(read_json(RESULTS / NAME / "digits.json"))
    macs = float(study["results"][0]["macs"][0])
    rows: list[list[Cell]] = []
    for method in study["methods"]:
        points = sorted((r for r in study["rows"] if r["method"] == method), key=lambda r: r["strength"]["mean"])
        cells = [point(row, macs) for row in points]
        seconds = [row["seconds"]["mean"] for row in points if row["seconds"]]
        rows.append([method, *cells, *[""] * (3 - len(cells)), f"{sum(seconds):.0f}"])
    write_table(
        NAME,
        "The digits: every method with the same budget, one command",
        ["method", *(f"strength {k}" for k in range(1, 4)), "training, s"],
        rows,
        f"`openwork {' '.join(COMMAND)}` took {study['minutes']:.1f} minutes from an empty folder, with training, "
        f"shrinking, verification and timing of {len(study['results'])} networks. Each cell: test accuracy in %, "
        "compression ratio (parameters over those that are left after shrink and not zero), MACs left in %; one "
        f"seed, {study['budget']}, batch 64. Alternating minimization has two sweeps for each epoch. Validation "
        "samples choose nothing here. 360 test samples: a point is 3.6 of them, and differences of less than two "
        "mean nothing.",
    )


if __name__ == "__main__":
    main()
