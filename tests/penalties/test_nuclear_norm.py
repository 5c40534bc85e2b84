import pytest
import torch
from torch import Tensor

from openwork.penalties import NuclearNorm, ProximalGradient
from openwork.structure import Rank
from openwork.testing import check_penalty


@pytest.mark.parametrize("shape", [(6, 4), (3, 5), (4, 3, 2, 2)])
def test_contract(shape: tuple[int, ...]) -> None:
    check_penalty(NuclearNorm(0.5), shape, tolerance=1e-8)


@pytest.mark.parametrize("shape", [(6, 4), (3, 5)])
def test_contract_of_the_full_metric(shape: tuple[int, ...]) -> None:
    check_penalty(NuclearNorm(0.5, "full", tolerance=1e-9, max_iterations=5000), shape, tolerance=1e-7)


def test_contract_of_several_matrices() -> None:
    check_penalty(NuclearNorm(0.5, batch_axes=1), (2, 4, 3), tolerance=1e-8)


def problem(rows: int = 12, columns: int = 9, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    b = torch.randn(rows, columns, dtype=torch.float64)
    return b, torch.exp(spread * torch.randn(rows, columns, dtype=torch.float64))


def objective(x: Tensor, b: Tensor, d: Tensor, kappa: float) -> float:
    return float((0.5 * d * x.square() - b * x).sum() + kappa * torch.linalg.svdvals(x).sum())


def test_the_scalar_metric_is_singular_value_thresholding() -> None:
    b, _ = problem()
    u, s, v = torch.linalg.svd(b / 2.0, full_matrices=False)
    x, kept, _ = NuclearNorm(0.5).solve(b, torch.full_like(b, 2.0), 3.0)
    torch.testing.assert_close(x, u @ torch.diag((s - 0.75).clamp_min(0.0)) @ v)
    assert kept.tolist() == (s > 0.75).tolist()
    assert 0 < kept.sum() < 9


def test_rank_is_the_number_of_kept_singular_values() -> None:
    b, d = problem()
    for penalty in (NuclearNorm(1.0), NuclearNorm(1.0, "full")):
        x, kept, _ = penalty.solve(b, d, 1.0)
        structure = penalty.read(kept)
        assert isinstance(structure, Rank)
        assert structure.rank == int(kept.sum()) == int(torch.linalg.matrix_rank(x, atol=1e-9))
        assert torch.equal(kept, kept.sort(descending=True).values)
        bare = penalty.structure(x.float())
        assert isinstance(bare, Rank)
        assert bare.rank == structure.rank


def test_the_metric_is_replaced_by_its_largest_entry_before_b_is_formed() -> None:
    d = torch.rand(3, 4, 2)
    (largest,) = NuclearNorm(0.5).metrics([d])
    torch.testing.assert_close(largest, d.amax().expand_as(d))
    assert NuclearNorm(0.5, "full").metrics([d])[0] is d
    (each,) = NuclearNorm(0.5, batch_axes=1).metrics([d])
    torch.testing.assert_close(each, d.amax((1, 2), keepdim=True).expand_as(d))


@pytest.mark.parametrize("spread", [0.3, 1.5])
def test_the_full_metric_is_solved_to_its_tolerance(spread: float) -> None:
    b, d = problem(16, 24, spread)
    x, kept, residual = NuclearNorm(4.0, "full", tolerance=1e-9, max_iterations=3000).solve(b, d, 1.0)
    assert residual <= 4e-9 + 1e-13
    # The gradient of the smooth part must be a subgradient of the norm: UV' on the kept space, and at most 1 elsewhere.
    pull = (b - d * x) / 4
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    rank = int(kept.sum())
    assert 0 < rank < 16
    u, v = u[:, :rank], v[:rank]
    torch.testing.assert_close(u.mT @ pull @ v.mT, torch.eye(rank, dtype=torch.float64), rtol=0.0, atol=1e-6)
    assert torch.linalg.matrix_norm(pull - u @ v, 2) <= 1 + 1e-6


def test_the_full_metric_is_never_above_the_start() -> None:
    b, d = problem(8, 6, 2.0)
    exact = NuclearNorm(0.5, "full", tolerance=1e-10, max_iterations=5000).solve(b, d, 1.0).x
    hasty = NuclearNorm(0.5, "full", max_iterations=3)
    for start in (exact, exact + 1e-9 * torch.randn_like(exact), torch.randn_like(exact), torch.zeros_like(exact)):
        before = objective(start, b, d, 0.5)
        # Up to the rounding of numbers as large as these.
        assert objective(hasty.solve(b, d, 1.0, start).x, b, d, 0.5) <= before + 1e-14 * max(1.0, abs(before))


def test_acceleration_takes_fewer_decompositions_than_plain_steps() -> None:
    b, d = problem(16, 24, 1.0)
    start = torch.zeros_like(b)
    plain = ProximalGradient(NuclearNorm(0.5), tolerance=1e-6, max_iterations=5000).descend(b, d, 1.0, start)
    accelerated = NuclearNorm(0.5, "full", tolerance=1e-6, max_iterations=plain.iterations // 2)
    assert accelerated.solve(b, d, 1.0, start).residual <= 1e-6 * 0.5 + 1e-12
    torch.testing.assert_close(accelerated.solve(b, d, 1.0, start).x, plain.solution.x, rtol=1e-3, atol=1e-4)


def test_single_precision_gives_the_same_rank() -> None:
    b, d = problem(40, 20, 0.5)
    for penalty in (NuclearNorm(1.0), NuclearNorm(1.0, "full", 1e-4)):
        single, double = penalty.solve(b.float(), d.float(), 1.0), penalty.solve(b, d, 1.0)
        assert torch.equal(single.kept, double.kept)
        torch.testing.assert_close(single.x.double(), double.x, rtol=1e-3, atol=1e-3)


def test_no_strength_and_all_strength() -> None:
    b, d = problem()
    x, kept, _ = NuclearNorm(0.0).solve(b, torch.full_like(b, 0.5), 1.0)
    torch.testing.assert_close(x, b / 0.5)
    assert kept.all()
    for penalty in (NuclearNorm(1e6), NuclearNorm(1e6, "full"), NuclearNorm(float("inf"))):
        x, kept, _ = penalty.solve(b, d, 1.0)
        assert (x == 0).all()
        assert not kept.any()


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="NuclearNorm: lam must be >= 0"):
        NuclearNorm(-1.0)
    with pytest.raises(ValueError, match="NuclearNorm: metric must be 'scalar' or 'full', got 'diagonal'"):
        NuclearNorm(1.0, "diagonal")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="NuclearNorm: tolerance must be > 0, got 0"):
        NuclearNorm(1.0, tolerance=0)
    with pytest.raises(ValueError, match="NuclearNorm: max_iterations must be >= 1, got 0"):
        NuclearNorm(1.0, max_iterations=0)
    with pytest.raises(ValueError, match="NuclearNorm: batch_axes must be >= 0, got -1"):
        NuclearNorm(1.0, batch_axes=-1)
    with pytest.raises(
        ValueError, match=r"needs a weight with at least 2 axes, got shape \(3,\); leave this weight out"
    ):
        NuclearNorm(1.0).check(torch.zeros(3))
