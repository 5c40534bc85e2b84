"""Steps of SGD on the factors of weights."""

from collections.abc import Sequence

import torch
from torch import Tensor

from openwork.factorizations import leave_one_out
from openwork.kernels import Scalar
from openwork.optim.arithmetic import add_scaled, add_scaled_, multiply


def factorized_sgd(
    params: list[Tensor],
    grads: list[Tensor],
    factors: Sequence[list[Tensor]],
    momentums: Sequence[list[Tensor]],
    *,
    lr: Scalar,
    decay: Scalar,
    momentum: Scalar,
    nesterov: bool,
    gate: Scalar,
) -> None:
    """One step of SGD on the factors of weights; writes everything but ``grads``.

    With ``P_i`` the product of the other factors, all at their old values: ``G_i = g P_i + decay w_i``, then
    ``m_i <- momentum m_i + G_i``, ``w_i <- w_i - lr m_i`` and ``w <- prod_i w_i``. Nesterov descends along
    ``G_i + momentum m_i`` instead.

    Args:
        params: Weights, the products; the other lists match them in length and shapes.
        grads: Gradients at ``params``.
        factors: D >= 2 lists, one for each factor; or one list, ``params`` itself, for plain SGD.
        momentums: As many lists; none without momentum.
        lr: Learning rate, 0 where the gate is closed.
        decay: ``2 lam / D``, the weight decay of a factor.
        momentum: Fraction kept of the momentums, 1 where the gate is closed.
        nesterov: Look ahead.
        gate: 1, or 0 to change nothing.

    References:
        Kolb et al., Deep Weight Factorization (ICLR 2025), arXiv:2502.02496, algorithm 2, with the chain rule applied
        to the gradient of the product.
    """
    directions = _gradients(factors, grads)
    # No factor moves before all have their gradients.
    for i, slopes in enumerate(directions):
        add_scaled_(slopes, factors[i], decay)
        if momentums:
            directions[i] = _with_momentum(slopes, momentums[i], momentum, nesterov, gate)
    for own, direction in zip(factors, directions, strict=True):
        add_scaled_(own, direction, -lr)
    if len(factors) > 1:
        torch._foreach_copy_(params, factors[0])
        for own in factors[1:]:
            torch._foreach_mul_(params, own)


def _gradients(factors: Sequence[list[Tensor]], grads: list[Tensor]) -> list[list[Tensor]]:
    """Gradients of the factors, as new tensors."""
    match len(factors):
        case 1:
            return [[grad.clone() for grad in grads]]
        case 2:
            return [multiply(grads, others) for others in leave_one_out(factors, multiply)]
        case _:
            # These products are new, and nothing else needs them.
            found = leave_one_out(factors, multiply)
            for others in found:
                torch._foreach_mul_(others, grads)
            return found


def _with_momentum(
    slopes: list[Tensor], momentums: list[Tensor], momentum: Scalar, nesterov: bool, gate: Scalar
) -> list[Tensor]:
    """Where to descend, given gradients; writes ``momentums``."""
    torch._foreach_mul_(momentums, momentum)
    add_scaled_(momentums, slopes, gate)
    return add_scaled(slopes, momentums, momentum) if nesterov else momentums


def tied_sgd(
    params: list[Tensor],
    grads: list[Tensor],
    roots: list[Tensor],
    momentums: list[Tensor],
    *,
    depth: int,
    lr: Scalar,
    decay: Scalar,
    momentum: Scalar,
    nesterov: bool,
    gate: Scalar,
) -> None:
    """One step of ``factorized_sgd`` on factors that all have one magnitude, ``|r|``; writes everything but ``grads``.

    The weight is ``w = r |r|^(D - 1)``. If the depth is even, no step can change its sign: where r would pass through
    0, it comes back, with its momentum.

    Args:
        params: Weights; the other lists match them in length and shapes.
        grads: Gradients at ``params``.
        roots: The numbers r.
        momentums: Of r; empty without momentum.
        depth: D >= 2.
        lr: As in ``factorized_sgd``.
        decay: As in ``factorized_sgd``.
        momentum: As in ``factorized_sgd``.
        nesterov: As in ``factorized_sgd``.
        gate: As in ``factorized_sgd``.

    References:
        Schwarz et al., Powerpropagation (NeurIPS 2021), arXiv:2110.00296: the same as powerprop with learning rate
        ``lr / D`` and weight decay ``2 lam``.
    """
    slopes = add_scaled(multiply(grads, other_powers(roots, depth)), roots, decay)
    if momentums:
        slopes = _with_momentum(slopes, momentums, momentum, nesterov, gate)
    before = [] if depth % 2 else list(torch._foreach_sign(roots))
    add_scaled_(roots, slopes, -lr)
    if before:
        torch._foreach_mul_(before, roots)
        back = list(torch._foreach_sign(before))
        for moving in (roots, momentums) if momentums else (roots,):
            torch._foreach_mul_(moving, back)
    torch._foreach_copy_(params, roots)
    torch._foreach_mul_(params, other_powers(roots, depth))


def other_powers(roots: list[Tensor], depth: int) -> list[Tensor]:
    """``|r|^(D - 1)``, by multiplications: these are the same in every kernel."""
    sizes = list(torch._foreach_abs(roots))
    found = sizes
    for _ in range(depth - 2):
        found = multiply(found, sizes)
    return found
