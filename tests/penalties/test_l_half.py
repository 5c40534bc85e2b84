import pytest
import torch
from skglm.penalties import L0_5

from openwork.penalties import LHalf
from openwork.testing import check_penalty


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 2, 2)])
def test_contract(shape: tuple[int, ...]) -> None:
    check_penalty(LHalf(0.3), shape)


def test_agrees_with_skglm() -> None:
    x, reference = 2 * torch.randn(50, dtype=torch.float64), L0_5(0.7)
    expected = torch.tensor([reference.prox_1d(value, 0.9, 0) for value in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(LHalf(0.7).prox(x, 0.9), expected)


def test_no_point_of_a_fine_grid_is_better() -> None:
    b, d = torch.randn(60, dtype=torch.float64), torch.rand(60, dtype=torch.float64) + 0.1
    x = LHalf(0.4).solve(b, d, 1.2).x
    grid = torch.linspace(-1, 1, 20_001, dtype=torch.float64)[:, None] * (b / d)

    def objective(z: torch.Tensor) -> torch.Tensor:
        return 0.5 * d * z.square() - b * z + 1.2 * 0.4 * z.abs().sqrt()

    assert 0 < (x != 0).sum() < 60
    assert (objective(x) <= objective(grid).amin(0) + 1e-14).all()
