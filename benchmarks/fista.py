"""Exact solutions of the convex problems that stochastic methods are judged by."""

from collections.abc import Callable

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
