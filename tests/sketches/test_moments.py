"""Every diagonal law against all of its draws."""

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
    Pool,
    RandK,
)
from openwork.sketches.key import Backend
from tests.sketches.enumeration import outcomes

LABELS = torch.tensor([0, 1, 2, 1, 0])
P = torch.tensor([0.2, 0.5, 1.0, 0.7, 0.3], dtype=torch.float64)

LAWS = {
    "identity": (Identity(), 4),
    "rand_1": (RandK(1), 5),
    "rand_3": (RandK(3), 5),
    "rand_fraction": (RandK(0.3), 5),
    "rand_all": (RandK(4), 4),
    "rand_of_one": (RandK(1), 1),
    "rand_8": (RandK(4), 8),
    "bernoulli": (Bernoulli(0.4), 5),
    "bernoulli_each": (Bernoulli(P), 5),
    "nested": (Nested((0.25, 0.5, 1.0)), 5),
    "nested_weights": (Nested((1.0, 0.3), (0.1, 0.9)), 6),
    "ratios": (Mixture((RandK(1), RandK(3)), (0.3, 0.7)), 5),
    "dense_sparse": (Mixture((Identity(), Bernoulli(P)), (0.2, 0.8)), 5),
    "perm_2": (PermK(2), 6),
    "perm_3": (PermK(3), 6),
    "perm_padded": (PermK(2), 5),
    "perm_alone": (PermK(1), 4),
    "perm_more_workers": (PermK(5), 3),
    "perm_multiset": (PermK(6), 3),
    "perm_one_each": (PermK(4), 4),
    "perm_of_one": (PermK(3), 1),
    "perm_shares": (PermK(3, (0.5, 0.3, 0.2)), 5),
    "blocks": (Group(RandK(2), 2), 5),
    "labels": (Group(Bernoulli(torch.tensor([0.3, 0.5, 0.9]).double()), LABELS), 5),
    "group_perm": (Group(PermK(2), LABELS), 5),
    "group_mixture": (Group(Mixture((Identity(), RandK(1)), (0.5, 0.5)), LABELS), 5),
    "pool": (Pool.of(PermK(2), Key(0), 5, 6), 5),
    "pool_rand": (Pool.of(RandK(3), Key(0), 5, 9), 5),
    "pool_shares": (Pool.of(PermK(2, (0.25, 0.75)), Key(1), 6, 4), 6),
}
each_law = pytest.mark.parametrize(("law", "size"), LAWS.values(), ids=LAWS.keys())


@each_law
def test_moments_are_those_of_all_draws(law: DiagonalSketch, size: int) -> None:
    rows, weights = outcomes(law, size)
    kept = (rows != 0).double()
    assert_close(weights.sum(), torch.tensor(1.0).double())
    if law is not LAWS["pool_rand"][0]:
        assert_close(weights @ rows, torch.ones(size).double(), rtol=0, atol=1e-12)
    assert_close(law.inclusion(size), weights @ kept, rtol=0, atol=1e-12)
    assert_close(law.pair_matrix(size), kept.T @ (weights[:, None] * kept), rtol=0, atol=1e-12)
    assert_close(law.second_moment(size), rows.T @ (weights[:, None] * rows), rtol=0, atol=1e-12)
    assert_close(law.mean_square(size), weights @ rows.square(), rtol=0, atol=1e-12)


@each_law
def test_constants_are_those_of_all_draws(law: DiagonalSketch, size: int) -> None:
    shares = law.shares if isinstance(law, PermK) else None
    workers = range(1 if shares is None else len(shares))
    draws = [outcomes(law, size, worker) for worker in workers]
    squares = torch.stack([weights @ rows.square() for rows, weights in draws])
    constants = law.constants(size)
    assert constants.largest == pytest.approx(max(float(rows.max()) for rows, _ in draws) ** 2, rel=1e-12)
    assert constants.smooth == pytest.approx(float(squares.max()), rel=1e-12)
    assert constants.convex == pytest.approx(float(squares.min()), rel=1e-12)
    assert constants.variance == pytest.approx(constants.smooth - 1)


@pytest.mark.parametrize("backend", ["hash", "torch"])
@each_law
def test_draws_are_among_those_that_there_are(law: DiagonalSketch, size: int, backend: Backend) -> None:
    rows, _ = outcomes(law, size)
    seen: list[int] = []
    for step in range(60):
        draw = law.sample(Key(3, step=step, backend=backend), size)
        weights = draw.weights if isinstance(draw, Diagonal) else torch.ones(size).double()
        near = (rows - weights).abs().amax(1) < 1e-12
        assert int(near.sum()) == 1
        seen.append(int(near.nonzero()))
    assert len(set(seen)) >= min(3, len(rows))


@pytest.mark.parametrize("worker", [0, 1, 2])
def test_every_worker_of_unequal_shares_has_its_own_moments(worker: int) -> None:
    law, size = PermK(3, (0.5, 0.3, 0.2)), 5
    rows, weights = outcomes(law, size, worker)
    kept = (rows != 0).double()
    assert_close(weights @ rows, torch.ones(size).double(), rtol=0, atol=1e-12)
    assert_close(law.inclusion(size, worker), weights @ kept, rtol=0, atol=1e-12)
    assert_close(law.pair_matrix(size, worker), kept.T @ (weights[:, None] * kept), rtol=0, atol=1e-12)
    assert_close(law.second_moment(size, worker), rows.T @ (weights[:, None] * rows), rtol=0, atol=1e-12)
    assert_close(law.mean_square(size, worker), weights @ rows.square(), rtol=0, atol=1e-12)


def off_diagonal(law: DiagonalSketch, size: int) -> Tensor:
    return law.second_moment(size)[~torch.eye(size, dtype=torch.bool)]


def test_rows_of_the_table() -> None:
    """Formulas of the paper for what two entries have in common."""
    d, k, q, n = 12, 3, 4, 3

    def rho(kept: int) -> float:
        return d * (kept - 1) / (kept * (d - 1))

    assert_close(off_diagonal(RandK(k), d), torch.full((d * (d - 1),), rho(k)).double())
    assert_close(off_diagonal(PermK(n), d), torch.full((d * (d - 1),), d * (q - 1) / (q * (d - 1))).double())
    assert_close(off_diagonal(Bernoulli(0.3), d), torch.ones(d * (d - 1)).double())
    mixed = Mixture((RandK(k), RandK(0.5)), (0.25, 0.75))
    assert_close(off_diagonal(mixed, d), torch.full((d * (d - 1),), 0.25 * rho(k) + 0.75 * rho(6)).double())
    assert mixed.constants(d).smooth == pytest.approx(0.25 * 4 + 0.75 * 2)
    assert mixed.constants(d).largest == 16
    dense = Mixture((Identity(), RandK(k)), (0.4, 0.6))
    assert dense.constants(d).smooth == pytest.approx(0.4 + 0.6 * 4)
    nested = Nested((0.25, 0.5, 1.0))
    inverse = 1 / nested.inclusion(d)
    assert_close(nested.second_moment(d), torch.minimum(inverse[:, None], inverse))
    within = Group(RandK(2), 3).second_moment(d)[:3, :3]
    assert_close(within, torch.full((3, 3), 2.0).double())


def test_unbiased_over_many_draws() -> None:
    """The mean of 400 000 independent draws of each of a few entries, within five standard errors."""
    p, n = 0.3, 400_000
    for backend in ("hash", "torch"):
        for law in (Bernoulli(p), Bernoulli(torch.full((n,), p, dtype=torch.float64))):
            draw = law.sample(Key(5, backend=backend), n)
            z = (draw.weights.mean() - 1) / ((1 / p - 1) / n) ** 0.5
            assert abs(float(z)) < 5
