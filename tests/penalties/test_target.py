import pytest
import torch

from openwork.optim import ProxSGD
from openwork.partitions import Slices
from openwork.penalties import (
    L0,
    L1,
    GroupL0,
    GroupLasso,
    GroupMCP,
    GroupPenalty,
    GroupSCAD,
    LHalf,
    Nonnegative,
    NuclearNorm,
    SparseGroupLasso,
    Target,
)

PENALTIES = [
    L1(2.0),
    L0(0.5),
    LHalf(0.5),
    GroupLasso(3.0),
    GroupL0(0.1),
    SparseGroupLasso(0.4),
    SparseGroupLasso(0.4, 0.0),
    SparseGroupLasso(0.4, 1.0),
    GroupMCP(0.1),
    GroupMCP(0.1, 0.01),
    GroupSCAD(0.1),
]


def weights(dtype: torch.dtype = torch.float64) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    shapes = [(6, 30), (6, 30), (4, 17), (3, 5, 2, 2)]
    b = [
        torch.randn(shape, dtype=dtype) * 10 ** torch.randn(1, shape[1], *[1] * (len(shape) - 2), dtype=dtype)
        for shape in shapes
    ]
    return b, [torch.rand_like(x) + 0.1 for x in b]


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
def test_the_prescribed_number_of_groups_is_zero_over_all_weights(
    penalty: GroupPenalty, dtype: torch.dtype, fraction: float
) -> None:
    b, d = weights(dtype)
    for solutions in (Target(penalty, fraction).solve_(b, d, 0.7), Target(penalty, fraction).prox_list(b, 0.3)):
        kept = torch.cat([solution.kept.flatten() for solution in solutions])
        assert int((~kept).sum()) == round(fraction * kept.numel())
        for solution in solutions:
            assert torch.equal(penalty.groups.any(solution.x), solution.kept)


def test_it_solves_with_one_strength_for_all() -> None:
    b, d = weights()
    solutions = Target(GroupLasso(1.0), 0.5).solve_(b, d, 1.0)
    critical = torch.cat([GroupLasso(1.0).critical(*pair) for pair in zip(b, d, strict=True)])
    weight = critical.kthvalue(round(0.5 * critical.numel())).values
    for solution, dual, metric in zip(solutions, b, d, strict=True):
        torch.testing.assert_close(solution.x, GroupLasso(1.0).solve(dual, metric, weight).x)


def test_the_inner_strength_does_not_matter() -> None:
    b, d = weights()
    weak, strong = (Target(GroupLasso(lam), 0.3).solve_(b, d, 1.0) for lam in (1e-3, 1e3))
    for one, other in zip(weak, strong, strict=True):
        torch.testing.assert_close(one.x, other.x)


def test_ties_may_add_zeros() -> None:
    x = torch.tensor([1.0, 1.0, 1.0, 2.0])
    assert Target(L1(1.0), 0.25).prox(x, 1.0).tolist() == pytest.approx([0.0, 0.0, 0.0, 1.0])


def test_groups_that_are_zero_already_count() -> None:
    x = torch.tensor([0.0, 0.0, 1.0, 2.0])
    assert Target(L1(1.0), 0.5).prox(x, 1.0).tolist() == [0.0, 0.0, 1.0, 2.0]


def test_a_weight_or_step_of_zero_switches_it_off() -> None:
    b, d = torch.randn(3, 4), torch.rand(3, 4) + 0.1
    assert torch.equal(Target(GroupLasso(1.0), 0.5).prox(b, 0.0), b)
    assert torch.equal(Target(GroupLasso(1.0), 0.5).solve(b, d, 0.0).x, b / d)


def test_it_must_see_all_weights_at_once() -> None:
    target = Target(GroupLasso(1.0), 0.5)
    assert not target.separable
    assert GroupLasso(1.0).separable
    assert target.cut((100, 100)) is None


@pytest.mark.parametrize("foreach", [None, False])
def test_an_optimizer_ranks_all_weights_of_a_group_together(foreach: bool | None) -> None:
    params = [torch.nn.Parameter(scale * torch.randn(4, 10)) for scale in (0.01, 1.0)]
    optimizer = ProxSGD(params, lr=0.1, penalty=Target(GroupLasso(1.0), 0.5), foreach=foreach)
    for param in params:
        param.grad = torch.zeros_like(param)
    optimizer.step()
    alive = [int(param.any(dim=0).sum()) for param in params]
    assert alive == [0, 10]


def test_it_is_read_like_the_penalty_inside() -> None:
    target = Target(GroupLasso(1.0), 0.5)
    assert target.regroup(Slices(0)) == Target(GroupLasso(1.0, Slices(0)), 0.5)
    assert target.value(torch.ones(4, 1)) == GroupLasso(1.0).value(torch.ones(4, 1))
    assert Target(Nonnegative(L1(1.0)), 0.5).prox(torch.tensor([-5.0, 1.0]), 1.0).tolist() == [0.0, 1.0]


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Target: zero_fraction must lie in \[0, 1\], got 1.2"):
        Target(L1(1.0), 1.2)
    with pytest.raises(TypeError, match="Target: penalty must drop groups, as GroupLasso does, got NuclearNorm"):
        Target(NuclearNorm(1.0), 0.5)  # pyright: ignore[reportArgumentType]
