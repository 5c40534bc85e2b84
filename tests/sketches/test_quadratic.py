"""What the paper proves of the sketched loss, on quadratics, where everything is known.

``f(y) = y'Ay / 2 - b'y`` gives ``f_D(x) = f(v) - r'u + u'Mu / 2`` with ``u = x - v``, ``r = b - Av`` and
``M = E[w w'] * A`` for the diagonal w of S.
"""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from openwork.sketches import (
    Bernoulli,
    Diagonal,
    DiagonalSketch,
    Group,
    Identity,
    Key,
    Mixture,
    Nested,
    PermK,
    RandK,
    expected_smoothness,
)
from tests.sketches.enumeration import outcomes

D = 6
P = torch.linspace(0.3, 1.0, D, dtype=torch.float64)
LAWS: dict[str, DiagonalSketch] = {
    "identity": Identity(),
    "rand_2": RandK(2),
    "rand_1": RandK(1),
    "bernoulli": Bernoulli(0.5),
    "bernoulli_each": Bernoulli(P),
    "nested": Nested((0.3, 0.6, 1.0)),
    "mixture": Mixture((Identity(), RandK(2)), (0.3, 0.7)),
    "perm_2": PermK(2),
    "blocks": Group(Bernoulli(0.5), 2),
}
each_law = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS.keys())


@dataclass(frozen=True, eq=False)
class Quadratic:
    a: Tensor
    b: Tensor
    v: Tensor

    def loss(self, y: Tensor) -> Tensor:
        """At one point or at rows of points."""
        return 0.5 * (y @ self.a * y).sum(-1) - y @ self.b

    @property
    def r(self) -> Tensor:
        return self.b - self.a @ self.v

    @property
    def bounds(self) -> tuple[float, float]:
        """``mu_f`` and ``L_f``."""
        values = torch.linalg.eigvalsh(self.a)
        return float(values[0]), float(values[-1])

    def closed(self, m: Tensor, x: Tensor) -> Tensor:
        u = x - self.v
        return self.loss(self.v) - self.r @ u + 0.5 * u @ m @ u


def quadratic(seed: int = 0) -> tuple[Quadratic, Tensor]:
    """With condition number 10, and a point."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(D, D, generator=generator, dtype=torch.float64)).Q
    b, v, x = torch.randn(3, D, generator=generator, dtype=torch.float64)
    return Quadratic(q @ torch.linspace(1, 10, D, dtype=torch.float64).diag() @ q.T, b, v), x


@each_law
def test_the_closed_form_equals_the_mean_over_all_draws(law: DiagonalSketch) -> None:
    f, x = quadratic()
    rows, weights = outcomes(law, D)
    m = law.second_moment(D) * f.a
    points = f.v + rows * (x - f.v)
    assert_close(weights @ f.loss(points), f.closed(m, x), rtol=1e-13, atol=1e-12)
    gradients = rows * (points @ f.a - f.b)
    assert_close(weights @ gradients, m @ (x - f.v) - f.r, rtol=0, atol=1e-12)


def test_random_subsets_to_the_last_digits() -> None:
    f, _ = quadratic()
    rows, weights = outcomes(RandK(3), D)
    mean = torch.einsum("n,ni,ij,nj->ij", weights, rows, f.a, rows)
    assert_close(RandK(3).second_moment(D) * f.a, mean, rtol=0, atol=1e-13 * float(f.a.abs().max()) * 4)


def test_special_cases() -> None:
    f, _ = quadratic()
    diagonal = f.a.diagonal()
    assert_close(Bernoulli(P).second_moment(D) * f.a, f.a + ((1 / P - 1) * diagonal).diag())
    rho = D * (3 - 1) / (3 * (D - 1))
    for law in (RandK(3), PermK(2)):
        assert_close(law.second_moment(D) * f.a, rho * f.a + (2 - rho) * diagonal.diag())
    assert_close(RandK(1).second_moment(D) * f.a, D * diagonal.diag())
    blocks = torch.block_diag(*[f.a[at : at + 2, at : at + 2] for at in range(0, D, 2)])
    assert_close(Group(Bernoulli(0.25), 2).second_moment(D) * f.a, f.a + 3 * blocks)


@each_law
def test_curvature_is_inside_its_bounds(law: DiagonalSketch) -> None:
    f, _ = quadratic()
    constants, (convex, smooth) = law.constants(D), f.bounds
    values = torch.linalg.eigvalsh(law.second_moment(D) * f.a)
    assert float(values[0]) >= constants.convex * convex * (1 - 1e-12)
    assert float(values[-1]) <= constants.smooth * smooth * (1 + 1e-12)


@each_law
def test_the_sketched_loss_is_between_its_bounds(law: DiagonalSketch) -> None:
    for seed in range(5):
        f, x = quadratic(seed)
        constants, (convex, smooth) = law.constants(D), f.bounds
        m = law.second_moment(D) * f.a
        dense, sketched, moved = float(f.loss(x)), float(f.closed(m, x)), float((x - f.v).square().sum())
        assert sketched >= dense + (constants.convex - 1) * convex / 2 * moved - 1e-10
        assert sketched <= dense + (constants.smooth - 1) * smooth / 2 * moved + 1e-10
        assert float(f.closed(m, f.v)) == pytest.approx(float(f.loss(f.v)))

        best, sketched_best = torch.linalg.solve(f.a, f.b), f.v + torch.linalg.solve(m, f.r)
        lowest, sketched_lowest = float(f.loss(best)), float(f.closed(m, sketched_best))
        assert sketched_lowest == pytest.approx(float(f.loss(f.v) - 0.5 * f.r @ torch.linalg.solve(m, f.r)))
        away = float((sketched_best - f.v).square().sum())
        assert sketched_lowest >= lowest + (constants.convex - 1) * convex / 2 * away - 1e-10
        assert (
            sketched_lowest <= lowest + (constants.smooth - 1) * smooth / 2 * float((best - f.v).square().sum()) + 1e-10
        )


@each_law
@pytest.mark.parametrize("draws", [1, 3])
def test_the_second_moment_of_the_estimator_is_bounded(law: DiagonalSketch, draws: int) -> None:
    f, x = quadratic(1)
    constants, smooth = law.constants(D), f.bounds[1]
    rows, weights = outcomes(law, D)
    m = law.second_moment(D) * f.a
    gradients = rows * ((f.v + rows * (x - f.v)) @ f.a - f.b)
    mean = weights @ gradients
    single = float(weights @ gradients.square().sum(1))
    # Of the mean of b independent draws: the square of the mean, and a b-th of the variance.
    second = single / draws + (1 - 1 / draws) * float(mean.square().sum())
    lowest = float(f.loss(torch.linalg.solve(f.a, f.b)))
    sketched_lowest = float(f.closed(m, f.v + torch.linalg.solve(m, f.r)))
    above, gap = float(f.closed(m, x)) - sketched_lowest, sketched_lowest - lowest
    bound = 2 * expected_smoothness(smooth, law, D, draws) * above + 2 * smooth * constants.largest / draws * gap
    assert second <= bound * (1 + 1e-12)
    if draws == 1:
        assert single <= 2 * smooth * constants.largest * (above + gap) * (1 + 1e-12)


@pytest.mark.parametrize("name", ["rand_2", "bernoulli_each", "nested", "perm_2"])
def test_the_closed_form_equals_the_mean_over_random_draws(name: str) -> None:
    law, draws = LAWS[name], 1000
    f, x = quadratic(2)
    rows = torch.stack([_weights(law, step) for step in range(draws)])
    points = f.v + rows * (x - f.v)
    m = law.second_moment(D) * f.a
    values = torch.cat([f.loss(points)[:, None], rows * (points @ f.a - f.b)], dim=1)
    expected = torch.cat([f.closed(m, x)[None], m @ (x - f.v) - f.r])
    z = (values.mean(0) - expected) / (values.std(0) / draws**0.5)
    assert float(z.abs().max()) < 5


def _weights(law: DiagonalSketch, step: int) -> Tensor:
    draw = law.sample(Key(4, step=step), D)
    assert isinstance(draw, Diagonal)
    return draw.weights
