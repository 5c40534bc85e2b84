import torch

from openwork.penalties import Zero
from openwork.testing import check_penalty


def test_contract() -> None:
    check_penalty(Zero(), (3, 4))


def test_the_solution_is_the_quotient_and_nothing_is_read_off() -> None:
    b, d = torch.randn(3), torch.rand(3)
    x, kept, residual = Zero().solve(b, d, 1.0)
    assert torch.equal(x, b / d)
    assert kept.numel() == 0
    assert residual == 0
    assert Zero().prox(b, 2.0) is b
