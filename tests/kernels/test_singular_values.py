import pytest
import torch
from torch import Tensor

from openwork.kernels import shrink_singular_values, singular_values


def by_svd(x: Tensor, threshold: float) -> Tensor:
    u, s, v = torch.linalg.svd(x.double(), full_matrices=False)
    return u @ torch.diag_embed((s - threshold).clamp_min(0.0)) @ v


@pytest.mark.parametrize("shape", [(30, 7), (7, 30), (12, 12), (1, 5), (5, 1), (3, 9, 4)])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 2.5])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-6)])
def test_agrees_with_the_decomposition(
    shape: tuple[int, ...], threshold: float, dtype: torch.dtype, tolerance: float
) -> None:
    x = torch.randn(shape, dtype=dtype)
    point, values = shrink_singular_values(x, threshold)
    expected = by_svd(x, threshold)
    assert point.dtype == values.dtype == dtype
    assert (point - expected).norm() <= tolerance * x.norm()
    torch.testing.assert_close(
        values.double(), (torch.linalg.svdvals(x.double()) - threshold).clamp_min(0.0), rtol=0.0, atol=10 * tolerance
    )


def test_single_precision_loses_nothing_to_the_gram_matrix() -> None:
    """Over singular values in six decades it is at least as accurate as an SVD in single precision."""
    u = torch.linalg.qr(torch.randn(60, 20, dtype=torch.float64))[0]
    v = torch.linalg.qr(torch.randn(20, 20, dtype=torch.float64))[0]
    x = (u * torch.logspace(0, -6, 20, dtype=torch.float64)) @ v
    values = shrink_singular_values(x.float(), 0.0).values.double()
    exact = torch.linalg.svdvals(x.float().double())
    in_single = torch.linalg.svdvals(x.float()).double()
    assert (values - exact).abs().max() <= max((in_single - exact).abs().max(), torch.tensor(1e-8))
    assert ((values - exact).abs() <= 2e-5 * exact).all()


@pytest.mark.parametrize("ratio", [0.09, 0.11, 0.5, 0.99])
def test_both_precisions_of_the_gram_matrix_are_good_enough(ratio: float) -> None:
    u = torch.linalg.qr(torch.randn(60, 20, dtype=torch.float64))[0]
    v = torch.linalg.qr(torch.randn(20, 20, dtype=torch.float64))[0]
    x = ((u * torch.linspace(1, 0.01, 20, dtype=torch.float64)) @ v).float()
    point, values = shrink_singular_values(x, ratio)
    assert (point - by_svd(x, ratio)).norm() <= 1e-5
    assert torch.equal(values > 0, torch.linalg.svdvals(x.double()) > ratio)


def test_one_threshold_per_matrix() -> None:
    x = torch.randn(2, 6, 4, dtype=torch.float64)
    point, values = shrink_singular_values(x, torch.tensor([0.5, 100.0]))
    torch.testing.assert_close(point[0], by_svd(x[0], 0.5))
    assert (point[1] == 0).all()
    assert (values[1] == 0).all()


@pytest.mark.parametrize(("dtype", "broken"), [(torch.float32, "eigh"), (torch.float64, "svd")])
def test_where_one_decomposition_fails_the_other_one_helps(
    dtype: torch.dtype, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.linalg.LinAlgError("did not converge")

    x = torch.randn(6, 4, dtype=dtype)
    expected = by_svd(x, 0.5)
    monkeypatch.setattr(torch.linalg, broken, fail)
    torch.testing.assert_close(shrink_singular_values(x, 0.5).x.double(), expected, rtol=1e-5, atol=1e-5)


def test_singular_values_come_largest_first() -> None:
    assert singular_values(torch.diag(torch.tensor([1.0, 3.0, 2.0]))).tolist() == [3.0, 2.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_training_that_diverged_is_told_so(dtype: torch.dtype) -> None:
    x = torch.full((3, 2), torch.inf, dtype=dtype)
    with pytest.raises(ValueError, match="not finite, so it has no singular values: the training has diverged"):
        shrink_singular_values(x, 0.5)
