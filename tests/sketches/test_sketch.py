"""Draws."""

import pytest
import torch

from openwork.sketches import Constants, Diagonal, Whole


def test_whole_gives_back_what_it_is_given() -> None:
    x = torch.ones(3)
    assert Whole().apply(x) is x
    assert Whole().adjoint(x) is x


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_booleans_and_numbers_are_the_same_map(dtype: torch.dtype) -> None:
    kept = torch.tensor([True, False, True, True])
    short, long = Diagonal(kept, 2.5), Diagonal(torch.where(kept, 2.5, 0.0).double())
    x = torch.tensor([1.0, torch.inf, -0.3, torch.nan], dtype=dtype)
    assert torch.equal(short.weights, long.weights)
    assert short.weights.dtype == torch.float64
    assert torch.equal(short.kept, long.kept)
    assert torch.equal(short.apply(x)[:3], long.apply(x)[:3])
    assert short.apply(x).dtype == dtype
    assert short.apply(x)[1] == 0


def test_the_scale_multiplies_numbers_too() -> None:
    draw = Diagonal(torch.tensor([0.5, 0.0]).double(), 4.0)
    assert draw.weights.tolist() == [2, 0]
    assert draw.apply(torch.tensor([3.0, 3.0])).tolist() == [6, 0]


def test_the_gradient_is_the_adjoint() -> None:
    draw = Diagonal(torch.tensor([True, False, True]), 3.0)
    x = torch.tensor([1.0, torch.inf, 2.0], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([5.0, 6.0, 7.0], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(draw.apply(x) @ y, x)
    assert torch.equal(gradient, draw.adjoint(y))


def test_variance() -> None:
    assert Constants(largest=9.0, smooth=3.0, convex=2.0).variance == 2
