import cvxpy as cp
import pytest
import torch
from sklearn.linear_model import Lasso
from torch import Tensor

from openwork.partitions import Blocks, Elements, Heads, Partition, Slices
from openwork.penalties import GroupLasso, ProximalGradient
from openwork.penalties.group_lasso import Weight
from openwork.structure import Support
from openwork.testing import check_penalty

CASES = [
    (Slices(0), (4, 3)),
    (Slices(1), (4, 3, 2, 2)),
    (Slices(-1), (4, 3)),
    (Blocks((2, 2)), (4, 6)),
    (Heads(2), (6, 4)),
    (Elements(), (3, 4)),
    (Slices(0), (5,)),
]


@pytest.mark.parametrize(("groups", "shape"), CASES, ids=str)
@pytest.mark.parametrize("weight", ["sqrt_size", "one"])
def test_contract(groups: Partition, shape: tuple[int, ...], weight: Weight) -> None:
    check_penalty(GroupLasso(0.3, groups, weight), shape)


def test_drops_a_group_whose_norm_is_the_threshold() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.5]])  # norms 5 and 0.5, threshold 0.5
    p = GroupLasso(1.0, Slices(0), weight="one").prox(x, step=0.5)
    assert p.any(dim=1).tolist() == [True, False]
    torch.testing.assert_close(p[0], 0.9 * x[0])


def test_weights_are_the_square_root_of_the_size_the_size_or_one() -> None:
    x = torch.full((4, 1), 3.0)  # one group of four, of norm 6
    values = [float(GroupLasso(2.0, weight=weight).value(x)) for weight in ("sqrt_size", "size", "one")]
    assert values == pytest.approx([24.0, 48.0, 12.0])


def test_value_has_a_gradient_at_zero() -> None:
    x = torch.zeros(3, 2, requires_grad=True)
    GroupLasso(1.0).value(x).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def objective(x: Tensor, b: Tensor, d: Tensor, penalty: GroupLasso, weight: float) -> float:
    return float((0.5 * d * x.square() - b * x).sum() + weight * penalty.value(x))


def test_agrees_with_a_conic_solver() -> None:
    b, d = torch.randn(5, 4, dtype=torch.float64), torch.rand(5, 4, dtype=torch.float64) + 0.05
    penalty = GroupLasso(0.35, Slices(1))
    x = penalty.solve(b, d, 2.0).x
    z = cp.Variable((5, 4))
    smooth = 0.5 * cp.sum(cp.multiply(d.numpy(), cp.square(z))) - cp.sum(cp.multiply(b.numpy(), z))
    norms = 2.0 * 0.35 * 5**0.5 * cp.sum(cp.norm(z, 2, axis=0))
    cp.Problem(cp.Minimize(smooth + norms)).solve(solver=cp.CLARABEL)
    reference = objective(torch.tensor(z.value), b, d, penalty, 2.0)
    mine = objective(x, b, d, penalty, 2.0)
    assert mine <= reference + 1e-12
    assert mine == pytest.approx(reference, abs=1e-6)


def test_never_above_the_start_nor_above_a_thousand_proximal_gradient_steps() -> None:
    penalty = GroupLasso(0.2, Slices(1))
    slow = ProximalGradient(penalty, tolerance=1e-15, max_iterations=1000)
    for _ in range(10):
        b, start = torch.randn(2, 6, 5, dtype=torch.float64)
        d = torch.exp(2 * torch.randn(6, 5, dtype=torch.float64))
        mine = objective(penalty.solve(b, d, 1.0, start).x, b, d, penalty, 1.0)
        assert mine <= objective(start, b, d, penalty, 1.0)
        assert mine <= objective(slow.solve(b, d, 1.0, start).x, b, d, penalty, 1.0) + 1e-13


def test_fewer_groups_survive_a_larger_strength() -> None:
    b, d = torch.randn(8, 50, dtype=torch.float64), torch.rand(8, 50, dtype=torch.float64)
    alive = [int(GroupLasso(lam).solve(b, d, 1.0).kept.sum()) for lam in (0.0, 0.3, 0.7, 0.9, 1.1, 1.4, 1e6)]
    assert alive == sorted(alive, reverse=True)
    assert alive[0] == 50
    assert alive[-1] == 0


def test_without_strength_it_is_exactly_the_quotient() -> None:
    b, d = torch.randn(4, 3), torch.rand(4, 3)
    b[:, 1] = 0.0
    x, kept, _ = GroupLasso(0.0).solve(b, d, 1.0)
    assert torch.equal(x, b / d)
    assert kept.tolist() == [True, False, True]
    assert torch.equal(GroupLasso(1.0).solve(b, d, torch.tensor(0.0)).x, b / d)


def test_groups_of_one_are_the_lasso_of_scikit_learn() -> None:
    x = torch.randn(1, 6, dtype=torch.float64)
    scaled = torch.eye(6, dtype=torch.float64).numpy() * 6**0.5  # its loss is averaged over samples
    lasso = Lasso(alpha=0.4, fit_intercept=False, tol=1e-14).fit(scaled, x[0].numpy() * 6**0.5)
    torch.testing.assert_close(GroupLasso(0.4).prox(x, 1.0)[0], torch.from_numpy(lasso.coef_))


def test_structure_names_the_groups_that_are_left() -> None:
    penalty = GroupLasso(1.0, Slices(1))
    structure = penalty.structure(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert isinstance(structure, Support)
    assert structure.groups == Slices(1)
    assert structure.kept.tolist() == [True, False]


def test_regroup_changes_the_groups_alone() -> None:
    assert GroupLasso(0.5, weight="one").regroup(Slices(0)) == GroupLasso(0.5, Slices(0), "one")


def test_a_negative_strength_is_refused() -> None:
    with pytest.raises(ValueError, match=r"GroupLasso: lam must be >= 0, got -0.1"):
        GroupLasso(-0.1)
    with pytest.raises(ValueError, match=r"GroupLasso: lam must be >= 0, got nan"):
        GroupLasso(float("nan"))


def test_a_weight_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Slices\(dim=1\) needs axis 1"):
        GroupLasso(0.1).check(torch.zeros(3))
