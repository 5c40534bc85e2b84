"""Inertial steps: identities, and the region where they are stable."""

import warnings

import pytest
import torch

from openwork.altmin import AMTrainer, Inertia, Nesterov
from openwork.altmin.inertia import Iterate
from tests.altmin.tasks import network

STABLE = [(0.0, 0.0, 0.0), (0.633, 0.633, 0.5), (0.9, 0.9, 0.0), (0.6, 0.3, 0.3), (0.95, 0.0, 0.0)]
# Just inside and just outside the faces. That of |p1 - p2| is none: the others are in front of it.
STABLE += [(0.66, 0.66, 0.5), (0.0, 0.26, 0.3), (0.0, 0.0, 0.99), (0.99, 0.0, 0.0)]
OUTSIDE = {
    (0.67, 0.67, 0.5): "(1 + p3) p1 < 1",
    (1.01, 0.0, 0.0): "(1 + p3) p1 < 1",
    (0.0, 0.28, 0.3): "2 p2 - 2 p1",
    (0.0, 0.0, 1.01): "2 p2 - 2 p1",
}


def radius(p: tuple[float, float, float]) -> float:
    """Largest spectral radius of the step on diagonal quadratics of relative curvature in (0, 1]."""
    p1, p2, p3 = p
    c = torch.linspace(1e-4, 1, 100, dtype=torch.float64)
    # ubar = u~ - c u^, then u + (1 + p3)(ubar - u): a recursion of (u, u_before).
    step = torch.zeros(100, 2, 2, dtype=torch.float64)
    step[:, 0, 0] = (1 + p3) * (1 + p1 - c * (1 + p2)) - p3
    step[:, 0, 1] = (1 + p3) * (c * p2 - p1)
    step[:, 1, 0] = 1
    return float(torch.linalg.eigvals(step).abs().max())


@pytest.mark.parametrize("p", STABLE)
def test_inside_the_region_the_spectral_radius_is_below_one(p: tuple[float, float, float]) -> None:
    assert Inertia(*p).unstable() is None
    assert radius(p) < 1


@pytest.mark.parametrize(("p", "bound"), OUTSIDE.items())
def test_outside_each_face_it_is_above_one(p: tuple[float, float, float], bound: str) -> None:
    assert bound in str(Inertia(*p).unstable())
    assert radius(p) > 1


def test_random_points_agree_with_the_spectral_radius() -> None:
    draws = torch.rand(100, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).tolist()
    agree = [(Inertia(*p).unstable() is None, radius((p[0], p[1], p[2])) < 1) for p in draws]
    # A point within the grid of curvatures of a bound may fall on either side of it.
    assert sum(ours != true for ours, true in agree) <= 1
    assert 20 < sum(ours for ours, _ in agree) < 80


def test_the_trainer_warns_outside_and_names_the_bound() -> None:
    with pytest.warns(UserWarning, match=r"\(0.9, 0.9, 0.3\) breaks \(1 \+ p3\) p1 < 1, the left side is 1.17"):
        AMTrainer(network(), inertia=(0.9, 0.9, 0.3))
    with pytest.warns(UserWarning, match=r"Nesterov weights grow to 1"):
        AMTrainer(network(), inertia=Nesterov(0.3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AMTrainer(network(), inertia=Nesterov())


@pytest.mark.parametrize("p", [(-0.1, 0.0, 0.0), (0.0, float("nan"), 0.0), (0.0, 0.0, float("inf"))])
def test_numbers_out_of_range_are_refused(p: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"Inertia: p\d must be finite and >= 0"):
        Inertia(*p)
    with pytest.raises(ValueError, match=r"Nesterov: p3 must be finite and >= 0"):
        Nesterov(-1.0)


def test_nesterov_weights_follow_their_recursion() -> None:
    t = 1.0
    for clock in range(20):
        following = (1 + (1 + 4 * t * t) ** 0.5) / 2
        assert Nesterov().at(clock).p1 == pytest.approx((t - 1) / following, rel=1e-14, abs=0)
        t = following


def test_a_block_without_history_has_no_inertia() -> None:
    now, before = torch.randn(3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    assert Iterate(now).ahead(0.7) is now
    assert Iterate(now).shifted(before, 0.7) is before
    torch.testing.assert_close(Iterate(now, before).ahead(0.7), now + 0.7 * (now - before))
    torch.testing.assert_close(Iterate(now, before).shifted(before, 0.7), before + 0.7 * (now - before))
    assert torch.equal(Iterate(now, now).ahead(0.7), now)
