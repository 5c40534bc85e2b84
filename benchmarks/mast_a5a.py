"""Sketched training on a5a: what pruning at random does to its answer and to that of empirical risk minimization (ERM).

l2-regularized logistic regression without a bias, ``f(y) = mean log(1 + exp(-b a'y)) + lam/2 |y|^2``, whose weights are
pruned at random around a shift v: ``v + S (x - v)``. ERM minimizes f; MAST minimizes the mean of f over S, here by
SGD on sketches with the exact gradient of each and the step of the theory, 1 / (L_f L_S^max). v is 0, or the answer of
ERM on a tenth of the training samples.

Trained on 80 % of a5a, a draw of the seed; the other 20 % choose; a9a.t gives the numbers (a5a is a part of a9a, which
is not used). Both methods are treated alike: their trajectories, from the same start and over the same number of
steps, are cut into windows of growing length, whose means are the candidates; ERM's are those of gradient descent with
step 1 / L_f. Three rules name a point: "last" (ERM: the exact optimum, by Newton's method; MAST: the mean of the last
half of the steps), the candidate of least pruned validation loss, and the one of best pruned validation accuracy.
Masks of training, choosing and testing differ; ERM and MAST meet the same ones.

30 seeds, both shifts side by side in one matrix. Stopped, the script goes on after the last law (a minute each). With
laws as arguments, such as "Rand-K 0.5", it computes these and writes no table, so that several processes can work at
once.
"""

import math
import sys
from dataclasses import dataclass
from functools import cache
from statistics import mean, stdev
from typing import Any

import torch
from fista import newton
from readme_table import RESULTS, Cell
from record import data_dir, remembered, write_table
from torch import Tensor
from torch.nn.functional import softplus

from openwork.data import svmlight
from openwork.sketches import Bernoulli, DiagonalSketch, Identity, Key, RandK

NAME = "mast_a5a"
LAM = 1e-3
SEEDS, STEPS = 30, 2500
SHIFTS = ("0", "ERM of 10 %")
RATIOS = (0.9, 0.7, 0.5, 0.3, 0.1)
LAWS: dict[str, DiagonalSketch] = {
    **{f"Rand-K {q:g}": RandK(q) for q in RATIOS},
    **{f"Bernoulli {q:g}": Bernoulli(q) for q in (0.5,)},
}
RULES = ("last", "loss", "accuracy")
# Masks of each seed: to choose, to test, and for the gradient of the sketched objective.
CHOOSING, TESTING, GAPS = 50, 100, 100
VALID = 0.2
# Ends of the windows.
ENDS = sorted({min(STEPS, round(1.3**k)) for k in range(math.ceil(math.log(STEPS, 1.3)) + 1)})


@dataclass(frozen=True, eq=False)
class Problem:
    """What all laws share; signs are -1 and 1.

    Args:
        inputs: Of a5a, ``(n, d)`` float32.
        signs: Of a5a, ``(n,)``.
        weights: Of each sample in the training loss of each seed, ``(n, seeds)``; 0 for those that choose.
        held: Rows that choose, ``(seeds, m)``.
        tested: Inputs of a9a.t.
        truth: Signs of a9a.t.
        shift: v for both shifts, ``(shifts, seeds, d)``.
        erm: The exact optimum of every seed, ``(seeds, d)``.
        smooth: ``L_f``, the largest of all seeds.
    """

    inputs: Tensor
    signs: Tensor
    weights: Tensor
    held: Tensor
    tested: Tensor
    truth: Tensor
    shift: Tensor
    erm: Tensor
    smooth: float


@cache
def problem() -> Problem:
    """Read, split and solve by Newton's method."""
    # a5a has no test file of its own: the samples that the loader splits off for one are training samples here.
    a5a, test = svmlight("a5a", data_dir(), valid=0.0), svmlight("a9a", data_dir(), valid=0.0).test
    inputs = torch.cat([a5a.train.inputs, a5a.test.inputs])
    signs = 2.0 * torch.cat([a5a.train.targets, a5a.test.targets]) - 1
    count, held = len(inputs), round(VALID * len(inputs))
    weights = torch.zeros(count, SEEDS)
    rows: list[Tensor] = []
    shifts: list[Tensor] = []
    erm: list[Tensor] = []
    smooth = 0.0
    for seed in range(SEEDS):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        rows.append(order[:held])
        train = order[held:]
        weights[train, seed] = 1 / len(train)
        x, b = inputs[train].double(), signs[train].double()
        smooth = max(smooth, float(torch.linalg.eigvalsh(x.T @ x)[-1]) / (4 * len(train)) + LAM)
        erm.append(minimizer(x, b))
        part = len(train) // 10
        shifts.append(minimizer(x[:part], b[:part]))
    start = torch.stack(shifts).float()
    return Problem(
        inputs, signs, weights, torch.stack(rows), test.inputs, 2.0 * test.targets - 1,
        torch.stack([torch.zeros_like(start), start]), torch.stack(erm).float(), smooth,
    )  # fmt: skip


def minimizer(inputs: Tensor, signs: Tensor) -> Tensor:
    """The answer of ERM, float64."""
    identity = torch.eye(inputs.shape[1], dtype=inputs.dtype)

    def derivatives(y: Tensor) -> tuple[Tensor, Tensor]:
        p = torch.sigmoid(-signs * (inputs @ y))
        curvature = inputs.T @ (inputs * (p * (1 - p)).unsqueeze(1)) / len(inputs)
        return -inputs.T @ (signs * p) / len(inputs) + LAM * y, curvature + LAM * identity

    return newton(derivatives, torch.zeros(inputs.shape[1], dtype=inputs.dtype), tolerance=1e-12)


def masks(law: DiagonalSketch, family: str, count: int, size: int) -> Tensor:
    """Diagonals of S for all seeds, ``(seeds, count, d)``."""
    return torch.stack([torch.stack([diagonal(law, Key(seed, step, family=family), size) for step in range(count)])
                        for seed in range(SEEDS)])  # fmt: skip


def diagonal(law: DiagonalSketch, key: Key, size: int) -> Tensor:
    """One draw of S, float32."""
    draw = law.sample(key, size)
    return torch.ones(size) if isinstance(law, Identity) else draw.apply(torch.ones(size))


def train(law: DiagonalSketch) -> tuple[Tensor, Tensor]:
    """SGD on sketches, of all seeds around both shifts.

    Returns:
        Means of the windows, ``(windows, shifts, seeds, d)``, and of the last half of the steps.
    """
    p = problem()
    size = p.inputs.shape[1]
    lr = 1 / (p.smooth * law.constants(size).largest)
    v = p.shift.flatten(0, 1).T.contiguous()
    x = v.clone()
    toward = (p.weights * p.signs.unsqueeze(1)).repeat(1, len(SHIFTS))
    windows: list[Tensor] = []
    total, tail, begun = torch.zeros_like(x), torch.zeros_like(x), 0
    for step in range(STEPS):
        keys = (Key(seed, step, family="train") for seed in range(SEEDS))
        scales = torch.stack([diagonal(law, key, size) for key in keys], 1).repeat(1, len(SHIFTS))
        y = v + scales * (x - v)
        errors = torch.sigmoid((p.inputs @ y).mul_(-p.signs.unsqueeze(1))).mul_(toward)
        x -= lr * scales * (LAM * y - p.inputs.T @ errors)
        total += x
        if step >= STEPS // 2:
            tail += x
        if step + 1 in ENDS:
            windows.append(total / (step + 1 - begun))
            total, begun = torch.zeros_like(x), step + 1
        if not step % 500:
            print(f"step {step}", flush=True)
    found = torch.stack([*windows, tail / (STEPS - STEPS // 2)])
    found = found.transpose(1, 2).unflatten(1, (len(SHIFTS), SEEDS)).contiguous()
    return found[:-1], found[-1]


@cache
def descent() -> Tensor:
    """Means of the windows of gradient descent."""
    return train(Identity())[0]


def pruned(inputs: Tensor, signs: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Mean losses, without the penalty, and accuracies, of points ``(..., m, d)`` on samples ``(..., n, d)``."""
    margins = (inputs @ points.transpose(-1, -2)).mul_(signs.unsqueeze(-1))
    return softplus(-margins).mean(-2), (margins > 0).float().mean(-2)


def choose(windows: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """The best window of each shift and seed by validation.

    Args:
        windows: ``(windows, shifts, seeds, d)``.
        scales: Masks to choose by, ``(seeds, m, d)``.

    Returns:
        Numbers of windows ``(shifts, seeds)``, by loss and by accuracy.
    """
    p = problem()
    inputs, signs = p.inputs[p.held], p.signs[p.held]
    losses = torch.zeros(windows.shape[:3])
    accuracies = torch.zeros_like(losses)
    for at, window in enumerate(windows):
        for which, (x, v) in enumerate(zip(window, p.shift, strict=True)):
            points = v.unsqueeze(1) + scales * (x - v).unsqueeze(1)
            loss, accuracy = pruned(inputs, signs, points)
            losses[at, which], accuracies[at, which] = loss.mean(1), accuracy.mean(1)
    return losses.argmin(0), accuracies.argmax(0)


def tested(x: Tensor, v: Tensor, scales: Tensor) -> dict[str, Any]:
    """Numbers on a9a.t of the points of all seeds, pruned and dense."""
    p = problem()
    losses: list[float] = []
    accuracies: list[Tensor] = []
    for point, shift, ones in zip(x, v, scales, strict=True):
        loss, accuracy = pruned(p.tested, p.truth, shift + ones * (point - shift))
        losses.append(float(loss.mean()))
        accuracies.append(accuracy)
    dense_loss, dense = pruned(p.tested, p.truth, x)
    everything = torch.cat(accuracies)
    at = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    return {
        "loss": losses,
        "accuracy": [float(a.mean()) for a in accuracies],
        "quantiles": torch.quantile(everything, at).tolist(),
        "dense_loss": dense_loss.tolist(),
        "dense_accuracy": dense.tolist(),
    }


def gap(law: DiagonalSketch, x: Tensor, v: Tensor) -> dict[str, float]:
    """How far the sketched objective is above its minimum, by a quadratic model; means over the seeds.

    ``g' H^-1 g / 2`` with two independent means over masks as g, so that their noise adds nothing on average, and
    ``H = E[w w'] * A' D A + lam Diag(1/p)``, D the mean curvature of the losses over masks.
    """
    p = problem()
    size = x.shape[1]
    moment, inverse = law.second_moment(size), 1 / law.inclusion(size)
    scales = masks(law, "gap", 2 * GAPS, size)
    gaps: list[float] = []
    values: list[float] = []
    for seed in range(SEEDS):
        u = x[seed] - v[seed]
        y = v[seed] + scales[seed] * u
        margins = (p.inputs @ y.T) * p.signs.unsqueeze(1)
        s = torch.sigmoid(-margins)
        weights = p.weights[:, seed].unsqueeze(1)
        gradients = scales[seed] * (LAM * y - (s * weights * p.signs.unsqueeze(1)).T @ p.inputs)
        first, second = gradients[:GAPS].mean(0).double(), gradients[GAPS:].mean(0).double()
        curvature = (s * (1 - s) * weights).mean(1, keepdim=True)
        hessian = moment * (p.inputs.T @ (p.inputs * curvature)).double() + LAM * torch.diag(inverse)
        gaps.append(0.5 * float(first @ torch.linalg.solve(hessian, second)))
        values.append(float((softplus(-margins) * weights).sum(0).mean() + LAM / 2 * y.square().sum(1).mean()))
    return {"gap": mean(gaps), "objective": mean(values)}


def measure(name: str) -> dict[str, Any]:
    """Everything about one law."""
    law = LAWS[name]
    p = problem()
    size = p.inputs.shape[1]
    by_method: dict[str, tuple[Tensor, Tensor]] = {
        "MAST": train(law),
        "ERM": (descent(), p.erm.expand(len(SHIFTS), -1, -1)),
    }
    choosing, testing = masks(law, "choose", CHOOSING, size), masks(law, "test", TESTING, size)
    found: dict[str, Any] = {"steps": STEPS, "smooth": p.smooth, "largest": law.constants(size).largest}
    for method, (windows, last) in by_method.items():
        chosen = dict(zip(RULES[1:], choose(windows, choosing), strict=True))
        for which, shift in enumerate(SHIFTS):
            for rule in RULES:
                if rule == "last":
                    x, ends = last[which], []
                else:
                    best = chosen[rule][which]
                    x, ends = windows[best, which, torch.arange(SEEDS)], [ENDS[int(b)] for b in best]
                part = tested(x, p.shift[which], testing)
                found[f"{method}, {shift}, {rule}"] = part | {"ends": ends}
                print(name, method, shift, rule, mean(part["loss"]), mean(part["accuracy"]), flush=True)
            if method == "MAST":
                found[f"gap, {shift}"] = gap(law, last[which], p.shift[which])
                print(found[f"gap, {shift}"], flush=True)
    for which, shift in enumerate(SHIFTS):
        found[f"shift, {shift}"] = pruned(p.tested, p.truth, p.shift[which])[1].tolist()
    return found


def rows(name: str, found: dict[str, Any]) -> list[list[Cell]]:
    """Lines of the table: one for each shift and rule."""
    lines: list[list[Cell]] = []
    for shift in SHIFTS:
        for rule in RULES:
            erm, mast = (found[f"{method}, {shift}, {rule}"] for method in ("ERM", "MAST"))
            more = [100 * (a - b) for a, b in zip(mast["accuracy"], erm["accuracy"], strict=True)]
            lines.append(
                [
                    shift,
                    name,
                    rule,
                    f"{mean(erm['loss']):.3f}",
                    f"{mean(mast['loss']):.3f}",
                    f"{100 * mean(erm['accuracy']):.2f}",
                    f"{100 * mean(mast['accuracy']):.2f}",
                    f"{mean(more):+.2f} ± {stdev(more):.2f}",
                    f"{100 * erm['quantiles'][2]:.2f}",
                    f"{100 * mast['quantiles'][2]:.2f}",
                    f"{100 * mean(erm['dense_accuracy']):.2f}",
                    f"{100 * mean(mast['dense_accuracy']):.2f}",
                    f"{found[f'gap, {shift}']['gap']:.1e}" if rule == "last" else "",
                ]
            )
    return lines


def draw(results: dict[str, dict[str, Any]]) -> str:
    """Boxes of the pruned accuracy over masks and seeds."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    names = [name for name in results if name.startswith("Rand-K")]
    with plt.rc_context({"svg.hashsalt": NAME, "font.size": 9}):
        figure, grid = plt.subplots(2, 2, figsize=(9, 6), sharex=True, sharey="row", layout="constrained")
        for line, shift in zip(grid, SHIFTS, strict=True):
            for axis, rule in zip(line, ("last", "loss"), strict=True):
                for offset, method, color in ((-0.18, "ERM", "#b5541c"), (0.18, "MAST", "#1f5a7a")):
                    parts = [results[name][f"{method}, {shift}, {rule}"] for name in names]
                    boxes = [
                        dict(zip(("whislo", "q1", "med", "q3", "whishi"), (100 * q for q in part["quantiles"]),
                                 strict=True))
                        for part in parts
                    ]  # fmt: skip
                    drawn = axis.bxp(boxes, positions=[at + offset for at in range(len(names))], widths=0.3,
                                     showfliers=False, patch_artist=True, manage_ticks=False,
                                     medianprops={"color": "black"})  # fmt: skip
                    for box in drawn["boxes"]:
                        box.set(facecolor=color, alpha=0.6, label=method if box is drawn["boxes"][0] else None)
                dense = 100 * mean(results[names[0]][f"ERM, {shift}, last"]["dense_accuracy"])
                axis.axhline(dense, color="#b5541c", lw=0.8, ls="--", label="ERM, not pruned")
                majority = 100 * float((problem().truth < 0).float().mean())
                axis.axhline(majority, color="#777777", lw=0.8, ls=":", label="majority class")
                axis.set_title(f"v = {shift}, point: {'last' if rule == 'last' else 'least validation loss'}")
                axis.set_xticks(range(len(names)), [name.removeprefix("Rand-K ") for name in names])
                axis.grid(alpha=0.25, axis="y")
            line[0].set_ylabel("pruned test accuracy, %")
        for axis in grid[1]:
            axis.set_xlabel("fraction kept, q")
        grid[0, 0].legend(frameon=False)
        figure.savefig(RESULTS / NAME / "boxes.svg", metadata={"Date": None})
        plt.close(figure)
    return f"{NAME}/boxes.svg"


def main() -> None:
    """Measure what is missing, and write the table."""
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    wanted = sys.argv[1:]
    results = {
        name: remembered(NAME, name.replace(" ", "-"), lambda name=name: measure(name))
        for name in LAWS
        if not wanted or name in wanted
    }
    if wanted:
        return
    some = next(iter(results.values()))
    columns = ["shift v", "law", "point", "pruned loss, ERM", "pruned loss, MAST", "pruned accuracy, ERM, %",
               "pruned accuracy, MAST, %", "MAST - ERM, points", "median, ERM, %", "median, MAST, %",
               "dense accuracy, ERM, %", "dense accuracy, MAST, %", "gap of the MAST objective"]  # fmt: skip
    write_table(
        NAME,
        "Logistic regression on a5a, pruned at random: ERM and sketched training (MAST)",
        columns,
        [line for name, found in results.items() for line in rows(name, found)],
        f"Means over {SEEDS} seeds, each with its own 80 % of a5a to train on (20 % choose) and {TESTING} masks of the "
        f"law; all numbers on a9a.t. l2 strength {LAM:g}, inside the sketched loss; no bias; loss without the penalty. "
        f"MAST: {STEPS} steps of SGD on sketches, exact gradient of each, the theory's step 1 / (L_f L_S^max) with "
        f"L_f = {some['smooth']:.3f}. Point: last is the exact optimum (ERM) or the mean of the last half of the steps "
        "(MAST); loss and accuracy are the window of the trajectory, of gradient descent for ERM, with the best pruned "
        "validation loss or accuracy: the same rule for both. MAST - ERM: mean and deviation of the difference of a "
        "seed, same masks for both. Median over masks and seeds; boxes in the picture are quartiles, whiskers 5 % and "
        "95 %. Gap: what a quadratic model says the MAST objective is above its minimum, mean over "
        "seeds. Where the points are chosen alike, stopping gradient descent early "
        "takes away a good part of what separates the optimum of ERM from MAST. With v = 0 "
        f"accuracy does not depend on the scale of what is kept. Always the majority class: "
        f"{100 * float((problem().truth < 0).float().mean()):.2f} %. Accuracy of v = ERM of 10 % itself: "
        f"{100 * mean(some[f'shift, {SHIFTS[1]}']):.2f} %.",
        draw(results),
    )


if __name__ == "__main__":
    main()
