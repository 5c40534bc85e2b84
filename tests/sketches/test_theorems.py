"""Bounds of the theorems against naive transcriptions over many repeats at once.

That the classes compute what is transcribed here is tested beside them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from openwork.sketches import DSGD, Key, PermK, RandK, SketchedModule, lsvrg_lr, nonconvex_lr, page_lr, theory_lr

Masks = Callable[[int, torch.Generator], Tensor]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rand_k(d: int, k: int) -> Masks:
    """Diagonals of S of independent repeats, ``(repeats, d)``."""

    def draw(repeats: int, random: torch.Generator) -> Tensor:
        ranks = torch.rand(repeats, d, generator=random).argsort(1).argsort(1)
        return (ranks < k).double() * (d / k)

    return draw


def perm_k(d: int, n: int, repeats: int, random: torch.Generator) -> Tensor:
    """Diagonals of all workers, ``(repeats, n, d)``; n divides d."""
    ranks = torch.rand(repeats, d, generator=random).argsort(1).argsort(1)
    return (ranks[:, None] // (d // n) == torch.arange(n)[:, None]).double() * n


@dataclass(frozen=True)
class Quadratic:
    """``0.5 x'Ax - b'x`` under ``S`` with pair moments ``rho`` between entries and ``scale`` on the diagonal, v = 0."""

    a: Tensor
    b: Tensor
    rho: float
    scale: float

    @staticmethod
    def random(d: int, smallest: float, *, rho: float, scale: float, seed: int = 0) -> "Quadratic":
        """Eigenvalues from ``smallest`` to 1."""
        q = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator(seed))).Q
        b = torch.randn(d, dtype=torch.float64, generator=generator(seed + 100))
        return Quadratic(q @ torch.linspace(smallest, 1, d, dtype=torch.float64).diag() @ q.T, b, rho, scale)

    @cached_property
    def m(self) -> Tensor:
        return self.rho * self.a + (self.scale - self.rho) * self.a.diagonal().diag()

    @cached_property
    def optimum(self) -> Tensor:
        return torch.linalg.solve(self.m, self.b)

    def sketched(self, x: Tensor) -> Tensor:
        """``f_D``, for rows x."""
        return 0.5 * ((x @ self.m) * x).sum(-1) - x @ self.b

    @cached_property
    def gap(self) -> float:
        """``inf f_D - inf f``."""
        lowest = -0.5 * self.b @ torch.linalg.pinv(self.a) @ self.b
        return float(self.sketched(self.optimum) - lowest)

    def step(self, x: Tensor, s: Tensor, lr: float) -> Tensor:
        return x - lr * s * ((s * x) @ self.a - self.b)


def with_rand_k(d: int, k: int, smallest: float) -> Quadratic:
    return Quadratic.random(d, smallest, rho=d * (k - 1) / (k * (d - 1)), scale=d / k)


def test_strongly_convex_bound_and_what_a_smaller_step_changes() -> None:
    d, k, mu, repeats = 20, 10, 0.1, 200
    problem, masks, random = with_rand_k(d, k, mu), rand_k(d, k), generator()
    constants = RandK(k).constants(d)
    lr = theory_lr(1.0, RandK(k), d)
    rate, plateau = constants.convex * mu, 2 * constants.largest * problem.gap / (constants.convex * mu)
    x = torch.zeros(repeats, d, dtype=torch.float64)
    start = float(problem.optimum.square().sum())
    errors: dict[int, float] = {}
    for t in range(1, 1001):
        x = problem.step(x, masks(repeats, random), lr)
        if t in (30, 100, 1000):
            errors[t] = float((x - problem.optimum).square().sum(1).mean())
            assert errors[t] < (1 - lr * rate) ** t * start + lr * plateau
    assert errors[1000] > 1e-4 * lr * plateau  # it stalls
    long = [float((x - problem.optimum).square().sum(1).mean())]
    short: list[float] = []
    y = problem.optimum.expand(repeats, d)
    for t in range(1200):
        x = problem.step(x, masks(repeats, random), lr)
        y = problem.step(y, masks(repeats, random), lr / 10)
        long.append(float((x - problem.optimum).square().sum(1).mean()))
        if t > 600:
            short.append(float((y - problem.optimum).square().sum(1).mean()))
    assert 7 < (sum(long) / len(long)) / (sum(short) / len(short)) < 20


def test_convex_bound() -> None:
    d, k, repeats, steps = 20, 5, 100, 400
    random, masks = generator(), rand_k(d, k)
    rho = d * (k - 1) / (k * (d - 1))
    whole = Quadratic.random(d, -0.2, rho=rho, scale=d / k)
    # Only half of the eigenvalues are above 0, and b is in the range.
    values, vectors = torch.linalg.eigh(whole.a)
    flat = vectors @ torch.where(values > 0.4, values, 0.0).diag() @ vectors.T
    problem = Quadratic(flat, flat @ whole.b, rho, d / k)
    largest = RandK(k).constants(d).largest
    lr = theory_lr(1.0, RandK(k), d) / 2
    assert lr == 1 / (2 * largest)
    x = torch.ones(repeats, d, dtype=torch.float64)
    start, total = float((x[0] - problem.optimum).square().sum()), torch.zeros_like(x)
    for _ in range(steps):
        total += x
        x = problem.step(x, masks(repeats, random), lr)
    excess = float((problem.sketched(total / steps) - problem.sketched(problem.optimum)).mean())
    assert 0 < excess < start / (lr * steps) + 2 * lr * largest * problem.gap


# -- losses over data and a finite pool -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pooled:
    """A loss of margins under N diagonals of S, v = 0."""

    features: Tensor
    pool: Tensor
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    ridge: float

    def gradients(self, x: Tensor, s: Tensor) -> Tensor:
        """``g_S``: points and diagonals broadcast."""
        y = s * x
        return s * (self.slope(y @ self.features.T) @ self.features / len(self.features) + self.ridge * y)

    def whole(self, x: Tensor) -> Tensor:
        return self.gradients(x[..., None, :], self.pool).mean(-2)

    def values(self, y: Tensor) -> Tensor:
        return self.value(y @ self.features.T).mean(-1) + 0.5 * self.ridge * y.square().sum(-1)

    def sketched(self, x: Tensor) -> Tensor:
        return self.values(self.pool * x[..., None, :]).mean(-1)


def halves(d: int, permutations: int) -> Tensor:
    return perm_k(d, 2, permutations, generator(3)).flatten(0, 1)


def logistic(*, pool: Tensor, seed: int = 0) -> Pooled:
    """400 samples in 20 dimensions, ridge 0.01; the labels are in the features."""
    random = generator(seed)
    features = torch.randn(400, 20, dtype=torch.float64, generator=random)
    planted = torch.randn(20, dtype=torch.float64, generator=random)
    noise = torch.randn(400, dtype=torch.float64, generator=random)
    features = features * torch.where(features @ planted + noise > 0, 1.0, -1.0)[:, None]
    return Pooled(features, pool, lambda z: nn.functional.softplus(-z), lambda z: -torch.sigmoid(-z), 0.01)


def smoothness(problem: Pooled, curvature: float) -> float:
    gram = problem.features.T @ problem.features / len(problem.features)
    return curvature * float(torch.linalg.eigvalsh(gram).max()) + problem.ridge


def newton(gradient: Callable[[Tensor], Tensor], d: int) -> Tensor:
    x = torch.zeros(d, dtype=torch.float64)
    for _ in range(15):
        hessian = torch.autograd.functional.jacobian(gradient, x)
        x = x - torch.linalg.solve(hessian, gradient(x))
    assert gradient(x).norm() < 1e-14
    return x


@pytest.mark.slow
def test_nonconvex_bounds_of_dsgd_and_page() -> None:
    """``t^2 / (1 + t^2)`` of residuals, which is not below 0 and whose second derivative is at most 2."""
    d, n, repeats, steps, random = 16, 32, 8, 600, generator(1)
    features = torch.randn(200, d, dtype=torch.float64, generator=random)
    targets = features @ torch.randn(d, dtype=torch.float64, generator=random)
    pool = halves(d, n // 2)
    problem = Pooled(
        features,
        pool,
        lambda z: (z - targets).square() / (1 + (z - targets).square()),
        lambda z: 2 * (z - targets) / (1 + (z - targets).square()).square(),
        0.0,
    )
    l_f, law = smoothness(problem, 2.0), PermK(2)
    constants = law.constants(d)
    lr = nonconvex_lr(l_f, law, d, steps)
    start = torch.zeros(repeats, d, dtype=torch.float64)
    first = float(problem.sketched(start[0]))

    def chosen() -> Tensor:
        return pool[torch.randint(n, (repeats,), generator=random)]

    x, squares, lowest = start, [], first
    for _ in range(steps):
        squares.append(float(problem.whole(x).square().sum(-1).mean()))
        lowest = min(lowest, float(problem.sketched(x).min()))
        x = x - lr * problem.gradients(x, chosen())
    # inf f is at least 0, so that f_D itself bounds both gaps from above.
    assert min(squares) < 3 * first / (lr * steps) + lr * l_f**2 * constants.smooth * constants.largest * lowest
    assert min(squares) < 0.8 * squares[0]

    refresh = 1 / (n + 1)
    lr = page_lr(l_f, law, d, refresh)
    x, g, squares = start, problem.whole(start), []
    for _ in range(steps):
        squares.append(float(problem.whole(x).square().sum(-1).mean()))
        after, s = x - lr * g, chosen()
        anew = torch.rand(repeats, 1, generator=random) < refresh
        g = torch.where(anew, problem.whole(after), g + problem.gradients(after, s) - problem.gradients(x, s))
        x = after
    assert sum(squares) / steps < 2 * first / (lr * steps)
    assert squares[-1] < 0.8 * squares[0]


def test_around_the_minimum_a_constant_step_converges() -> None:
    """Interpolation: if v minimizes f, nothing is left of the noise."""
    problem, random, masks = logistic(pool=torch.ones(1, 20)), generator(), rand_k(20, 10)
    v = newton(problem.whole, 20)
    lr = theory_lr(smoothness(problem, 0.25), RandK(10), 20)
    x = torch.zeros(4, 20, dtype=torch.float64)
    one = torch.ones(20, dtype=torch.float64)
    for _ in range(4000):
        s = masks(4, random)
        x = x - lr * s * problem.gradients(v + s * (x - v), one)
    assert (x - v).square().sum(1).max() < 1e-28


@pytest.mark.slow
def test_variance_reduction_finds_the_optimum_where_plain_steps_stall() -> None:
    n, steps, repeats, random = 40, 4000, 2, generator()
    problem = logistic(pool=halves(20, n // 2))
    l_f, law = smoothness(problem, 0.25), PermK(2)
    best = newton(problem.whole, 20)
    start = torch.zeros(repeats, 20, dtype=torch.float64)

    def chosen() -> Tensor:
        return problem.pool[torch.randint(n, (repeats,), generator=random)]

    def coin(p: float) -> Tensor:
        return torch.rand(repeats, 1, generator=random) < p

    lr = theory_lr(l_f, law, 20)
    x, plain = start, []
    for t in range(steps // 2):
        x = x - lr * problem.gradients(x, chosen())
        if t > steps // 4:
            plain.append(float((x - best).square().sum(1).mean()))
    assert min(plain) > 1e-5

    lr = lsvrg_lr(l_f, law, 20)
    x, w, h = start, start, problem.whole(start)
    noise = problem.gradients(start[0], problem.pool) - problem.gradients(best, problem.pool)
    potential = float(best.square().sum() + 4 * lr**2 * noise.square().sum(1).sum())
    for t in range(1, steps + 1):
        s, anew = chosen(), coin(1 / n)
        after = x - lr * (problem.gradients(x, s) - problem.gradients(w, s) + h)
        w = torch.where(anew, x, w)
        h = torch.where(anew, problem.whole(w), h) if anew.any() else h
        x = after
        if t in (500, 2000):
            rate = max(1 - lr * 2 * problem.ridge, 1 - 1 / (2 * n))
            assert (x - best).square().sum(1).mean() < rate**t * potential
    assert (x - best).square().sum(1).max() < 1e-20

    lr = page_lr(l_f, law, 20, 1 / n, convexity=2 * problem.ridge)
    x, g = start, problem.whole(start)
    for _ in range(steps):
        after, s, anew = x - lr * g, chosen(), coin(1 / n)
        g = g + problem.gradients(after, s) - problem.gradients(x, s)
        g = torch.where(anew, problem.whole(after), g) if anew.any() else g
        x = after
    assert (x - best).square().sum(1).max() < 1e-20


@pytest.mark.slow
def test_anchors_over_some_members_stall_in_proportion_to_what_they_miss() -> None:
    d, n, repeats, p, random = 10, 30, 40, 0.2, generator()
    problem = Quadratic.random(d, 0.4, rho=0, scale=0)
    pool = halves(d, n // 2)
    a = (pool[:, :, None] * problem.a * pool[:, None, :]).transpose(0, 1)  # (d, N, d)
    b = pool * problem.b
    best = torch.linalg.solve(a.mean(1), b.mean(0))
    lr, mu = lsvrg_lr(1.0, PermK(2), d, "minibatch"), 2 * 0.4
    sigma = float((torch.einsum("inj,j->ni", a, best) - b).square().sum(1).mean())

    def members(x: Tensor) -> Tensor:
        """Gradients of all, ``(repeats, N, d)``."""
        return torch.einsum("inj,rj->rni", a, x) - b

    def error(anchor: int, start: Tensor, steps: int, late: int) -> float:
        x, w, found = start, start, []
        rows = torch.arange(repeats)
        for t in range(steps):
            old = members(w)
            order = torch.rand(repeats, n, generator=random).argsort(1)[:, :anchor]
            h = old[rows[:, None], order].mean(1)
            s = torch.randint(n, (repeats,), generator=random)
            after = x - lr * (members(x)[rows, s] - old[rows, s] + h)
            w = torch.where(torch.rand(repeats, 1, generator=random) < p, x, w)
            x = after
            if t >= steps - late:
                found.append(float((x - best).square().sum(1).mean()))
        return sum(found) / late

    plateaus: list[float] = []
    for anchor in (1, 5, 15):
        missed = (n - anchor) / (anchor * (n - 1))
        plateau = error(anchor, best.expand(repeats, d), 700, 400)
        assert plateau < 2 * lr**2 * missed * sigma / min(lr * mu, p / 2)
        plateaus.append(plateau / missed)
    assert max(plateaus) < 1.5 * min(plateaus)
    assert error(n, torch.zeros(repeats, d, dtype=torch.float64), 2500, 1) < 1e-25


# -- distributed -------------------------------------------------------------------------------------------------------


def workers(n: int, d: int, smallest: float) -> list[Quadratic]:
    rho = d * (d // n - 1) / ((d // n) * (d - 1))
    return [Quadratic.random(d, smallest, rho=rho, scale=n, seed=i) for i in range(n)]


def step_of_all(x: Tensor, a: Tensor, b: Tensor, s: Tensor, lr: float) -> Tensor:
    y = s * x[:, None]
    return x - lr * (s * (torch.einsum("nij,rnj->rni", a, y) - b)).mean(1)


@pytest.mark.parametrize("n", [2, 4, 5, 10])
def test_shares_of_one_permutation_allow_the_rate_of_dense_descent(n: int) -> None:
    d, mu, repeats, random = 20, 0.1, 100, generator()
    losses = workers(n, d, mu)
    a, b = torch.stack([loss.a for loss in losses]), torch.stack([loss.b for loss in losses])
    m = torch.stack([loss.m for loss in losses]).mean(0)
    best = torch.linalg.solve(m, b.mean(0))
    apart = float(-0.5 * b.mean(0) @ best) + sum(float(0.5 * f.b @ torch.linalg.solve(f.a, f.b)) for f in losses) / n
    lr = theory_lr(1.0, PermK(n), d, workers=n)
    assert lr == pytest.approx(1 / n)
    x, start = torch.zeros(repeats, d, dtype=torch.float64), float(best.square().sum())
    for t in range(1, 301):
        x = step_of_all(x, a, b, perm_k(d, n, repeats, random), lr)
        if t in (5, 20, 300):
            assert (x - best).square().sum(1).mean() < (1 - mu) ** t * start + 2 * lr / mu * apart
    for _ in range(300):
        x = step_of_all(x, a, b, perm_k(d, n, repeats, random), 2 * lr)
    assert x.square().sum(1).max() < 100 * start


def test_independent_shares_are_unstable_at_steps_that_one_permutation_allows() -> None:
    n, d, repeats, random = 5, 20, 20, generator()
    losses = workers(n, d, 0.1)
    a, b = torch.stack([loss.a for loss in losses]), torch.stack([loss.b for loss in losses])
    alone = rand_k(d, d // n)
    x = y = torch.zeros(repeats, d, dtype=torch.float64)
    for _ in range(400):
        x = step_of_all(x, a, b, perm_k(d, n, repeats, random), 3 / n)
        y = step_of_all(y, a, b, alone(repeats * n, random).view(repeats, n, d), 3 / n)
    assert x.square().sum(1).max() < 1e4
    assert y.square().sum(1).min() > 1e8


def test_independent_subnets_may_raise_the_dense_loss_while_the_sketched_one_falls() -> None:
    """A counter-example of the theory of independent subnet training: a step is right for f_D and wrong for f."""
    a = torch.tensor([[1.0, 2.5], [2.5, 9.0]], dtype=torch.float64)
    slopes = a @ a.diagonal().diag() + a.diagonal().diag() @ a
    x = torch.linalg.eigh(slopes).eigenvectors[:, 0]
    assert x @ slopes @ x < 0

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(x.clone())

        def forward(self) -> Tensor:
            return 0.5 * self.x @ a @ self.x

    sketched = SketchedModule(Loss(), PermK(2), shift="zero")

    @torch.no_grad()
    def both() -> tuple[float, float]:
        terms: list[float] = []
        for worker in range(2):
            with sketched.draw(Key(0, worker=worker)):
                terms.append(float(sketched()))
        return float(sketched.module()), sum(terms) / 2

    def closure() -> Tensor:
        loss = sketched()
        loss.backward()
        return loss

    before = both()
    lr = 1 / (2 * float(torch.linalg.eigvalsh(a).max()))
    DSGD(SGD(sketched.parameters(), lr=lr), sketched, workers=2).step([closure, closure])
    after = both()
    assert before == pytest.approx((0.218, 1.182), abs=1e-3)
    assert after == pytest.approx((0.369, 0.788), abs=1e-3)


@pytest.mark.parametrize("keep", [14, 6, 2])
def test_sketched_training_prepares_for_being_pruned(keep: int) -> None:
    """The expected loss of what is pruned is lower than that of the dense optimum; nothing is said of accuracy."""
    masks, random = rand_k(20, keep), generator(4)
    problem = logistic(pool=masks(100, random))
    dense = newton(logistic(pool=torch.ones(1, 20)).whole, 20)
    lr = theory_lr(smoothness(problem, 0.25), RandK(keep), 20) * RandK(keep).constants(20).smooth
    x = torch.zeros(20, dtype=torch.float64)
    for _ in range(600):
        x = x - lr * problem.whole(x)  # descent on f_D, whose smoothness is L_D L_f
    fresh = masks(300, random)
    assert problem.values(fresh * x).mean() < problem.values(fresh * dense).mean()
