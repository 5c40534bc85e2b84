"""Theorems about training under sketches, measured: how far below its bound each quantity stays.

Problems are drawn once from seed 0: quadratics of 20 numbers with condition number 10, and a smooth non-convex fit.
Their constants, and the answers of the quadratics, are known in closed form, so nothing is chosen by data. Expectations
are means over repeats that run side by side; their draws come from one generator in place of keys, which serve one
draw at a time. Step sizes are the largest that the theorems allow, unless a line says otherwise.

The theorems are our reading of the MAST paper (Demidovich et al., ICLR 2025, arXiv:2311.16086), whose constants may
differ.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from readme_table import Cell
from record import remembered, write_table
from torch import Tensor

NAME = "mast_bounds"
SIZE, CONDITION, REPEATS = 20, 10.0, 400
Step = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Quadratic:
    """Workers' ``f_i(y) = y'A_i y / 2 - b_i'y`` around v = 0, and what they become under sketches that keep K of d.

    Args:
        matrices: ``(workers, d, d)``.
        vectors: ``(workers, d)``.
        keep: K.
    """

    matrices: Tensor
    vectors: Tensor
    keep: int

    @property
    def smooth(self) -> float:
        """L, the largest of the workers."""
        return float(torch.linalg.eigvalsh(self.matrices).max())

    @property
    def convex(self) -> float:
        """mu, the least of the workers."""
        return float(torch.linalg.eigvalsh(self.matrices).min())

    @property
    def sketched(self) -> Tensor:
        """Hessian of the sketched objective, ``rho A + (d / K - rho) Diag(A)``, mean over the workers."""
        d, k = self.vectors.shape[1], self.keep
        rho = d * (k - 1) / (k * (d - 1))
        diagonals = torch.diag_embed(self.matrices.diagonal(dim1=1, dim2=2))
        return (rho * self.matrices + (d / k - rho) * diagonals).mean(0)

    @property
    def answer(self) -> Tensor:
        """Where the sketched objective is least."""
        return torch.linalg.solve(self.sketched, self.vectors.mean(0))

    def value(self, x: Tensor) -> Tensor:
        """The sketched objective, ``(..., d)`` to ``(...)``."""
        return 0.5 * ((x @ self.sketched) * x).sum(-1) - x @ self.vectors.mean(0)

    @property
    def gap(self) -> float:
        """The least sketched objective less the mean of the workers' least values."""
        least = -0.5 * (self.vectors * torch.linalg.solve(self.matrices, self.vectors)).sum(1).mean()
        return float(self.value(self.answer) - least)


def quadratic(workers: int, keep: int) -> Quadratic:
    """Random axes, eigenvalues from 1 to 10."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(workers, SIZE, SIZE, generator=generator, dtype=torch.float64)).Q
    eigenvalues = torch.linspace(1, CONDITION, SIZE, dtype=torch.float64)
    vectors = torch.randn(workers, SIZE, generator=generator, dtype=torch.float64)
    return Quadratic(axes @ (eigenvalues.unsqueeze(1) * axes.mT), vectors, keep)


def permutations(count: int, generator: torch.Generator) -> Tensor:
    """Random orders, ``(count, d)``."""
    return torch.rand(count, SIZE, generator=generator).argsort(1)


def rand_k(keep: int, count: int, generator: torch.Generator) -> Tensor:
    """Diagonals of Rand-K, ``(count, d)``."""
    return (permutations(count, generator) < keep).double() * (SIZE / keep)


def distances(answer: Tensor, repeats: int, step: Step, lr: float, steps: int) -> Tensor:
    """Mean squared distance over repeats that start at 0, before every step and after the last."""
    x = torch.zeros(repeats, len(answer), dtype=answer.dtype)
    found: list[Tensor] = []
    for _ in range(steps):
        found.append((x - answer).square().sum(1).mean())
        x = x - lr * step(x)
    return torch.stack([*found, (x - answer).square().sum(1).mean()])


def strongly_convex() -> list[list[Cell]]:
    """Double-sketched SGD on a quadratic."""
    rows: list[list[Cell]] = []
    for keep in (15, 10, 5):
        q = quadratic(1, keep)
        largest, smooth = (SIZE / keep) ** 2, SIZE / keep
        mu = smooth * q.convex
        plateaus: list[float] = []
        for factor in (1.0, 0.1):
            generator = torch.Generator().manual_seed(keep)
            lr = factor / (q.smooth * largest)
            steps = 3000 if factor == 1 else 6000

            def step(x: Tensor, keep: int = keep, q: Quadratic = q, generator: torch.Generator = generator) -> Tensor:
                s = rand_k(keep, len(x), generator)
                return s * ((s * x) @ q.matrices[0] - q.vectors[0])

            distance = distances(q.answer, REPEATS, step, lr, steps)
            plateaus.append(float(distance[steps // 2 :].mean()))
            for t in (100, 500, 3000) if factor == 1 else ():
                bound = (1 - lr * mu) ** t * float(distance[0]) + 2 * lr * q.smooth * largest * q.gap / mu
                rows.append(["strongly convex", f"Rand-{keep} of {SIZE}, step {t}", "squared distance",
                             float(distance[t]), bound])  # fmt: skip
        rows.append(["strongly convex", f"Rand-{keep} of {SIZE}, a tenth of the step size",
                     "plateau, as a fraction of the larger step size's", plateaus[1] / plateaus[0], None])  # fmt: skip
    return rows


def by_noise() -> list[list[Cell]]:
    """The same with the bound by the noise at the minimizer, ``2 lr E|g(x*)|^2 / mu``, for half the step size."""
    rows: list[list[Cell]] = []
    for keep in (15, 10, 5):
        q, generator = quadratic(1, keep), torch.Generator().manual_seed(keep)
        lr, mu = 1 / (2 * q.smooth * (SIZE / keep) ** 2), SIZE / keep * q.convex

        def step(x: Tensor, keep: int = keep, q: Quadratic = q, generator: torch.Generator = generator) -> Tensor:
            s = rand_k(keep, len(x), generator)
            return s * ((s * x) @ q.matrices[0] - q.vectors[0])

        noise = float(step(q.answer.expand(100_000, -1)).square().sum(1).mean())
        distance = distances(q.answer, REPEATS, step, lr, 1000)
        bound = (1 - lr * mu) ** 1000 * float(distance[0]) + 2 * lr * noise / mu
        rows.append(
            ["strongly convex, by noise", f"Rand-{keep} of {SIZE}, step 1000", "squared distance", float(distance[-1]),
             bound]
        )  # fmt: skip
    return rows


def convex() -> list[list[Cell]]:
    """The mean of the iterates."""
    q, generator, steps = quadratic(1, 10), torch.Generator().manual_seed(0), 1000
    largest = 4.0
    lr = 1 / (2 * q.smooth * largest)

    def step(x: Tensor) -> Tensor:
        s = rand_k(10, len(x), generator)
        return s * ((s * x) @ q.matrices[0] - q.vectors[0])

    x, total = torch.zeros(REPEATS, SIZE).double(), torch.zeros(REPEATS, SIZE).double()
    for _ in range(steps):
        total += x
        x = x - lr * step(x)
    measured = float((q.value(total / steps) - q.value(q.answer)).mean())
    bound = float(q.answer.square().sum()) / (lr * steps) + 2 * lr * q.smooth * largest * q.gap
    return [["convex", f"Rand-10 of {SIZE}, mean of {steps} steps", "objective above its minimum", measured, bound]]


def distributed() -> list[list[Cell]]:
    """Perm-K and independent Rand-K on workers whose quadratics differ."""
    rows: list[list[Cell]] = []

    def run(q: Quadratic, workers: int, independent: bool, lr: float, steps: int, repeats: int) -> Tensor:
        generator = torch.Generator().manual_seed(workers)
        each = SIZE // workers

        def step(x: Tensor) -> Tensor:
            if independent:
                s = rand_k(each, len(x) * workers, generator).view(len(x), workers, SIZE)
            else:
                owner = permutations(len(x), generator) // each
                s = (owner.unsqueeze(1) == torch.arange(workers).view(1, -1, 1)).double() * workers
            y = s * x.unsqueeze(1)
            return (s * (torch.einsum("rwd,wde->rwe", y, q.matrices) - q.vectors)).mean(1)

        return distances(q.answer, repeats, step, lr, steps)

    for workers in (2, 4, 5, 10):
        q = quadratic(workers, SIZE // workers)
        lr = 1 / (workers * q.smooth)
        distance = run(q, workers, False, lr, 400, 200)
        for t in (20, 400):
            shrunk = (1 - q.convex / q.smooth) ** t * float(distance[0])
            bound = shrunk + 2 * lr * q.smooth / q.convex * q.gap
            rows.append(["distributed", f"Perm-K, {workers} workers, step {t}", "squared distance", float(distance[t]),
                         bound])  # fmt: skip
    q = quadratic(5, 4)
    for kind, independent in (("Perm-K", False), ("independent Rand-K", True)):
        for times in (1, 2, 3, 4):
            distance = run(q, 5, independent, times / (5 * q.smooth), 400, 200)
            rows.append(["stability", f"{kind}, 5 workers, step size {times} / (n L), step 400", "squared distance",
                         min(float(distance[-1].nan_to_num(math.inf)), 1e99), None])  # fmt: skip
    return rows


def nonconvex() -> list[list[Cell]]:
    """DSGD and PAGE on ``mean t^2 / (1 + t^2)``, t = a'y - b, over a pool of complementary halves."""
    samples, size, pool, repeats = 200, 16, 32, 20
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(samples, size, generator=generator, dtype=torch.float64) / size**0.5
    b = torch.randn(samples, generator=generator, dtype=torch.float64)
    v = torch.zeros(size, dtype=torch.float64)
    x0 = torch.randn(size, generator=generator, dtype=torch.float64)
    halves = torch.stack(
        [(torch.randperm(size, generator=generator) < size // 2).double() * 2 for _ in range(pool // 2)]
    )
    masks = torch.cat([halves, 2 - halves])
    smooth = 2 * float(torch.linalg.eigvalsh(a.T @ a / samples)[-1])
    law_smooth, largest = 2.0, 4.0

    def sketched(x: Tensor, s: Tensor) -> Tensor:
        t = (v + s * (x - v)) @ a.T - b
        return s * ((2 * t / (1 + t.square()).square()) @ a / samples)

    def full(x: Tensor) -> Tensor:
        return sketched(x.unsqueeze(-2), masks).mean(-2)

    def value(x: Tensor) -> Tensor:
        t = (v + masks * (x - v)) @ a.T - b
        return (t.square() / (1 + t.square())).mean()

    # inf f >= 0, and the least value found is above the least there is: both bounds can only become larger by this.
    best = x0
    for _ in range(3000):
        best = best - full(best) / (law_smooth * smooth)
    above = float(value(x0))
    gap = float(value(best))

    def dsgd(steps: int) -> list[Cell]:
        lr = 1 / (smooth * (law_smooth * largest * steps) ** 0.5)
        x, norms = x0.repeat(repeats, 1), list[float]()
        for _ in range(steps):
            norms.append(float(full(x).square().sum(1).mean()))
            x = x - lr * sketched(x, masks[torch.randint(pool, (repeats,), generator=generator)])
        bound = 3 * above / (lr * steps) + lr * smooth**2 * law_smooth * largest * gap
        return ["non-convex", f"DSGD, pool of {pool} halves, {steps} steps", "least mean squared gradient", min(norms),
                bound]  # fmt: skip

    def page(steps: int, lr: float, p: float) -> tuple[list[float], Tensor]:
        x, norms = x0.repeat(repeats, 1), list[float]()
        g = full(x)
        for _ in range(steps):
            exact = full(x)
            norms.append(float(exact.square().sum(1).mean()))
            new = x - lr * g
            s = masks[torch.randint(pool, (repeats,), generator=generator)]
            refresh = torch.rand(repeats, 1, generator=generator) < p
            g = torch.where(refresh, full(new), g + sketched(new, s) - sketched(x, s))
            x = new
        return norms, x

    p, steps = 1 / (pool + 1), 2000
    average = smooth * (law_smooth * largest) ** 0.5
    lr = 1 / (law_smooth * smooth + average * ((1 - p) / p) ** 0.5)
    norms, _ = page(steps, lr, p)
    return [
        dsgd(1000),
        ["non-convex", f"PAGE, one sketch, p = 1/{pool + 1}, {steps} steps", "mean squared gradient of a random step",
         sum(norms) / steps, 2 * above / (lr * steps)],
        ["non-convex", f"the same, step {steps}", "mean squared gradient", norms[-1], None],
    ]  # fmt: skip


def main() -> None:
    """Measure what is missing, and write the table."""
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    measures: dict[str, Callable[[], list[list[Cell]]]] = {
        "strongly-convex": strongly_convex,
        "by-noise": by_noise,
        "convex": convex,
        "non-convex": nonconvex,
        "distributed": distributed,
    }
    rows: list[list[Cell]] = []
    for part, measure in measures.items():
        found: dict[str, Any] = remembered(NAME, part, lambda measure=measure: {"rows": measure()})
        for theorem, setting, quantity, measured, bound in found["rows"]:
            under = bound / measured if bound is not None and measured else None
            rows.append([theorem, setting, quantity, f"{measured:.2e}", "" if bound is None else f"{bound:.2e}",
                         "" if under is None else f"{under:.1f}"])  # fmt: skip
    write_table(
        NAME,
        "Training under sketches: what is measured, and what the theorems allow",
        ["theorem", "setting", "quantity", "measured", "bound", "bound / measured"],
        rows,
        f"Quadratics of {SIZE} numbers with eigenvalues from 1 to {CONDITION:g} and random axes, v = 0, start at v, "
        f"{REPEATS} repeats (200 for several workers, whose quadratics differ): distances to the minimizer of the "
        "sketched objective, which is known exactly. Step sizes are the largest of the theorem: 1 / (L_f L_S^max), "
        "half of that (convex, and strongly convex by the noise at the minimizer), 1 / (n L) (Perm-K). The non-convex "
        "function is a mean of 200 terms t^2 / (1 + t^2) of 16 numbers, 20 repeats; its bounds use 0 for the least "
        "value of f, and the least sketched value found. Lines without a bound: a plateau should shrink about as the "
        "step size does, and a run is unstable where the distance is huge (1e99: beyond numbers). Stability depends on "
        "the problem, of which this is one draw: for Perm-K the theory promises it at 1 / (n L).",
    )


if __name__ == "__main__":
    main()
