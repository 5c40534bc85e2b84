"""Products of factors and their derivatives, with zeros in every place."""

from collections.abc import Callable, Sequence
from itertools import combinations

import pytest
import torch
from torch import Tensor

from openwork.factorizations import leave_one_out, product

DEPTHS = [2, 3, 4, 5, 6]


def some_factors(depth: int) -> list[Tensor]:
    """One column for each set of at most three factors that are zero there."""
    chosen = [zeros for count in range(min(depth, 3) + 1) for zeros in combinations(range(depth), count)]
    generator = torch.Generator().manual_seed(depth)
    values = torch.randn(depth, len(chosen), generator=generator, dtype=torch.float64)
    for column, zeros in enumerate(chosen):
        values[list(zeros), column] = 0.0
    return [row.clone().requires_grad_() for row in values]


def plain(*factors: Tensor) -> Tensor:
    result = factors[0]
    for factor in factors[1:]:
        result = result * factor
    return result


def derivatives(function: Callable[..., Tensor], factors: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of a function of the product, and the gradients of their sum of squares."""
    value = function(*factors)
    first = torch.autograd.grad((value + value.square()).sum(), factors, create_graph=True)
    total = torch.stack([g.square().sum() for g in first]).sum()
    return [value, *first, *torch.autograd.grad(total, factors)]


@pytest.mark.parametrize("depth", DEPTHS)
def test_derivatives_are_those_of_the_plain_product(depth: int) -> None:
    factors = some_factors(depth)
    for got, wanted in zip(derivatives(product, factors), derivatives(plain, factors), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_derivatives_are_those_of_finite_differences(depth: int) -> None:
    factors = some_factors(depth)
    assert torch.autograd.gradcheck(product, factors)
    assert torch.autograd.gradgradcheck(product, factors)


@pytest.mark.parametrize("depth", DEPTHS)
def test_others_are_exact_and_cost_what_they_should(depth: int) -> None:
    factors = some_factors(depth)
    calls = 0

    def multiply(a: Tensor, b: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return a * b

    for i, others in enumerate(leave_one_out(factors, multiply)):
        wanted = torch.stack([f for k, f in enumerate(factors) if k != i]).prod(dim=0)
        torch.testing.assert_close(others, wanted, rtol=1e-14, atol=0)
        # One zero leaves a gradient to that factor alone, and two to none.
        zeros = sum((f == 0).int() for f in factors)
        assert torch.equal(others != 0, (zeros == 0) | ((zeros == 1) & (factors[i] == 0)))
    assert calls == max(0, 3 * depth - 6)


def test_only_the_factors_are_kept() -> None:
    kept: list[Tensor] = []
    factors = [torch.randn(3, requires_grad=True) for _ in range(5)]

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        product(*factors)
    assert [id(tensor) for tensor in kept] == [id(factor) for factor in factors]


def test_functional_transforms() -> None:
    factors = [torch.randn(4, 3) for _ in range(3)]
    torch.testing.assert_close(torch.func.vmap(product)(*factors), plain(*factors))
    each = torch.func.vmap(torch.func.grad(lambda *fs: product(*fs).square().sum(), argnums=(0, 1, 2)))(*factors)
    for got, others in zip(each, leave_one_out(factors, Tensor.mul), strict=True):
        torch.testing.assert_close(got, 2 * plain(*factors) * others)
