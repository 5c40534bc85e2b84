from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Scalar
from openwork.partitions import Elements, Slices
from openwork.penalties import L0, L1, GroupLasso, GroupMCP, NuclearNorm, Penalty, ProximalGradient, SparseGroupLasso
from openwork.structure import Structure, Support
from openwork.testing import check_penalty


def problem(spread: float = 0.7) -> tuple[Tensor, Tensor, Tensor]:
    b, start = torch.randn(2, 6, 5, dtype=torch.float64)
    return b, torch.exp(spread * torch.randn(6, 5, dtype=torch.float64)), start


@pytest.mark.parametrize("step", ["weight", "group"])
def test_contract(step) -> None:
    check_penalty(ProximalGradient(GroupLasso(0.3), 1e-11, 20_000, step), (5, 3), tolerance=1e-9)


@pytest.mark.parametrize("step", ["weight", "group"])
@pytest.mark.parametrize(
    "penalty", [L1(0.4), GroupLasso(0.3), SparseGroupLasso(0.3), GroupLasso(0.3, Slices(0))], ids=str
)
def test_reaches_the_exact_solution(penalty, step) -> None:
    b, d, start = problem()
    exact = penalty.solve(b, d, 1.2)
    x, kept, residual = ProximalGradient(penalty, 1e-9, 20_000, step).solve(b, d, 1.2, start)
    assert torch.equal(kept, exact.kept)
    assert residual < 1e-8
    torch.testing.assert_close(x, exact.x, rtol=1e-6, atol=1e-7)


def test_reaches_the_solution_of_the_accelerated_solver() -> None:
    b, d, start = problem()
    x = ProximalGradient(NuclearNorm(0.5), 1e-9, 20_000).solve(b, d, 1.0, start).x
    exact = NuclearNorm(0.5, "full", 1e-10, 5000).solve(b, d, 1.0).x
    torch.testing.assert_close(x, exact, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("iterations", [1, 2, 5, 20])
def test_the_certificate_is_a_subgradient_at_every_iterate(iterations: int) -> None:
    b, d, start = problem()
    penalty = GroupLasso(0.3, weight="one")
    x, kept, residual = ProximalGradient(penalty, 1e-15, iterations).solve(b, d, 1.0, start)
    norms = x.norm(dim=0)
    at_kept = (d * x - b + 0.3 * x / norms.clamp_min(1e-300)).norm(dim=0)
    least = torch.where(norms > 0, at_kept, (b.norm(dim=0) - 0.3).clamp_min(0.0)).norm()
    # One subgradient of possibly many, hence a bound; the bound is met where no group is dropped.
    assert residual >= least * (1 - 1e-9)
    if kept.all():
        assert float(residual) == pytest.approx(float(least), rel=1e-9)


@pytest.mark.parametrize("penalty", [GroupLasso(0.3), L0(0.1), GroupMCP(0.3, 2.0)], ids=str)
def test_the_objective_falls_at_every_step(penalty) -> None:
    b, d, x = problem(1.5)
    before = float("inf")
    one_step = ProximalGradient(penalty, 1e-15, 1)
    for _ in range(50):
        value = float((0.5 * d * x.square() - b * x).sum() + penalty.value(x))
        assert value <= before + 1e-13
        before, x = value, one_step.solve(b, d, 1.0, x).x


def test_it_counts_and_stops_when_certified() -> None:
    b, d, start = problem()
    loose = ProximalGradient(GroupLasso(0.3), 1e-2, 1000).descend(b, d, 1.0, start)
    tight = ProximalGradient(GroupLasso(0.3), 1e-6, 1000).descend(b, d, 1.0, start)
    warm = ProximalGradient(GroupLasso(0.3), 1e-6, 1000).descend(b, d, 1.0, tight.solution.x)
    assert 1 < loose.iterations < tight.iterations < 1000
    assert warm.iterations == 1
    assert ProximalGradient(GroupLasso(0.3), 1e-15, 7).descend(b, d, 1.0, start).iterations == 7


def test_one_step_per_group_is_faster() -> None:
    b, d, start = problem()
    d = d * torch.logspace(-2, 0, 5, dtype=torch.float64)
    whole, each = (
        ProximalGradient(GroupLasso(0.3), 1e-6, 10_000, step).descend(b, d, 1.0, start) for step in ("weight", "group")
    )
    assert each.iterations < whole.iterations / 4


def test_without_a_penalty_it_reaches_the_quotient() -> None:
    b, d, start = problem()
    x = ProximalGradient(L1(0.0), 1e-6, 10_000).solve(b, d, 1.0, start).x
    torch.testing.assert_close(x, b / d)


@dataclass(frozen=True)
class Ridge(Penalty):
    """A user's own, ``0.5 ||x||^2``, which knows its prox and nothing more."""

    @override
    def value(self, x: Tensor) -> Tensor:
        return 0.5 * x.square().sum()

    @override
    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        return x / (1 + step)

    @override
    def structure(self, x: Tensor) -> Structure:
        return Support(Elements(), x != 0)


def test_a_penalty_with_only_a_prox_becomes_usable_under_a_metric() -> None:
    b, d, start = problem()
    penalty = ProximalGradient(Ridge(), 1e-10, 5000)
    check_penalty(penalty, (3, 4), tolerance=1e-7)
    torch.testing.assert_close(penalty.solve(b, d, 2.0, start).x, b / (d + 2.0), rtol=1e-7, atol=1e-9)


def test_regroup_and_check_reach_the_penalty_inside() -> None:
    assert ProximalGradient(GroupLasso(0.3)).regroup(Slices(0)) == ProximalGradient(GroupLasso(0.3, Slices(0)))
    with pytest.raises(ValueError, match="needs axis 1"):
        ProximalGradient(GroupLasso(0.3)).check(torch.zeros(3))


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="ProximalGradient: tolerance must be > 0, got 0"):
        ProximalGradient(L1(0.1), 0)
    with pytest.raises(ValueError, match="ProximalGradient: max_iterations must be >= 1, got 0"):
        ProximalGradient(L1(0.1), max_iterations=0)
    with pytest.raises(
        TypeError, match="ProximalGradient: step='group' needs a penalty that drops groups, got NuclearN"
    ):
        ProximalGradient(NuclearNorm(0.1), step="group")
