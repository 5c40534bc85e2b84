import cvxpy as cp
import pytest
import torch
from torch import Tensor

from openwork.partitions import Blocks, Elements, Heads, Partition, Slices
from openwork.penalties import L1, GroupLasso, SparseGroupLasso
from openwork.testing import check_penalty


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize(
    ("groups", "shape"),
    [(Slices(1), (4, 3, 2, 2)), (Blocks((2, 2)), (4, 6)), (Heads(2), (6, 4)), (Elements(), (3, 4))],
    ids=str,
)
def test_contract(alpha: float, groups: Partition, shape: tuple[int, ...]) -> None:
    check_penalty(SparseGroupLasso(0.4, alpha, groups), shape)


def problem() -> tuple[Tensor, Tensor]:
    return torch.randn(6, 5, dtype=torch.float64), torch.rand(6, 5, dtype=torch.float64) + 0.05


def test_between_the_lasso_and_the_group_lasso() -> None:
    b, d = problem()
    only_lasso, only_groups = SparseGroupLasso(0.3, 1.0), SparseGroupLasso(0.3, 0.0)
    torch.testing.assert_close(only_lasso.solve(b, d, 2.0).x, L1(0.3).solve(b, d, 2.0).x)
    torch.testing.assert_close(only_groups.solve(b, d, 2.0).x, GroupLasso(0.3).solve(b, d, 2.0).x)
    assert only_lasso.value(b) == L1(0.3).value(b)
    assert only_groups.value(b) == GroupLasso(0.3).value(b)


def test_agrees_with_a_conic_solver() -> None:
    b, d = problem()
    penalty = SparseGroupLasso(0.3, 0.4, Slices(0), "one")

    def objective(x: Tensor) -> float:
        return float((0.5 * d * x.square() - b * x).sum() + 1.5 * penalty.value(x))

    z = cp.Variable((6, 5))
    smooth = 0.5 * cp.sum(cp.multiply(d.numpy(), cp.square(z))) - cp.sum(cp.multiply(b.numpy(), z))
    norms = 0.4 * cp.norm(cp.vec(z, order="C"), 1) + 0.6 * cp.sum(cp.norm(z, 2, axis=1))
    cp.Problem(cp.Minimize(smooth + 1.5 * 0.3 * norms)).solve(solver=cp.CLARABEL)
    reference = objective(torch.tensor(z.value))
    mine = objective(penalty.solve(b, d, 1.5).x)
    assert mine <= reference + 1e-12
    assert mine == pytest.approx(reference, abs=1e-6)


def test_survivors_of_a_group_keep_zeros_of_their_own() -> None:
    b = torch.tensor([[3.0, 0.1], [0.2, 0.1]])
    x, kept, _ = SparseGroupLasso(1.0, 0.5, Slices(1), "one").solve(b, torch.full_like(b, 2.0), 1.0)
    assert kept.tolist() == [True, False]
    assert (x != 0).tolist() == [[True, False], [False, False]]
    # ||soft(b, 0.5)|| = 2.5 shrunk by 0.5, over d = 2.
    assert float(x[0, 0]) == pytest.approx(1.0)


def test_a_share_outside_the_unit_interval_is_refused() -> None:
    with pytest.raises(ValueError, match=r"SparseGroupLasso: alpha must lie in \[0, 1\], got 1.5"):
        SparseGroupLasso(0.1, 1.5)
    with pytest.raises(ValueError, match="SparseGroupLasso: lam must be >= 0"):
        SparseGroupLasso(-0.1)
