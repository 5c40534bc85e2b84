"""The exact group solve against bisection in double precision, and against its own promises."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from openwork.kernels import group_norm, solve_group_norm

MEMBERS = (1,)


def secular(b: Tensor, d: Tensor, kappa: Tensor, r: Tensor) -> Tensor:
    """q(r), one number per row."""
    return (b / (r[:, None] * d + kappa[:, None])).square().sum(1)


def bisect(b: Tensor, d: Tensor, kappa: Tensor) -> Tensor:
    """Minimizers by bisection on the radius; rows are groups, and none is dropped."""
    low = torch.zeros_like(kappa)
    high = (b.norm(dim=1) - kappa) / d.amin(1)
    for _ in range(1100):
        middle = (low + high) / 2
        above = secular(b, d, kappa, middle) > 1
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        if bool(((low + high) / 2 == low).logical_or((low + high) / 2 == high).all()):
            break
    r = ((low + high) / 2)[:, None]
    return r * b / (r * d + kappa[:, None])


def problems(groups: int, size: int, decades: float, ratio: float) -> tuple[Tensor, Tensor, Tensor]:
    """Random b, d and kappa with ``||b|| / kappa = ratio`` and d spread over some decades."""
    b = torch.randn(groups, size, dtype=torch.float64)
    d = 10 ** (decades * (torch.rand(groups, size, dtype=torch.float64) - 0.5))
    return b, d, b.norm(dim=1) / ratio


def solve(b: Tensor, d: Tensor, kappa: Tensor | float):
    return solve_group_norm(b, d, kappa[:, None] if isinstance(kappa, Tensor) else kappa, MEMBERS)


def residual(x: Tensor, b: Tensor, d: Tensor, kappa: Tensor) -> Tensor:
    """Norm of the least subgradient at x, per row, by its definition."""
    norm = x.norm(dim=1)
    inside = (b.norm(dim=1) - kappa).clamp_min(0.0)
    at_x = (d * x - b + (kappa / norm.clamp_min(1e-300))[:, None] * x).norm(dim=1)
    return torch.where(norm > 0, at_x, inside)


@pytest.mark.parametrize("size", [1, 2, 17, 5000])
@pytest.mark.parametrize("decades", [0.0, 3.0, 12.0])
@pytest.mark.parametrize("ratio", [1.01, 2.0, 1e4, 1e8])
def test_double_precision_agrees_with_bisection(size: int, decades: float, ratio: float) -> None:
    b, d, kappa = problems(20, size, decades, ratio)
    x, kept, _ = solve(b, d, kappa)
    expected = bisect(b, d, kappa)
    assert kept.all()
    assert ((x - expected).norm(dim=1) <= 1e-11 * expected.norm(dim=1)).all()


@pytest.mark.parametrize("size", [1, 17, 1000])
@pytest.mark.parametrize("decades", [0.0, 3.0, 12.0])
@pytest.mark.parametrize("ratio", [1.001, 2.0, 1e4])
def test_single_precision_solves_the_equation_to_rounding(size: int, decades: float, ratio: float) -> None:
    b, d, kappa = (x.float() for x in problems(100, size, decades, ratio))
    x, kept, reported = solve(b, d, kappa)
    assert kept.all()
    assert (reported[:, 0] <= 1e-6 * kappa).all()
    exact = residual(x.double(), b.double(), d.double(), kappa.double())
    # Forming d x - b from the rounded x already costs one rounding of b.
    assert (exact <= 1e-6 * torch.maximum(kappa, b.norm(dim=1)).double()).all()


def newton(b: Tensor, d: Tensor, kappa: Tensor) -> list[Tensor]:
    """The iterates, transcribed from the formulas: the reciprocal norm from one Newton step at r = 0."""
    norm = b.norm(dim=1)
    radii = [(norm - kappa) * norm.square() / (b.square() * d).sum(1)]
    for _ in range(30):
        e = radii[-1][:, None] * d + kappa[:, None]
        u = b / e
        q, m = u.square().sum(1), (u.square() * d / e).sum(1)
        radii.append(radii[-1] + q * (q.sqrt() - 1) / m)
    return radii


@pytest.mark.parametrize("decades", [0.5, 4.0, 9.0])
def test_newton_rises_monotonically_to_the_root(decades: float, monkeypatch: pytest.MonkeyPatch) -> None:
    b, d, kappa = problems(200, 8, decades, 3.0)
    radii = newton(b, d, kappa)
    root = bisect(b, d, kappa).norm(dim=1)
    for r, following in pairwise(radii):
        assert (following >= r * (1 - 1e-13)).all()
        assert (following <= root * (1 + 1e-12)).all()
    # The kernel's iterates rise as well and are never behind these.
    before = torch.zeros_like(root)
    for iterations in range(8):
        monkeypatch.setattr(group_norm, "MAX_ITERATIONS", iterations)
        x, _, certificate = solve(b, d, kappa)
        # ||x(r)|| = r sqrt(q), and the certificate is kappa (sqrt(q) - 1) below the root.
        r = x.norm(dim=1) / (1 + certificate[:, 0] / kappa)
        assert (r >= before * (1 - 1e-12)).all()
        assert (r >= radii[iterations] * (1 - 1e-12)).all()
        assert (r <= root * (1 + 1e-12)).all()
        before = r


def test_a_constant_metric_takes_no_iteration_and_is_block_soft_thresholding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_norm, "MAX_ITERATIONS", 0)
    b, _, kappa = problems(50, 6, 0.0, 3.0)
    d = torch.full_like(b, 0.7)
    shrunk = b / 0.7 * (1 - kappa / b.norm(dim=1))[:, None]
    torch.testing.assert_close(solve(b, d, kappa).x, shrunk, rtol=1e-14, atol=0.0)


@pytest.mark.parametrize("iterations", [0, 1, 2])
def test_the_certificate_is_the_least_subgradient_also_before_convergence(
    iterations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_norm, "MAX_ITERATIONS", iterations)
    b, d, kappa = problems(100, 8, 9.0, 3.0)
    x, _, certificate = solve(b, d, kappa)
    direct = residual(x, b, d, kappa)
    away = direct > 1e-6 * kappa
    assert away.any()
    torch.testing.assert_close(certificate[away, 0], direct[away], rtol=1e-6, atol=0.0)


def test_a_group_is_zero_exactly_where_its_norm_is_at_most_kappa() -> None:
    b = torch.tensor([[3.0, 4.0], [3.0, 4.0], [3.0, 4.0], [0.0, 0.0], [1e-300, 0.0]], dtype=torch.float64)
    kappa = torch.tensor([5.0, 5.0 - 1e-14, 5.0 + 1e-14, 1.0, 1.0], dtype=torch.float64)
    d = torch.tensor([[1.0, 100.0]], dtype=torch.float64).expand(5, 2)
    x, kept, _ = solve(b, d, kappa)
    assert kept[:, 0].tolist() == [False, True, False, False, False]
    assert (x != 0).tolist() == [[keep, keep] for keep in kept[:, 0].tolist()]


def test_kept_groups_have_no_zeros_of_their_own() -> None:
    b, d, kappa = problems(500, 5, 6.0, 1.5)
    b[:, 2] = 0.0
    x, kept, _ = solve(b, d, kappa * torch.rand(500, dtype=torch.float64) * 2)
    assert torch.equal(x != 0, kept & (b != 0))


def test_near_the_threshold_the_residual_stays_small() -> None:
    b, d, _ = problems(100, 10, 3.0, 2.0)
    kappa = b.norm(dim=1) * (1 - 1e-12)
    x, kept, _ = solve(b, d, kappa)
    assert kept.all()
    assert (residual(x, b, d, kappa) <= 1e-14 * kappa).all()


@pytest.mark.parametrize("of_b", [1e-30, 1e-10, 1e10, 1e30])
@pytest.mark.parametrize("of_d", [1e-20, 1e-7, 1e7, 1e20])
def test_single_precision_survives_huge_and_tiny_numbers(of_b: float, of_d: float) -> None:
    b, d, kappa = problems(30, 12, 2.0, 2.0)
    expected = solve(b, d, kappa).x * (of_b / of_d)
    x, kept, reported = solve((b * of_b).float(), (d * of_d).float(), (kappa * of_b).float())
    assert kept.all()
    assert reported.isfinite().all()
    representable = expected.abs().amin() > 1e-37 and expected.abs().amax() < 1e38
    if representable:
        torch.testing.assert_close(x.double(), expected, rtol=1e-5, atol=0.0)
    else:
        assert not x.isnan().any()


def test_an_infinite_threshold_drops_everything() -> None:
    b, d, _ = problems(3, 4, 1.0, 2.0)
    x, kept, reported = solve(b, d, float("inf"))
    assert not kept.any()
    assert (x == 0).all()
    assert (reported == 0).all()


def test_entries_without_metric_and_without_pull_stay_zero() -> None:
    b = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    d = torch.tensor([[1.0, 0.0, 4.0], [0.0, 0.0, 0.0]])
    x, kept, _ = solve(b, d, 0.5)
    assert x.isfinite().all()
    assert kept[:, 0].tolist() == [True, False]
    assert x[0, 1] == 0
    assert (x[1] == 0).all()


def test_scaling_everything_by_a_power_of_two_changes_no_bit() -> None:
    b, d, kappa = problems(50, 9, 4.0, 2.0)
    assert torch.equal(solve(b, d, kappa).x, solve(b * 8, d * 8, kappa * 8).x)


def test_more_member_axes_and_other_orders_give_the_same() -> None:
    b = torch.randn(4, 3, 5, dtype=torch.float64)
    d = torch.rand(4, 3, 5, dtype=torch.float64) + 0.1
    x = solve_group_norm(b, d, 1.0, (0, 2)).x
    flat = solve_group_norm(b.transpose(0, 1).reshape(3, 20), d.transpose(0, 1).reshape(3, 20), 1.0, (1,)).x
    torch.testing.assert_close(x, flat.view(3, 4, 5).transpose(0, 1), rtol=1e-13, atol=0.0)


@pytest.fixture
def compiled() -> Callable[..., group_norm.GroupNormSolution]:
    torch.compiler.reset()
    return torch.compile(solve_group_norm, fullgraph=True, dynamic=False, backend="aot_eager")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_fixed_number_of_iterations_agrees(
    dtype: torch.dtype, compiled: Callable[..., group_norm.GroupNormSolution]
) -> None:
    b, d, kappa = (x.to(dtype) for x in problems(300, 20, 3.0, 2.0))
    kappa = (kappa * torch.rand(300, dtype=dtype) * 4)[:, None]
    eager, fixed = solve_group_norm(b, d, kappa, MEMBERS), compiled(b, d, kappa, MEMBERS)
    assert torch.equal(eager.kept, fixed.kept)
    assert torch.equal(eager.x == 0, fixed.x == 0)
    assert ((eager.x - fixed.x).norm(dim=1) <= 1e-6 * eager.x.norm(dim=1)).all()
