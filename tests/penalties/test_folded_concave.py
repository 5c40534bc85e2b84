"""GroupMCP and GroupSCAD: the global minimum in every regime."""

from collections import Counter

import numpy as np
import pytest
import torch
from skglm.penalties import SCAD, MCPenalty
from torch import Tensor

from openwork.partitions import Blocks, Elements, Heads, Partition, Slices
from openwork.penalties import GroupLasso, GroupMCP, GroupSCAD
from openwork.penalties.folded_concave import DROPPED, SHRUNK, UNTOUCHED, FoldedConcave
from openwork.testing import check_penalty

EITHER = pytest.mark.parametrize("cls", [GroupMCP, GroupSCAD])


@pytest.mark.parametrize(
    ("groups", "shape"),
    [(Slices(1), (4, 3, 2, 2)), (Blocks((2, 2)), (4, 6)), (Heads(2), (6, 4)), (Elements(), (3, 4))],
    ids=str,
)
@pytest.mark.parametrize(
    "penalty", [GroupMCP(0.3, 3.0), GroupMCP(0.3, 0.2), GroupSCAD(0.3), GroupSCAD(0.4, 2.01)], ids=str
)
def test_contract(penalty: FoldedConcave, groups: Partition, shape: tuple[int, ...]) -> None:
    check_penalty(penalty.regroup(groups), shape)


def height(penalty: FoldedConcave, r: np.ndarray) -> np.ndarray:
    """p(r) for groups of weight one, transcribed from the papers."""
    lam, gamma = penalty.lam, penalty.gamma
    if isinstance(penalty, GroupMCP):
        return np.where(r <= gamma * lam, lam * r - r**2 / (2 * gamma), gamma * lam**2 / 2)
    middle = (2 * gamma * lam * r - r**2 - lam**2) / (2 * (gamma - 1))
    return np.where(r <= lam, lam * r, np.where(r <= gamma * lam, middle, lam**2 * (gamma + 1) / 2))


def least_objective(penalty: FoldedConcave, b: Tensor, d: Tensor, weight: float) -> float:
    """By search over the radius: on each sphere the quadratic has its minimum by bisection on the multiplier."""

    def on_spheres(radii: np.ndarray) -> np.ndarray:
        r = torch.from_numpy(radii)[:, None]
        low, high = (-d.min()).expand_as(r), b.norm() / r
        for _ in range(60):
            middle = (low + high) / 2
            outside = (b / (d + middle)).norm(dim=1, keepdim=True) > r
            low, high = torch.where(outside, middle, low), torch.where(outside, high, middle)
        x = b / (d + high)
        values = (0.5 * d * x.square() - b * x).sum(1).numpy()
        return values + weight * height(penalty, radii)

    radii = np.linspace(0, 1.01 * float((b / d).norm()), 401)[1:]
    least = 0.0
    for _ in range(7):
        values = on_spheres(radii)
        best = int(values.argmin())
        least = min(least, float(values[best]))
        radii = np.linspace(radii[max(best - 1, 0)], radii[min(best + 1, len(radii) - 1)], 101)
    return least


def random_problem(cls: type[FoldedConcave], trial: int) -> tuple[FoldedConcave, Tensor, Tensor, float]:
    generator = torch.Generator().manual_seed(trial)

    def uniform() -> float:
        return float(torch.rand((), generator=generator))

    size = (1, 2, 5)[trial % 3]
    b = torch.randn(size, generator=generator, dtype=torch.float64)
    d = (1.5 * torch.randn(size, generator=generator, dtype=torch.float64)).exp()
    weight = 10 ** (2 * uniform() - 1)
    lam = 0.8 * uniform() * max(float(b.norm()) / weight, float((b / d).norm()))
    gamma = 2.05 + 4 * uniform() if cls is GroupSCAD else 0.2 + 5 * uniform()
    return cls(lam, gamma, Slices(1), "one"), b, d, weight


@EITHER
def test_it_is_the_global_minimum_convex_or_not(cls: type[FoldedConcave]) -> None:
    seen: Counter[tuple[int, bool]] = Counter()
    for trial in range(60):
        penalty, b, d, weight = random_problem(cls, trial)
        x = penalty.solve(b[:, None], d[:, None], weight).x
        mine = float((0.5 * d * x[:, 0].square() - b * x[:, 0]).sum() + weight * penalty.value(x))
        least = least_objective(penalty, b, d, weight)
        assert mine <= least + 1e-12 * (1 + abs(least))
        curvature = 1 / penalty.gamma if cls is GroupMCP else 1 / (penalty.gamma - 1)
        branch = int(penalty.branches(b[:, None], d[:, None], weight))
        seen[branch, bool(d.min() > weight * curvature)] += 1
    assert {branch for branch, _ in seen} == {DROPPED, SHRUNK, UNTOUCHED}
    assert {convex for _, convex in seen} == {True, False}


@EITHER
def test_the_reported_residual_is_a_subgradient(cls: type[FoldedConcave]) -> None:
    for trial in range(60):
        penalty, b, d, weight = random_problem(cls, trial)
        x, kept, residual = penalty.solve(b[:, None], d[:, None], weight)
        assert residual <= 1e-12 * weight * penalty.lam
        if kept:
            point = x.clone().requires_grad_()
            (pull,) = torch.autograd.grad(penalty.value(point), point)
            assert (d[:, None] * x - b[:, None] + weight * pull).norm() <= 1e-12 * (1 + b.norm())


def test_agrees_with_skglm() -> None:
    x = 3 * torch.randn(60, dtype=torch.float64)
    for ours, theirs in [
        (GroupMCP(0.7, 3.0, Elements()), MCPenalty(0.7, 3.0)),
        (GroupSCAD(0.7, 3.7, Elements()), SCAD(0.7, 3.7)),
    ]:
        expected = torch.tensor([theirs.prox_1d(value, 0.9, 0) for value in x.tolist()], dtype=torch.float64)
        torch.testing.assert_close(ours.prox(x, 0.9), expected)
        assert float(ours.value(x)) == pytest.approx(theirs.value(x.numpy()))


@EITHER
def test_continuous_across_branches_where_convex(cls: type[FoldedConcave]) -> None:
    """At ||b|| = kappa, at r = lam (SCAD) and at ||b / d|| = gamma lam, for a metric that is not constant."""
    penalty = cls(0.5, 3.0, Slices(1), "one")
    direction = torch.tensor([[1.0], [2.0], [-1.0]], dtype=torch.float64)
    d = torch.tensor([[1.0], [1.5], [2.0]], dtype=torch.float64)
    scales = torch.linspace(0.05, 3.0, 4001, dtype=torch.float64)
    b = direction * scales
    x = penalty.solve(b, d.expand_as(b), 0.9).x
    branches = penalty.branches(b, d.expand_as(b), 0.9)
    assert branches.unique().tolist() == [DROPPED, SHRUNK, UNTOUCHED]
    assert torch.equal(branches, branches.sort().values)
    jumps = (x[:, 1:] - x[:, :-1]).norm(dim=0)
    assert jumps.max() < 20 * (scales[1] - scales[0])


@EITHER
def test_a_large_gamma_is_the_group_lasso(cls: type[FoldedConcave]) -> None:
    b, d = torch.randn(5, 4, dtype=torch.float64), torch.rand(5, 4, dtype=torch.float64) + 0.1
    expected = GroupLasso(0.2).solve(b, d, 1.0)
    x, kept, _ = cls(0.2, gamma=1e9).solve(b, d, 1.0)
    assert torch.equal(kept, expected.kept)
    torch.testing.assert_close(x, expected.x, rtol=1e-6, atol=1e-9)


@EITHER
@pytest.mark.parametrize("magnitude", [1e-25, 1e25])
def test_single_precision_survives_huge_and_tiny_numbers(cls: type[FoldedConcave], magnitude: float) -> None:
    b, d = torch.randn(4, 50), torch.rand(4, 50) + 0.1
    expected = cls(0.5).solve(b, d, 1.0)
    x, kept, residual = cls(0.5).solve(b * magnitude, d * magnitude, magnitude)
    assert torch.equal(kept, expected.kept)
    assert residual.isfinite().all()
    torch.testing.assert_close(x, expected.x, rtol=1e-4, atol=1e-6)


def test_gamma_must_leave_a_concave_part() -> None:
    with pytest.raises(ValueError, match=r"GroupMCP: gamma must be > 0, got 0.0"):
        GroupMCP(0.1, 0.0)
    with pytest.raises(ValueError, match=r"GroupSCAD: gamma must be > 2, got 2.0"):
        GroupSCAD(0.1, 2.0)
    with pytest.raises(ValueError, match=r"GroupSCAD: lam must be >= 0"):
        GroupSCAD(-0.1)
