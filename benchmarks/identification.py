"""Identification: after how many steps does a method know which groups are zero, and does it stay with that?

A convex problem with a known answer: least squares on 1000 samples, 20 groups of 10 weights of which 5 made the
targets (noise 0.5), group lasso of strength 0.25 times sqrt(10), batches of 20 drawn with replacement. Of the problems
with seeds 0 to 11 it is the one (seed 6) whose nondegeneracy margin is nearest to 0.62, that of our reference
experiment: with a larger margin, momentum alone is often enough to keep ProxSGD quiet for 6000 steps.

RMDA and RAMDA have averaging 0.05, which grows as 0.05 sqrt(i) in the last quarter; ProxSGD has momentum 0.9 or none.
Learning rates are constant, so that nothing but the method quiets the noise. The support is that of the last solve,
which the optimizer keeps, so watching it costs no second pass. The solution is that of FISTA in float64, run until a
step moves by at most 1e-13.

It takes two minutes. Stopped, it goes on after the last finished method.
"""

from collections.abc import Callable
from itertools import pairwise
from statistics import mean
from typing import Any

import matplotlib
import torch
from fista import fista
from readme_table import RESULTS
from record import remembered, write_table
from torch import Tensor, nn

from openwork.optim import RAMDA, RMDA, ProximalOptimizer, ProxSGD
from openwork.penalties import GroupLasso

matplotlib.use("svg")
import matplotlib.pyplot as plt

NAME = "identification"
SAMPLES, GROUPS, SIZE, ACTIVE, NOISE, BATCH = 1000, 20, 10, 5, 0.5, 20
STEPS, SEEDS = 6000, (0, 1, 2)
RATES = (0.02, 0.1)
PROBLEM_SEED = 6
AVERAGING = 0.05
#: Bounds of the intervals of steps in the picture, short at first.
INTERVALS = sorted({round(STEPS ** (i / 150)) for i in range(151)})
PENALTY = GroupLasso(0.25)  # one group per column of a (SIZE, GROUPS) weight

METHODS: dict[str, Callable[[nn.Parameter, float], ProximalOptimizer]] = {
    "RMDA": lambda weight, lr: RMDA([weight], lr=lr, averaging=AVERAGING, penalty=PENALTY),
    "RAMDA": lambda weight, lr: RAMDA([weight], lr=lr, averaging=AVERAGING, penalty=PENALTY),
    "ProxSGD, momentum 0.9": lambda weight, lr: ProxSGD([weight], lr=lr, averaging=0.1, penalty=PENALTY),
    "ProxSGD, no momentum": lambda weight, lr: ProxSGD([weight], lr=lr, averaging=1.0, penalty=PENALTY),
}


def problem() -> tuple[Tensor, Tensor]:
    """Inputs ``(SAMPLES, SIZE * GROUPS)`` and targets ``(SAMPLES,)``, in float64."""
    generator = torch.Generator().manual_seed(PROBLEM_SEED)
    inputs = torch.randn(SAMPLES, SIZE * GROUPS, generator=generator, dtype=torch.float64)
    weight = torch.randn(SIZE, GROUPS, generator=generator, dtype=torch.float64)
    weight[:, ACTIVE:] = 0
    noise = torch.randn(SAMPLES, generator=generator, dtype=torch.float64)
    return inputs, inputs @ weight.flatten() + NOISE * noise


def gradient(weight: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
    """Of half the mean squared error, shaped like ``weight``."""
    return ((inputs @ weight.flatten() - targets) @ inputs / len(targets)).view_as(weight)


def solution(inputs: Tensor, targets: Tensor) -> tuple[Tensor, float]:
    """Support of the exact solution, and how far its zeros are from being anything else.

    Returns:
        One boolean per group; and the margin, the least slack ``1 - ||gradient|| / threshold`` of a zero group.
    """
    step = 1 / float(torch.linalg.eigvalsh(inputs.T @ inputs / SAMPLES)[-1])
    start = torch.zeros(SIZE, GROUPS, dtype=torch.float64)
    x = fista(
        lambda w: PENALTY.prox(w - step * gradient(w, inputs, targets), step), start, tolerance=1e-13, most=10_000
    )
    kept = PENALTY.structure(x).kept
    pull = gradient(x, inputs, targets).norm(dim=0) / (PENALTY.lam * SIZE**0.5)
    return kept, 1 - float(pull[~kept].max())


def watch(method: str, lr: float, seed: int, inputs: Tensor, targets: Tensor, kept: Tensor) -> dict[str, Any]:
    """Train once, and count after every step the groups whose support differs from the solution's.

    Returns:
        ``last``, the last step (counted from 1) at which any does, or 0; ``late``, the fraction of the last half of
        the steps at which any does; ``largest``, the largest number in each of the ``INTERVALS`` of steps.
    """
    generator = torch.Generator().manual_seed(seed)
    weight = nn.Parameter(torch.zeros(SIZE, GROUPS, dtype=torch.float64))
    optimizer = METHODS[method](weight, lr)
    wrong: list[int] = []
    for step in range(1, STEPS + 1):
        if isinstance(optimizer, RMDA | RAMDA):
            optimizer.param_groups[0]["averaging"] = min(AVERAGING * max(step - 0.75 * STEPS, 1) ** 0.5, 1.0)
        rows = torch.randint(SAMPLES, (BATCH,), generator=generator)
        weight.grad = gradient(weight.detach(), inputs[rows], targets[rows])
        optimizer.step()
        wrong.append(int((optimizer.structures()[weight].kept != kept).sum()))
    return {
        "last": max((step for step, count in enumerate(wrong, start=1) if count), default=0),
        "late": mean(count > 0 for count in wrong[STEPS // 2 :]),
        "largest": [max(wrong[a - 1 : b - 1]) for a, b in pairwise(INTERVALS)],
    }


def draw(runs: dict[str, dict[str, Any]]) -> None:
    """One panel per method, with a line per learning rate and seed."""
    with plt.rc_context({"svg.hashsalt": NAME, "font.size": 9}):
        figure, axes = plt.subplots(1, len(METHODS), figsize=(10, 2.8), sharey=True, layout="constrained")
        for axis, (method, by_rate) in zip(axes, runs.items(), strict=True):
            for (lr, by_seed), color in zip(by_rate.items(), ("tab:blue", "tab:orange"), strict=True):
                for seed, run in zip(SEEDS, by_seed, strict=True):
                    label = f"lr {lr}" if seed == SEEDS[0] else None
                    axis.stairs(run["largest"], INTERVALS, baseline=None, color=color, alpha=0.7, label=label)
            axis.set(title=method, xscale="log", xlabel="step", xlim=(1, STEPS))
            axis.axvspan(STEPS / 2, STEPS, color="0.93", zorder=0)
        axes[0].set_ylabel(f"groups of {GROUPS} that differ")
        axes[-1].legend(frameon=False)
        figure.savefig(RESULTS / f"{NAME}.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    torch.set_num_threads(1)
    inputs, targets = problem()
    kept, margin = solution(inputs, targets)

    def all_runs(method: str) -> dict[str, Any]:
        """The runs of a method, by learning rate and seed."""
        return {f"{lr:g}": [watch(method, lr, seed, inputs, targets, kept) for seed in SEEDS] for lr in RATES}

    runs = {method: remembered(NAME, method, lambda method=method: all_runs(method)) for method in METHODS}
    draw(runs)
    write_table(
        NAME,
        "Identification: the last of 6000 steps at which the support is not the solution's",
        ["method", "lr", *(f"seed {seed}" for seed in SEEDS), "steps of the last half with another support, %"],
        [
            [method, lr, *(run["last"] for run in by_seed), f"{100 * mean(run['late'] for run in by_seed):.2f}"]
            for method, by_rate in runs.items()
            for lr, by_seed in by_rate.items()
        ],
        f"Least squares with {SAMPLES} samples, {GROUPS} groups of {SIZE}, {ACTIVE} of them in the targets; group "
        f"lasso 0.25 with weights sqrt({SIZE}), batch {BATCH}, constant learning rates; RMDA and RAMDA with averaging "
        f"{AVERAGING}, growing in the last quarter. One problem; the seeds are those of the batches. The solution "
        f"(FISTA, float64) keeps {int(kept.sum())} groups with a nondegeneracy margin of {margin:.2f}. With a constant "
        "learning rate the effective step of RAMDA grows with time: 0.1 is too much for it until averaging grows. "
        "Picture: number of groups whose support differs from the solution's, the largest in each of many short "
        "intervals; the last half is shaded.",
        picture=f"{NAME}.svg",
    )
