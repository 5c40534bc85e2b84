"""Products of factors, and their derivatives without a division."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, TypeVar, cast

from torch import Tensor
from torch.autograd import Function
from typing_extensions import override

T = TypeVar("T")


def leave_one_out(factors: Sequence[T], multiply: Callable[[T, T], T]) -> list[T]:
    """Products of all factors but one, ``P_i = prod_{k != i} w_k``, from products before and after i.

    Nothing is divided, so zeros are exact: one zero factor alone has a ``P_i`` that is not zero, and with two of them
    all are zero. ``3 D - 6`` multiplications for ``D >= 3`` factors.

    Args:
        factors: D >= 2 of them: tensors, or lists of tensors.
        multiply: Gives the product of two; a new object.

    Returns:
        D products. For ``D = 2`` they are the other factor itself.
    """
    depth = len(factors)
    before, after = [factors[0]], [factors[-1]]
    for i in range(1, depth - 1):
        before.append(multiply(before[-1], factors[i]))
        after.append(multiply(after[-1], factors[depth - 1 - i]))
    middle = [multiply(before[i - 1], after[depth - 2 - i]) for i in range(1, depth - 1)]
    return [after[-1], *middle, before[-1]]


def product(*factors: Tensor) -> Tensor:
    """Product of D >= 2 tensors, for which autograd keeps the factors and no partial product.

    Can be differentiated twice. Numbers are multiplied from the first factor to the last.

    Args:
        *factors: Tensors of one shape and dtype.

    Returns:
        Their product.
    """
    return cast("Tensor", _Product.apply(*factors))  # pyright: ignore[reportUnknownMemberType]


class _Product(Function):
    """The product, whose backward computes the partial products again."""

    generate_vmap_rule = True

    @override
    @staticmethod
    def forward(*factors: Tensor) -> Tensor:
        return reduce(Tensor.mul, factors)

    @override
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @override
    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, ...]:
        (grad,) = grad_outputs
        factors: tuple[Tensor, ...] = ctx.saved_tensors
        return tuple(grad * others for others in leave_one_out(factors, Tensor.mul))


__all__ = ["leave_one_out", "product"]
