"""Every method on Fashion-MNIST, with ``ow.compare``: all of them on LeNet-300-100, the most telling ones on LeNet-5.

LeNet-300-100: 20 epochs, five strengths, two seeds. LeNet-5 with 6 and 16 channels: 20 epochs, three strengths, one
seed. Methods are as ``openwork.comparison.methods`` has them: nothing is tuned here, and only the numbers of test
images are shown, of the network that each method ends with.

This is a study like any other: stopped, it goes on with what is missing when it is called again, and several processes
with the same arguments share the work. The study lies in ``runs/compare_fashion``, where ``openwork report`` makes its
page; after every call its numbers are kept in benchmarks/results/compare_fashion. With the names of networks (lenet300,
lenet5) only these are trained, in that order; with "table" nothing is, and the table is of what there is.
"""

import math
import sys
from pathlib import Path
from typing import Any

import torch
from readme_table import RESULTS, ROOT, Cell
from record import write_table

import openwork as ow
from openwork.files import read_json, write_json
from openwork.training import Stopped

NAME = "compare_fashion"
OURS = ("ramda", "dwf3", "mast_magnitude", "rmda", "dwf2", "dwf4", "tiam_l1")
BASELINES = ("dense", "magnitude", "gradual", "synflow", "rigl", "snip", "random", "set", "acdc", "magnitude_finetune",
             "magnitude_layerwise", "rigl_uniform", "subgradient_group", "subgradient_l1", "lottery")  # fmt: skip
TELLING = ("ramda", "dwf3", "mast_magnitude", "dense", "gradual", "synflow", "magnitude")
# Task, methods in the order they are trained, strengths, seeds.
STUDIES = {
    "lenet300": ("fashion_lenet300", (*OURS, *BASELINES), 5, 2),
    "lenet5": ("fashion_lenet5", TELLING, 3, 1),
}
TITLES = {"lenet300": "LeNet-300-100", "lenet5": "LeNet-5"}
# Less accurate networks are not drawn.
LOWEST = 70.0
# Of our methods, in their order; baselines share the marks.
COLORS = ("#b5541c", "#1f5a7a", "#7a3f98", "#4d7a2a", "#d99a2b", "#5aa0c8", "#0d2f44")
MARKS = "osD^vPX"


def main() -> None:
    """Train what is missing, and write the table and the picture."""
    torch.set_num_threads(1)
    wanted = sys.argv[1:] or [*STUDIES]
    for network in wanted if wanted != ["table"] else ():
        train(network)
    if wanted == ["table"] or not sys.argv[1:]:
        table()


def train(network: str) -> None:
    """One study; stopped, it keeps what there is."""
    task, methods, strengths, seeds = STUDIES[network]
    folder = ROOT / "runs" / NAME / network
    try:
        ow.compare(task, methods, strengths=strengths, seeds=seeds, out=folder, said=print)
    except Stopped as stop:
        print(stop)
        sys.exit(128 + stop.number)
    finally:
        if (folder / "comparison.json").exists():
            keep(folder, NAME, network)


def keep(folder: Path, name: str, part: str, **more: float) -> None:
    """Keep what a comparison came to in benchmarks/results, without its curves and layers."""
    study: dict[str, Any] = dict(read_json(folder / "comparison.json"))
    results = [{key: value for key, value in r.items() if key not in ("curves", "layers")} for r in study["results"]]
    file = RESULTS / name / f"{part}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {**study, "results": results, **more})


def table() -> None:
    """One row for each method: accuracy and size at each strength."""
    rows: list[list[Cell]] = []
    for network, (_, methods, strengths, seeds) in STUDIES.items():
        file = RESULTS / NAME / f"{network}.json"
        if not file.exists():
            continue
        study: dict[str, Any] = dict(read_json(file))
        if not study["results"]:
            continue
        macs = float(study["results"][0]["macs"][0])
        for method in methods:
            points = sorted((r for r in study["rows"] if r["method"] == method), key=lambda r: number(r, "strength"))
            if not points:
                continue
            there = [point(p, macs) for p in points] + [""] * (5 - len(points))
            done = sum(p["seeds"] for p in points)
            asked = seeds * (1 if method == "dense" else strengths)
            rows.append([TITLES[network], method, *there, f"{done} of {asked}"])
    write_table(
        NAME,
        "Fashion-MNIST: every method with the same budget",
        ["network", "method", *(f"strength {k}" for k in range(1, 6)), "networks"],
        rows,
        "Each cell: test accuracy in %, compression ratio (parameters over those that are left after shrink and not "
        "zero), MACs left in %. Means over the seeds (two for LeNet-300-100, one for LeNet-5), with the deviation "
        "of the accuracy. 20 epochs of 54 000 images, batch 256, for every method; alternating minimization "
        "(tiam_l1) has 40 sweeps. 6000 images are held out and choose nothing here: settings and strengths are the "
        "package's own, as they come (some were set by looking at validation images of this task). Strengths are a "
        "geometric path of each method's own, from weak to strong; factorized weights are hardly ever "
        "zero below a collapse budget of 14, and what that costs in accuracy is the less the longer the training. The "
        "paper of deep weight factorization shows this setting in pictures only, so no published numbers stand beside "
        "these. Left in the picture: by parameters; right: by MACs, which only structure saves. Other "
        "programs ran meanwhile: no times are shown.",
        picture(),
    )


def number(row: dict[str, Any], key: str) -> float:
    """A mean over the seeds, NaN if there is none."""
    return float(row[key]["mean"]) if row.get(key) else math.nan


def point(row: dict[str, Any], macs: float) -> str:
    """One cell."""
    if not row["seeds"]:
        return "failed"
    spread = row["accuracy"]["std"]
    accuracy = f"{100 * number(row, 'accuracy'):.1f}" + (f" ± {100 * spread:.1f}" if spread is not None else "")
    return f"{accuracy} at {number(row, 'compression'):.3g}, {100 * number(row, 'macs') / macs:.0f} % MACs"


def picture() -> str | None:
    """The frontiers of LeNet-300-100: methods of this package as lines in color, baselines in gray."""
    file = RESULTS / NAME / "lenet300.json"
    if not file.exists():
        return None
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = NAME
    study: dict[str, Any] = dict(read_json(file))
    rows = [row for row in study["rows"] if row["seeds"] and 100 * number(row, "accuracy") > LOWEST]
    macs = float(study["results"][0]["macs"][0])
    _, methods, *_ = STUDIES["lenet300"]
    figure, both = plt.subplots(1, 2, figsize=(11, 5.2), sharey=True, layout="constrained")
    for n, method in enumerate(methods):
        own = sorted((row for row in rows if row["method"] == method), key=lambda row: number(row, "strength"))
        if not own:
            continue
        accuracy = [100 * number(row, "accuracy") for row in own]
        error = [100 * (row["accuracy"]["std"] or 0.0) for row in own]
        sizes = [number(row, "compression") for row in own], [macs / number(row, "macs") for row in own]
        for axes, x in zip(both, sizes, strict=True):
            if method in OURS:
                axes.errorbar(
                    x, accuracy, error, fmt=f"{MARKS[n]}-", ms=5, lw=1.8, color=COLORS[n], label=method, zorder=3
                )
            else:
                gray, mark = f"{0.35 + 0.3 * (n % 3) / 2:.2f}", f"{MARKS[n % len(MARKS)]}--"
                axes.errorbar(x, accuracy, error, fmt=mark, ms=4, mfc="none", lw=0.8, color=gray, label=method)
    for axes, of in zip(both, ("parameters over nonzero parameters", "MACs over MACs left"), strict=True):
        axes.set_xscale("log")
        axes.set_xlabel(of)
        axes.grid(alpha=0.25)
    both[0].set_ylim(LOWEST, None)
    both[0].set_ylabel("test accuracy, %")
    figure.legend(*both[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize="small")
    figure.savefig(RESULTS / NAME / "frontier.svg", metadata={"Date": None})
    plt.close(figure)
    return f"{NAME}/frontier.svg"


if __name__ == "__main__":
    main()
