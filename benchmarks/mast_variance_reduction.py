"""Logistic regression under a pool of sketches: plain steps stall, L-SVRG and PAGE go on to the last bit.

``f(y) = mean log(1 + exp(-b a'y)) + 0.005 |y|^2``, sketched around v = 0 by a pool of complementary halves: an
artificial problem (400 samples, 20 numbers) and a1a (1605 samples, 123 numbers, each sample scaled to unit length). All
samples are used, and nothing is chosen by data: what is measured is the distance to the minimizer of the mean over the
pool, which Newton's method finds, and step sizes are those of the theory. The third panel has anchors over b members
of a pool of 30, where the theory of anchors drawn anew every step has a bound. If v minimizes f, plain steps converge
too.

One run of each method in float64, with the package's own classes. Stopped, the script goes on after the last run. With
runs as arguments, such as "a1a, PAGE", it computes these and writes no table, so that several processes can work at
once.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from fista import newton
from readme_table import RESULTS, Cell
from record import data_dir, remembered, write_table
from torch import Tensor, nn
from torch.nn.functional import softplus
from typing_extensions import override

from openwork.data import svmlight
from openwork.sketches import (
    DSGD,
    LSVRG,
    PAGE,
    Key,
    PermK,
    Pool,
    SketchedModule,
    expected_smoothness,
    lsvrg_lr,
    page_lr,
    theory_lr,
)

NAME = "mast_variance_reduction"
LAM = 1e-2
POOL, ANCHORED = 40, 30
STEPS = {"synthetic": 2500, "a1a": 4000}
ANCHORS = (1, 5, 15, 30)


@dataclass(frozen=True, eq=False)
class Problem:
    """Samples, and signs -1 and 1, in float64.

    Args:
        inputs: ``(m, d)``.
        signs: ``(m,)``.
    """

    inputs: Tensor
    signs: Tensor

    @property
    def size(self) -> int:
        """Numbers in a vector."""
        return self.inputs.shape[1]

    @property
    def smooth(self) -> float:
        """``L_f``."""
        return float(torch.linalg.eigvalsh(self.inputs.T @ self.inputs / len(self.inputs))[-1]) / 4 + LAM

    def minimizer(self, v: Tensor, masks: Tensor) -> Tensor:
        """Where the mean over masks ``(N, d)`` is least, to a gradient below 1e-15."""
        moment = torch.diag((masks.square()).mean(0))

        def derivatives(x: Tensor) -> tuple[Tensor, Tensor]:
            y = v + masks * (x - v)
            p = torch.sigmoid(-(self.inputs @ y.T) * self.signs.unsqueeze(1))
            gradients = masks * (LAM * y - (p * self.signs.unsqueeze(1)).T @ self.inputs / len(self.inputs))
            hessian = LAM * moment
            for mask, q in zip(masks, (p * (1 - p)).T, strict=True):
                sketched = self.inputs * mask
                hessian = hessian + sketched.T @ (sketched * q.unsqueeze(1)) / (len(self.inputs) * len(masks))
            return gradients.mean(0), hessian

        return newton(derivatives, v, tolerance=1e-15)


@cache
def problem(name: str) -> Problem:
    """The artificial problem, or a1a."""
    if name == "a1a":
        data = svmlight("a1a", data_dir(), valid=0.0)
        inputs = torch.cat([data.train.inputs, data.test.inputs]).double()
        targets = torch.cat([data.train.targets, data.test.targets])
        return Problem(inputs / inputs.norm(dim=1, keepdim=True), 2.0 * targets.double() - 1)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(400, 20, generator=generator, dtype=torch.float64)
    truth = torch.randn(20, generator=generator, dtype=torch.float64)
    noise = torch.randn(400, generator=generator, dtype=torch.float64)
    return Problem(inputs, torch.sign(inputs @ truth + noise))


class Loss(nn.Module):
    """f, as a module that gives its value."""

    def __init__(self, data: Problem, start: Tensor) -> None:
        super().__init__()
        self.y = nn.Parameter(start.clone())
        self.data = data

    @override
    def forward(self) -> Tensor:
        margins = (self.data.inputs @ self.y) * self.data.signs
        return softplus(-margins).mean() + LAM / 2 * self.y.square().sum()


def pool_of(data: Problem, count: int) -> Pool:
    """Complementary halves of random permutations."""
    return Pool.of(PermK(2), Key(0, family="pool"), data.size, count)


def masks_of(pool: Pool, data: Problem) -> Tensor:
    """Diagonals of the members, ``(N, d)``."""
    return torch.stack([draw.apply(torch.ones(data.size, dtype=torch.float64)) for draw in pool])


Step = Callable[[SketchedModule, torch.optim.Optimizer, Pool], Callable[[Callable[[], Tensor]], Tensor]]


def run(
    data: Problem, pool: Pool, v: Tensor, start: Tensor, answer: Tensor, lr: float, steps: int, make: Step
) -> dict[str, Any]:
    """Train, and watch the squared distance and the number of sketched gradients."""
    sketched = SketchedModule(Loss(data, start), pool, shift={"y": v}, granularity="model", key=Key(1))
    optimizer = torch.optim.SGD(sketched.parameters(), lr=lr)
    take = make(sketched, optimizer, pool)
    (x,) = sketched.parameters()
    gradients = 0

    def closure() -> Tensor:
        nonlocal gradients
        gradients += 1
        loss = sketched()
        loss.backward()
        return loss

    distances: list[float] = []
    counts: list[int] = []
    for _ in range(steps):
        distances.append(float((x.detach() - answer).square().sum()))
        counts.append(gradients)
        take(closure)
    every = max(1, steps // 400)
    below = next((at for at, distance in enumerate(distances) if distance < 1e-20), None)
    tail = distances[steps // 2 :]
    return {
        "lr": lr,
        "start": distances[0],
        "plateau": sum(tail) / len(tail),
        "last": distances[-1],
        "least": min(distances),
        "below": below,
        "gradients_below": None if below is None else counts[below],
        "distances": distances[::every],
        "gradients": counts[::every],
        "every": every,
    }


def dsgd(sketched: SketchedModule, optimizer: torch.optim.Optimizer, _: Pool) -> Callable[..., Tensor]:
    """Plain steps."""
    return DSGD(optimizer, sketched).step


def page(sketched: SketchedModule, optimizer: torch.optim.Optimizer, pool: Pool) -> Callable[..., Tensor]:
    """Recursive variance reduction, refreshed as often as L-SVRG."""
    return PAGE(optimizer, sketched, pool, refresh=1 / len(pool)).step


def lsvrg(anchor: int | None = None, redraw: Literal["refresh", "step"] = "refresh") -> Step:
    """Loopless variance reduction."""

    def make(sketched: SketchedModule, optimizer: torch.optim.Optimizer, pool: Pool) -> Callable[..., Tensor]:
        return LSVRG(optimizer, sketched, pool, anchor=anchor, redraw_anchor=redraw).step

    return make


def compared(name: str, method: str) -> dict[str, Any]:
    """One method on one problem."""
    data = problem(name)
    pool = pool_of(data, POOL)
    zero = torch.zeros(data.size, dtype=torch.float64)
    answer = data.minimizer(zero, masks_of(pool, data))
    largest = theory_lr(data.smooth, pool, data.size)
    methods: dict[str, tuple[float, Step]] = {
        "DSGD": (largest, dsgd),
        "DSGD, a tenth": (largest / 10, dsgd),
        "L-SVRG": (lsvrg_lr(data.smooth, pool, data.size), lsvrg()),
        "PAGE": (page_lr(data.smooth, pool, data.size, 1 / POOL, 1, 2 * LAM), page),
    }
    lr, make = methods[method]
    found = run(data, pool, zero, zero, answer, lr, STEPS[name], make)
    # Of L-SVRG: 1 - min(lr mu, p / 2), with mu = mu_D mu_f and mu_D = 2.
    rate = min(lr * 2 * LAM, 0.5 / POOL) if method == "L-SVRG" else lr * 2 * LAM
    return found | {"rate": rate}


METHODS = ("DSGD", "DSGD, a tenth", "L-SVRG", "PAGE")


def interpolating() -> dict[str, Any]:
    """Around a v that minimizes f, so that the answer of every sketch is v."""
    data = problem("synthetic")
    pool = pool_of(data, POOL)
    v = data.minimizer(torch.zeros(data.size, dtype=torch.float64), torch.ones(1, data.size, dtype=torch.float64))
    start = v + torch.randn(data.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return run(data, pool, v, start, v, theory_lr(data.smooth, pool, data.size), 4000, dsgd)


def anchored(b: int, redraw: Literal["refresh", "step"]) -> dict[str, Any]:
    """L-SVRG with anchors over b members, from the answer if they are drawn anew every step, else from 0."""
    data = problem("synthetic")
    pool = pool_of(data, ANCHORED)
    masks = masks_of(pool, data)
    zero = torch.zeros(data.size, dtype=torch.float64)
    answer = data.minimizer(zero, masks)
    lr = lsvrg_lr(data.smooth, pool, data.size, "minibatch")
    y = masks * answer
    p = torch.sigmoid(-(data.inputs @ y.T) * data.signs.unsqueeze(1))
    gradients = masks * (LAM * y - (p * data.signs.unsqueeze(1)).T @ data.inputs / len(data.inputs))
    noise = float(gradients.square().sum(1).mean())
    zeta = (ANCHORED - b) / (b * (ANCHORED - 1))
    rho = min(lr * 2 * LAM, 0.5 / ANCHORED)
    start, steps = (answer, 800) if redraw == "step" else (zero, 3000)
    found = run(data, pool, zero, start, answer, lr, steps, lsvrg(b, redraw))
    return found | {"zeta": zeta, "bound": 2 * lr**2 * zeta * noise / rho}


def draw(results: dict[str, dict[str, Any]]) -> str:
    """Distances against sketched gradients."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    colors = ("#777777", "#b5541c", "#1f5a7a", "#4d7a2a")
    with plt.rc_context({"svg.hashsalt": NAME, "font.size": 9}):
        figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), sharey=True, layout="constrained")
        for axis, name in zip(axes[:2], STEPS, strict=True):
            for method, color in zip(METHODS, colors, strict=True):
                part = results[f"{name}, {method}"]
                axis.plot(part["gradients"], part["distances"], lw=1, color=color, label=method)
            axis.set(title="400 samples, 20 numbers" if name == "synthetic" else "a1a", xlabel="sketched gradients")
        for b, color in zip(ANCHORS, colors, strict=True):
            part = results[f"anchor {b}, refresh"]
            axes[2].plot(part["gradients"], part["distances"], lw=1, color=color, label=f"b = {b}")
        axes[2].set(title=f"anchors over b of {ANCHORED} members", xlabel="sketched gradients")
        axes[0].set(yscale="log", ylabel="squared distance to the minimizer", ylim=(1e-32, 1e2))
        for axis in axes:
            axis.grid(alpha=0.25)
            axis.legend(frameon=False)
        figure.savefig(RESULTS / NAME / "distances.svg", metadata={"Date": None})
        plt.close(figure)
    return f"{NAME}/distances.svg"


def line(title: str, setting: str, found: dict[str, Any]) -> list[Cell]:
    """One line of the table."""
    measured, allowed = "", ""
    if found["below"] and "rate" in found:
        # Distances fall faster than the square of the theory's factor allows, down to where rounding begins.
        measured = f"{math.log(found['start'] / 1e-20) / found['below']:.1e}"
        allowed = f"{found['rate']:.1e}"
    stalled = found["last"] > 1e-20
    return [
        title,
        setting,
        f"{found['lr']:.2e}",
        f"{found['plateau']:.1e}" if stalled else f"{found['least']:.1e}",
        f"{found['bound']:.1e}" if found.get("bound") and "every step" in setting else "",
        "" if found["below"] is None or "every step" in setting else found["below"],
        "" if found["gradients_below"] is None or "every step" in setting else found["gradients_below"],
        measured,
        allowed,
    ]


def main() -> None:
    """Run what is missing, and write the table."""
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    runs: dict[str, Callable[[], dict[str, Any]]] = {}
    for name in STEPS:
        for method in METHODS:
            runs[f"{name}, {method}"] = lambda n=name, m=method: compared(n, m)
    runs["interpolation"] = interpolating
    for b in ANCHORS:
        runs[f"anchor {b}, refresh"] = lambda b=b: anchored(b, "refresh")
    for b in ANCHORS[:-1]:
        runs[f"anchor {b}, step"] = lambda b=b: anchored(b, "step")
    results: dict[str, dict[str, Any]] = {}
    wanted = sys.argv[1:]
    for name, compute in runs.items():
        if wanted and name not in wanted:
            continue
        results[name] = remembered(NAME, name.replace(", ", "-").replace(" ", "-"), compute)
        print(name, {k: v for k, v in results[name].items() if k not in ("distances", "gradients")}, flush=True)
    if wanted:
        return
    rows = [line(name, method, results[f"{name}, {method}"]) for name in STEPS for method in METHODS]
    rows.append(line("synthetic, v minimizes f", "DSGD", results["interpolation"]))
    rows += [
        line("synthetic, pool of 30", f"L-SVRG, anchor over {b}, drawn with the point", results[f"anchor {b}, refresh"])
        for b in ANCHORS
    ]
    rows += [
        line("synthetic, pool of 30", f"L-SVRG, anchor over {b}, drawn every step", results[f"anchor {b}, step"])
        for b in ANCHORS[:-1]
    ]
    halves = expected_smoothness(1.0, pool_of(problem("synthetic"), POOL), problem("synthetic").size)
    write_table(
        NAME,
        "Variance reduction over a pool of sketches, logistic regression",
        ["problem", "method", "step size", "squared distance", "bound of the distance", "steps to 1e-20",
         "sketched gradients to 1e-20", "rate per step", "rate of the theory"],
        rows,
        f"l2 strength {LAM:g}, inside the sketched loss; v = 0; pools of {POOL} complementary halves (L_S^max = "
        f"{halves:g}), float64, one run each, with the package's classes. Step sizes: 1 / (L_f L_S^max) and a tenth of "
        "it for DSGD, 1 / (6 L_f L_S^max) for L-SVRG with a full anchor and 1 / (10 L_f L_S^max) with a smaller one, "
        "that of the PL theorem for PAGE, which refreshes with probability 1 / N like L-SVRG. Squared distance to the "
        "minimizer of the mean over the pool (Newton's method): the least of the run where it falls below 1e-20, else "
        "the mean over the second half. Rate: of the logarithm, from the start to 1e-20. Anchors drawn every step "
        "start at the minimizer, where the theory bounds the distance that they leave; no bound is known to us for "
        "anchors that stay.",
        draw(results),
    )  # fmt: skip


if __name__ == "__main__":
    main()
