from math import inf

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from openwork.partitions import Slices
from openwork.penalties import L0, L1, GroupLasso, GroupMCP, GroupPenalty, Nonnegative, NuclearNorm, SparseGroupLasso
from openwork.testing import check_penalty


@pytest.mark.parametrize(
    "penalty",
    [L1(0.3), L0(0.1), GroupLasso(0.3), SparseGroupLasso(0.3), GroupMCP(0.2, 2.0)],
    ids=lambda p: type(p).__name__,
)
def test_contract(penalty: GroupPenalty) -> None:
    check_penalty(Nonnegative(penalty), (5, 4))


def test_agrees_with_a_bounded_minimizer() -> None:
    b, d = torch.randn(6, 3, dtype=torch.float64), torch.rand(6, 3, dtype=torch.float64) + 0.2
    penalty = Nonnegative(SparseGroupLasso(0.2, 0.5))

    def objective(x: torch.Tensor) -> torch.Tensor:
        return (0.5 * d * x.square() - b * x).sum() + penalty.penalty.value(x)

    x = penalty.solve(b, d, 1.0).x

    def value_and_gradient(z: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.tensor(z, requires_grad=True)
        value = objective(point.view(6, 3))
        (gradient,) = torch.autograd.grad(value, point)
        return value.item(), gradient.numpy()

    start = torch.rand(18, dtype=torch.float64).numpy()
    options = {"ftol": 1e-15, "maxiter": 5000}
    found = minimize(value_and_gradient, start, jac=True, bounds=[(0, None)] * 18, options=options)
    assert float(objective(x)) <= found.fun + 1e-12
    assert float(objective(x)) == pytest.approx(found.fun, abs=1e-6)


def test_value_is_infinite_below_zero() -> None:
    penalty = Nonnegative(L1(0.5))
    assert penalty.value(torch.tensor([1.0, 2.0])) == 1.5
    assert penalty.value(torch.tensor([1.0, -2.0])) == inf


def test_strength_zero_leaves_the_constraint() -> None:
    assert Nonnegative(L1(0.0)).prox(torch.tensor([1.0, -1.0]), 3.0).tolist() == [1.0, 0.0]


def test_regroup_reaches_the_penalty_inside() -> None:
    assert Nonnegative(GroupLasso(0.5)).regroup(Slices(0)) == Nonnegative(GroupLasso(0.5, Slices(0)))
    assert Nonnegative(GroupLasso(0.5, Slices(0))).groups == Slices(0)


def test_what_a_group_counts_as_reaches_the_penalty_inside() -> None:
    assert Nonnegative(GroupLasso(0.5)).counting_as(7) == Nonnegative(GroupLasso(0.5, counts_as=7))


def test_a_penalty_on_more_than_magnitudes_is_refused() -> None:
    with pytest.raises(TypeError, match="Nonnegative: penalty must drop groups, as GroupLasso does, got NuclearNorm"):
        Nonnegative(NuclearNorm(0.1))  # pyright: ignore[reportArgumentType]
