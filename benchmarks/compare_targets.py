"""What the target controller reaches: a tenth of the parameters, and half of the arithmetic, on the digits.

Seven methods and one seed, half of the task's epochs. Only the strength is steered; a target that lies within a
jump, or that takes more than 14 networks, is reported as not met.

This is a study like any other: stopped, it goes on with what is missing when it is called again. The studies lie in
``runs/compare_targets``; after every call their numbers are kept in benchmarks/results/compare_targets. With the
argument "table" nothing is trained, and the table is of what there is.
"""

import sys
from typing import Any

import torch
from compare_fashion import keep
from readme_table import RESULTS, ROOT, Cell
from record import write_table

import openwork as ow
from openwork.comparison import Result, Target
from openwork.files import read_json
from openwork.training import Stopped

NAME = "compare_targets"
METHODS = ("ramda", "rmda", "dwf3", "gradual", "synflow", "mast_magnitude", "subgradient_group")
TARGETS = (Target("density", 0.1), Target("macs", 0.5))
EPOCHS = 20


def main() -> None:
    """Train what is missing, and write the table."""
    torch.set_num_threads(1)
    for target in TARGETS if sys.argv[1:] != ["table"] else ():
        steer(target)
    table()


def steer(target: Target) -> None:
    """One study; stopped, it keeps what there is."""
    folder = ROOT / "runs" / NAME / target.measure
    try:
        ow.compare("digits", METHODS, target=target, seeds=1, epochs=EPOCHS, out=folder, said=print)
    except Stopped as stop:
        print(stop)
        sys.exit(128 + stop.number)
    finally:
        if (folder / "comparison.json").exists():
            keep(folder, NAME, target.measure)


def table() -> None:
    """One row for each target and method: the network that came nearest."""
    rows: list[list[Cell]] = []
    for target in TARGETS:
        file = RESULTS / NAME / f"{target.measure}.json"
        if file.exists():
            study: dict[str, Any] = dict(read_json(file))
            rows += [nearest(study, target, method) for method in METHODS]
    write_table(
        NAME,
        "Targets: how near each method comes by its strength alone",
        ["target", "method", "reached", "off by, %", "networks", "accuracy, %", "strength"],
        rows,
        "The digits, one seed, 20 epochs, batch 64; each row is the network of a method that is nearest to the "
        "target. Reached: fraction of the parameters that are left after shrink and not zero, or of the multiply-"
        "accumulate operations. A target is met within 5 %; nothing is touched but the strength, so that each network"
        " is the one that a comparison at this strength gives. Networks: trained on the way, at most 14. A method "
        "starts from a middle strength of its own path; for a density, pruners start from the strength that leaves it"
        " before shrink takes what nothing reads. Not met: strengths less than 2 % apart gave networks on both sides."
        " Pruners of single weights save arithmetic only where whole units happen to be empty: half of it is there at"
        " strengths that leave one weight in five (synflow) to twenty (gradual, mast_magnitude), and costs the latter"
        " their accuracy. The budget is half of the task's own and settings are as they come: this is about the "
        "controller, and ranks no methods.",
    )


def nearest(study: dict[str, Any], target: Target, method: str) -> list[Cell]:
    """The row of one method, empty where no network is there."""
    results = [Result.from_json(r) for r in study["results"] if r["cell"]["method"] == method]
    trained = len(results) + sum(f["cell"]["method"] == method for f in study["failures"])
    chosen = next((row["strength"]["mean"] for row in study["rows"] if row["method"] == method and row["seeds"]), None)
    for result in results:
        reached = target.of(result)
        if result.cell.strength == chosen and reached is not None and result.accuracy is not None:
            off = 100 * (reached / target.value - 1)
            said = f"{off:+.1f}" if target.met(reached) else f"{off:+.1f}, not met"
            return [str(target), method, round(reached, 4), said, trained, f"{100 * result.accuracy:.1f}", chosen]
    return [str(target), method, None, None, trained, None, None]


if __name__ == "__main__":
    main()
