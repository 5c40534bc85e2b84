import numpy as np
import pytest
import torch
from skglm.penalties import L1 as SkglmL1

from openwork.penalties import L1
from openwork.testing import check_penalty


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 2, 2), ()])
def test_contract(shape: tuple[int, ...]) -> None:
    check_penalty(L1(0.4), shape)


def test_agrees_with_skglm() -> None:
    x, reference = torch.randn(20, dtype=torch.float64), SkglmL1(0.7)
    expected = [reference.prox_1d(value, 0.9, 0) for value in x.tolist()]
    np.testing.assert_allclose(L1(0.7).prox(x, 0.9).numpy(), expected, atol=1e-15)


def test_the_threshold_goes_before_the_division() -> None:
    tiny = torch.tensor([1e-30])
    assert L1(1.0).solve(torch.tensor([1.5]), tiny, 1.0).x.tolist() == pytest.approx([0.5e30], rel=1e-6)
    assert L1(1.0).solve(torch.tensor([1.0]), tiny, 1.0).x.tolist() == [0.0]


def test_a_negative_strength_is_refused() -> None:
    with pytest.raises(ValueError, match="L1: lam must be >= 0, got -1"):
        L1(-1)
