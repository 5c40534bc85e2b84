"""What counts as equal: rounding, and nothing else."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

from openwork.shrinking import NotEqual, verify


class Net(nn.Module):
    """Inputs far from zero, which the biases take away again: in single precision the outputs have few digits."""

    def __init__(self, size: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(32, 64), nn.Linear(64, 3)
        with torch.no_grad():
            self.first.bias.sub_(size * self.first.weight.sum(1))

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).relu())


@torch.no_grad()
def shifted(model: Net, by: float) -> Net:
    """The same up to a relative error of the outputs."""
    other = deepcopy(model)
    for parameter in other.last.parameters():
        parameter.mul_(1 + by)
    return other


@torch.no_grad()
def rounded(model: Net) -> Net:
    """The same function, rounded otherwise: hidden units three times as large, which their readers undo."""
    other = deepcopy(model).double()
    for parameter in other.first.parameters():
        parameter.mul_(3.0)
    other.last.weight.div_(3.0)
    return other.float()


@pytest.mark.parametrize("size", [0.0, 1e3])
def test_differences_of_the_size_of_rounding_pass(size: float) -> None:
    model, x = Net(size), torch.randn(6, 32) + size
    found = verify(model, rounded(model), x)
    assert found.difference <= found.tolerance
    assert (found.tolerance > 1e-5) == (size > 0) == (found.difference > 1e-5)


def test_larger_ones_do_not() -> None:
    model, x = Net(1e3), torch.randn(6, 32) + 1e3
    verify(model, deepcopy(model), x)
    with pytest.raises(NotEqual, match="of the largest output"):
        verify(model, shifted(model, 2e-3), x)
    # Without cancellation nothing more than usual is allowed.
    with pytest.raises(NotEqual, match="1e-05 is allowed"):
        verify(Net(0.0), shifted(Net(0.0), 3e-5), torch.randn(6, 32))


def test_a_model_that_rounds_coarsely_is_not_proven_by_it() -> None:
    model, x = Net(1e7), torch.randn(6, 32) + 1e7
    with pytest.raises(NotEqual, match="1e-03 is allowed"):
        verify(model, rounded(model), x)
