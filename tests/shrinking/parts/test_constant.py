"""A constant takes the shape of what it is given."""

import pickle

import pytest
import torch
from torch import Tensor, nn

from openwork.shrinking.parts import Constant
from openwork.wiring import inspect


@pytest.mark.parametrize(
    ("dim", "shape"), [(1, (2, 3, 5, 4)), (-1, (2, 5, 3)), (0, (3, 5)), (-3, (3, 5, 4)), (0, (3,))]
)
def test_it_has_the_shape_of_its_input_with_its_own_channels(dim: int, shape: tuple[int, ...]) -> None:
    values = torch.randn(7)
    out = Constant(values, dim)(torch.randn(shape))
    expected = list(shape)
    expected[dim] = 7
    assert list(out.shape) == expected
    assert torch.equal(out.movedim(dim, -1), values.expand(out.movedim(dim, -1).shape))
    assert out.untyped_storage().nbytes() == values.untyped_storage().nbytes()


def test_it_is_a_module_like_others() -> None:
    constant = Constant(torch.randn(3), dim=1)
    x = torch.randn(2, 4, 5)
    assert list(constant.state_dict()) == ["values"]
    assert torch.equal(pickle.loads(pickle.dumps(constant))(x), constant(x))
    assert torch.equal(torch.export.export(constant, (x,)).module()(x), constant(x))
    assert torch.equal(torch.compile(constant, backend="eager", fullgraph=True)(x), constant(x))
    assert str(constant) == "Constant(3, dim=1)"


def test_gradients_pass_around_it() -> None:
    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch, self.last = Constant(torch.randn(4)), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(x + self.branch(x))

    model, x = Added(), torch.randn(3, 4, requires_grad=True)
    model(x).sum().backward()
    torch.testing.assert_close(x.grad, model.last.weight.sum(dim=0).expand(3, 4))
    assert inspect(model, torch.randn(3, 4)).couplings


def test_a_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match=r"values must have shape \(channels,\), got \(2, 3\); pass one number per ch"):
        Constant(torch.zeros(2, 3))
