"""Exact solutions of the convex problems that stochastic methods are judged by."""

from collections.abc import Callable

import torch
from torch import Tensor


def fista(forward_backward: Callable[[Tensor], Tensor], start: Tensor, tolerance: float, most: int) -> Tensor:
    """A fixed point of a proximal gradient step, accelerated, with the momentum dropped whenever it points uphill.

    Args:
        forward_backward: The step ``x -> prox(x - step * gradient(x))`` of a convex problem, in float64.
        start: First point, any shape.
        tolerance: Stop when a step moves by no more, in the Euclidean norm.
        most: Steps after which to give up.

    Returns:
        The last point, which is the result of a proximal step and hence has exact zeros.

    Raises:
        ArithmeticError: If the tolerance is not reached.

    References:
        Beck & Teboulle (2009); O'Donoghue & Candès, Adaptive restart for accelerated gradient schemes (2015), the
        gradient scheme.
    """
    x, y, momentum = start, start, 1.0
    for _ in range(most):
        following = forward_backward(y)
        if (following - y).norm() <= tolerance:
            return following
        if ((y - following) * (following - x)).sum() > 0:
            momentum = 1.0
        grown = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        y = following + (momentum - 1) / grown * (following - x)
        x, momentum = following, grown
    raise ArithmeticError(f"fista: no step below {tolerance:g} in {most} steps")


def newton(derivatives: Callable[[Tensor], tuple[Tensor, Tensor]], start: Tensor, tolerance: float) -> Tensor:
    """The minimizer of a smooth, strongly convex function, by Newton's method.

    Steps are halved until the gradient becomes shorter.

    Args:
        derivatives: Gradient ``(d,)`` and Hessian ``(d, d)`` at a point, in float64.
        start: First point, ``(d,)``.
        tolerance: Stop when the gradient is no longer, in the Euclidean norm.

    Raises:
        ArithmeticError: If rounding stops the steps first.
    """
    x = start
    gradient, hessian = derivatives(x)
    while (before := gradient.norm()) > tolerance:
        step = torch.linalg.solve(hessian, gradient)
        for _ in range(30):
            gradient, hessian = derivatives(x - step)
            if gradient.norm() < before:
                break
            step = step / 2
        else:
            raise ArithmeticError(f"newton: no step shortens a gradient of {before:.1e}; the wish is {tolerance:g}")
        x = x - step
    return x
