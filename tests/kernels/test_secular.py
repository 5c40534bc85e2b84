import pytest
import torch
from torch import Tensor

from openwork.kernels import first_crossing


def first_root_on_a_grid(b: Tensor, c: Tensor, kappa: float, start: float, stop: float) -> float | None:
    r = torch.linspace(start, stop, 200_001, dtype=torch.float64)
    q = (b / (kappa + r[:, None] * c)).square().sum(1)
    if q[0] <= 1:
        return None
    reached = torch.nonzero(q <= 1)
    return float(r[reached[0, 0]]) if len(reached) else None


def test_it_is_the_first_root_of_curves_with_one_two_or_none() -> None:
    seen = set()
    for _ in range(300):
        b, c = torch.randn(4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
        kappa = float(torch.rand(())) + 0.3
        # Up to where the first denominator would vanish.
        stop = 0.95 * float(kappa / (-c.min()).clamp_min(0.2))
        start = 0.3 * stop * float(torch.rand(()))
        one = torch.ones(1, 1, dtype=torch.float64)
        r, found = first_crossing(b[None], c[None], kappa * one, start * one, stop * one, (1,))
        expected = first_root_on_a_grid(b, c, kappa, start, stop)
        seen.add(expected is None)
        if expected is None:
            assert not found
        else:
            assert found
            assert float(r) == pytest.approx(expected, abs=1.1 * stop / 200_000)
    assert seen == {True, False}


def test_the_fixed_number_of_iterations_agrees() -> None:
    torch.compiler.reset()
    b = torch.randn(200, 6)
    c = torch.rand(200, 6) * 10 - 0.1
    kappa, start, stop = torch.full((200, 1), 0.8), torch.zeros(200, 1), torch.full((200, 1), 5.0)
    eager = first_crossing(b, c, kappa, start, stop, (1,))
    compiled = torch.compile(first_crossing, fullgraph=True, dynamic=False, backend="aot_eager")
    fixed = compiled(b, c, kappa, start, stop, (1,))
    assert torch.equal(eager.found, fixed.found)
    torch.testing.assert_close(fixed.r[eager.found], eager.r[eager.found], rtol=1e-5, atol=0.0)
