"""The subproblem of the adaptive methods: the exact solver beside proximal gradient steps, three spreads of the metric.

The instance (seed 0) imitates a weight of 512 outputs and 1024 inputs in training: ``b`` is normal, its columns scaled
log-normally (sigma 0.3); ``d`` is log-normal with sigma 0.3, 1 or 2, entry by entry; ``kappa`` halves the groups, one
per column; the start is the exact solution for a ``b`` whose columns and entries differ by 1 %, as from steps before.
The truth comes from 200 bisections of the secular equation in float64, which share no code with the solver.

Proximal gradient (PG) runs in float64, with a step for each group (the released code's) or one for the weight (the
paper's), at most 100 iterations, and the stopping rule of the authors' experiments computed correctly: the relative
decrease of the objective falls below 1e-8. The library's own PG stops by its certificate instead. A time is the
shortest of up to five solves, each solver in its own precision.
"""

from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

import torch
from readme_table import Cell
from record import write_table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import override

from openwork.partitions import Slices
from openwork.penalties import GroupLasso, ProximalGradient

NAME = "solver_table"
SHAPE, SPREADS = (512, 1024), (0.3, 1.0, 2.0)
GROUPS = Slices(1)


class Instance(NamedTuple):
    """Minimize ``0.5 x'Dx - b'x + kappa sum_g ||x_g||`` over the columns of x, from a warm start."""

    b: Tensor
    d: Tensor
    kappa: float
    start: Tensor
    truth: Tensor

    def to(self, dtype: torch.dtype) -> "Instance":
        """The same numbers in another precision."""
        return Instance(self.b.to(dtype), self.d.to(dtype), self.kappa, self.start.to(dtype), self.truth.to(dtype))

    def residuals(self, x: Tensor) -> Tensor:
        """Least norm of a subgradient at x, group by group, in float64 whatever x is in."""
        x = x.double()
        norms = x.norm(dim=0)
        inside = (self.d * x - self.b + self.kappa * x / norms.clamp_min(1e-300)).norm(dim=0)
        return torch.where(norms > 0, inside, (self.b.norm(dim=0) - self.kappa).clamp_min(0))


class Result(NamedTuple):
    """A minimizer, and iterations of the slowest group."""

    x: Tensor
    iterations: int


def instance(spread: float) -> Instance:
    """The problem with metric ``exp(spread * normal)``; b and d are exact in float32, so precisions agree on it."""
    generator = torch.Generator().manual_seed(0)
    b = torch.randn(SHAPE, generator=generator) * (0.3 * torch.randn(SHAPE[1], generator=generator)).exp()
    d = (spread * torch.randn(SHAPE, generator=generator)).exp()
    b, d = b.double(), d.double()
    norms = b.norm(dim=0).sort().values
    kappa = float(norms[SHAPE[1] // 2 - 1 : SHAPE[1] // 2 + 1].mean())
    noise = torch.randn(SHAPE, generator=generator) + torch.randn(SHAPE[1], generator=generator)
    before = bisect(b * (1 + 0.01 * noise.double()), d, kappa)
    return Instance(b, d, kappa, before.float().double(), bisect(b, d, kappa))


def bisect(b: Tensor, d: Tensor, kappa: float) -> Tensor:
    """The exact solution in float64, from halving an interval around the norm of every group."""
    low = torch.zeros_like(b[0])
    high = (b / d).norm(dim=0)
    for _ in range(200):
        middle = (low + high) / 2
        short = (b / (middle * d + kappa)).norm(dim=0) > 1
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return torch.where(b.norm(dim=0) > kappa, high * b / (high * d + kappa), 0.0)


class Evaluations(TorchDispatchMode):
    """Counts how often the solver evaluates the secular equation: its one fused multiply-add of r, d and kappa."""

    count = 0

    @override
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten.addcmul.default
        return func(*args, **(kwargs or {}))


def newton(problem: Instance) -> Tensor:
    """The exact solver."""
    return GroupLasso(problem.kappa, GROUPS, weight="one").solve(problem.b, problem.d, 1.0).x


def counted_newton(problem: Instance) -> Result:
    """The exact solver, with its number of Newton steps."""
    with Evaluations() as evaluations:
        x = newton(problem)
    return Result(x, evaluations.count - 1)


def pg(problem: Instance, *, per_group: bool, most: int = 100, decrease: float = 1e-8) -> Result:
    """Proximal gradient, stopped when the objective falls by less than ``decrease``, relatively."""
    b, d, kappa, z, _ = problem
    penalty = GroupLasso(kappa, GROUPS, weight="one")
    theta = 1 / (d.amax(0) if per_group else d.amax())

    def objective(z: Tensor) -> Tensor:
        return ((0.5 * d * z - b) * z).sum() + penalty.value(z)

    before, iteration = objective(z), 0
    for iteration in range(1, most + 1):  # noqa: B007
        z = penalty.prox(z - theta * (d * z - b), theta)
        now = objective(z)
        if before - now < decrease * (now.abs() + 1):
            break
        before = now
    return Result(z, iteration)


def certified(problem: Instance) -> Result:
    """The library's PG, stopped by its certificate."""
    solver = ProximalGradient(GroupLasso(problem.kappa, GROUPS, weight="one"), 1e-6, 1000, step="group")
    descent = solver.descend(problem.b, problem.d, 1.0, problem.start)
    return Result(descent.solution.x, descent.iterations)


def milliseconds(solve: Callable[[], object]) -> float:
    """Shortest time of up to five solves, fewer if they take seconds."""
    times: list[float] = []
    while len(times) < 5 and sum(times) < 2e3:
        begin = perf_counter()
        solve()
        times.append(1e3 * (perf_counter() - begin))
    return min(times)


def row(
    name: str, spread: float, problem: Instance, run: Callable[[], Result], timed: Callable[[], object]
) -> list[Cell]:
    """One line of the table."""
    x, iterations = run()
    residuals = problem.residuals(x)
    norms = problem.b.norm(dim=0)
    wrong = ((x != 0).any(0) != (problem.truth != 0).any(0)).sum()
    errors = [
        (x.double() - problem.truth).norm() / problem.truth.norm(),
        residuals.max() / problem.kappa,
        (residuals / norms.clamp_min(problem.kappa)).max(),
    ]
    return [name, spread, iterations, *(f"{e:.1e}" for e in errors), int(wrong), round(milliseconds(timed), 1)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows: list[list[Cell]] = []
    gaps: list[float] = []
    for spread in SPREADS:
        problem = instance(spread)
        single = problem.to(torch.float32)
        for name, precise in (("exact, float32", single), ("exact, float64", problem)):
            rows.append(row(name, spread, problem, lambda p=precise: counted_newton(p), lambda p=precise: newton(p)))
        # |1 - sqrt(q)| is the solver's own residual over kappa.
        solution = GroupLasso(problem.kappa, GROUPS, weight="one").solve(single.b, single.d, 1.0)
        gaps.append(float(solution.residual.max()) / problem.kappa)
        solvers: dict[str, Callable[[], Result]] = {
            "PG, step per group, 1e-8 rule": lambda p=problem: pg(p, per_group=True),
            "PG, one step, 1e-8 rule": lambda p=problem: pg(p, per_group=False),
            "PG, step per group, 100 iterations": lambda p=problem: pg(p, per_group=True, decrease=-1.0),
            "PG, step per group, certificate 1e-6 (at most 1000)": lambda p=problem: certified(p),
        }
        rows += [row(name, spread, problem, solve, solve) for name, solve in solvers.items()]
    write_table(
        NAME,
        "One subproblem: exact solver and proximal gradient",
        [
            "solver",
            "sigma of log d",
            "iterations",
            "relative error",
            "residual / kappa",
            "residual / max(kappa, norm of b)",
            f"wrong groups of {SHAPE[1]}",
            "time, ms",
        ],
        rows,
        f"{SHAPE[0]} x {SHAPE[1]} weight, one group per column, half of the groups zero, warm start, seed 0 (the exact "
        "solver needs no start). Residuals are those of x in float64, the worst group. In float32 the solver's own "
        f"certificate |1 - sqrt(q)| is at most {max(gaps):.1e}. PG runs in float64; the rule stops it when the "
        "objective falls by less than 1e-8, relatively, and at 100 iterations.",
    )
