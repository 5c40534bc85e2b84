"""Time of a sweep of alternating minimization against the number of samples and the width, with fitted exponents.

784-w-w-10 with ReLU on MNIST: w = 100 with 1000 to 60 000 samples, and 2000 samples with w = 100 to 2000, beside one
forward and backward pass on the same samples. Exponents are slopes of least squares in logarithms. A sweep and a pass
take turns; a point is the median of its rounds.

It takes five minutes. Stopped, it goes on after the last point; delete benchmarks/results/am_scaling to measure anew.
"""

import os
from copy import deepcopy
from statistics import linear_regression, median
from typing import Any

import matplotlib
import torch
from am_cost import network, seconds
from readme_table import RESULTS, Cell
from record import data_dir, remembered, write_table
from torch import Tensor
from torch.nn.functional import cross_entropy

from openwork.altmin import AMTrainer
from openwork.data import mnist

matplotlib.use("svg")
import matplotlib.pyplot as plt

NAME = "am_scaling"
THREADS, WARM, MOST, SECONDS = 2, 3, 15, 12.0
SAMPLES = (1000, 2000, 5000, 10_000, 20_000, 60_000)
WIDTHS = (100, 200, 500, 1000, 2000)
WIDTH, N = 100, 2000
WHAT = {"sweep": "sweep", "backward": "forward + backward"}


def measure(width: int, x: Tensor, y: Tensor) -> dict[str, Any]:
    """Milliseconds of a sweep and of a forward and backward pass."""
    model = network(width, "ReLU")
    trainer = AMTrainer(deepcopy(model))
    trainer.start(x, y)

    def backward() -> None:
        model.zero_grad()
        cross_entropy(model(x), y).backward()

    for _ in range(WARM):
        trainer.sweep()
        backward()
    times: dict[str, list[float]] = {"sweep": [], "backward": []}
    while len(times["sweep"]) < MOST and (len(times["sweep"]) < 3 or sum(map(sum, times.values())) < SECONDS):
        times["sweep"].append(1e3 * seconds(trainer.sweep))
        times["backward"].append(1e3 * seconds(backward))
    found = {what: median(several) for what, several in times.items()}
    print(width, len(x), found, flush=True)
    return {**found, "load": os.getloadavg()[0]}


def exponent(sizes: tuple[int, ...], times: list[float]) -> float:
    """The slope of the times in logarithms."""
    return linear_regression(torch.tensor(sizes).log().tolist(), torch.tensor(times).log().tolist()).slope


def draw(axes: list[tuple[str, tuple[int, ...], list[dict[str, Any]]]]) -> None:
    """One panel per axis of scaling."""
    with plt.rc_context({"svg.hashsalt": NAME, "font.size": 9}):
        figure, panels = plt.subplots(1, len(axes), figsize=(8, 3), layout="constrained")
        for panel, (name, sizes, points) in zip(panels, axes, strict=True):
            for what, marker in zip(WHAT, "os", strict=True):
                times = [point[what] for point in points]
                slope = exponent(sizes, times)
                panel.loglog(sizes, times, marker=marker, markersize=4, label=f"{WHAT[what]}, exponent {slope:.2f}")
            panel.set(xlabel=name, ylabel="ms")
            panel.legend(frameon=False)
        figure.savefig(RESULTS / f"{NAME}.svg", metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    """Measure, draw, and write the table."""
    torch.set_num_threads(THREADS)
    samples = mnist(data_dir(), valid=0).train
    x, y = samples.inputs.flatten(1), samples.targets

    def point(width: int, n: int) -> dict[str, Any]:
        return remembered(NAME, f"{width}-{n}", lambda: measure(width, x[:n].contiguous(), y[:n]))

    axes = [
        (f"samples (width {WIDTH})", SAMPLES, [point(WIDTH, n) for n in SAMPLES]),
        (f"width ({N} samples)", WIDTHS, [point(width, N) for width in WIDTHS]),
    ]
    draw(axes)
    rows: list[list[Cell]] = []
    for name, sizes, points in axes:
        for size, one in zip(sizes, points, strict=True):
            sweep, backward = one["sweep"], one["backward"]
            rows.append([name, size, round(sweep, 1), round(backward, 1), f"{sweep / backward:.2f}"])
        slopes = [f"{exponent(sizes, [one[what] for one in points]):.2f}" for what in WHAT]
        rows.append([name, "exponent", *slopes, None])
    loads = [one["load"] for _, _, points in axes for one in points]
    write_table(
        NAME,
        "Alternating minimization: time of a sweep against samples and width",
        ["axis", "size", "sweep, ms", "forward + backward, ms", "ratio of medians"],
        rows,
        "784-w-w-10 with ReLU on MNIST, float32, defaults of AMTrainer, eager. Exponents are slopes of least squares "
        "in logarithms over all sizes of an axis; the arithmetic is linear in samples, and goes as 794 w + w^2 with "
        f"the width. Load of the machine: {min(loads):.1f} to {max(loads):.1f}.",
        picture=f"{NAME}.svg",
    )


if __name__ == "__main__":
    main()
