"""Moves of the codes of a hidden layer: the pull of the layer that reads them, and the residual that goes along."""

from collections.abc import Callable

import torch
from torch import Tensor

from openwork.altmin.curvature import carried, majorized
from openwork.altmin.inertia import Inertia, Iterate
from openwork.altmin.state import FLOOR, Layer


def pulled(following: Layer, a: Iterate, inertia: Inertia, fresh: bool) -> Tensor:
    """What the following link says about the codes it reads.

    Args:
        following: The layer that reads the codes.
        a: Block a.
        inertia: Of this sweep.
        fresh: Whether the residual at the extrapolated codes is formed with the present weight of the following layer
            instead of the one of the last sweep.

    Returns:
        Its adjoint applied to its residual at the extrapolated codes; times ``rho``, the gradient there.
    """
    residual = following.pull
    if inertia.p2 and a.before is not None:
        push = following.input_push
        if push is None or fresh:
            push = following.link.forward(a.now - a.before)
        residual = residual.add(push, alpha=inertia.p2)
    return following.link.adjoint(residual)


def move_codes(
    now: tuple[Tensor, ...], following: Layer, step: Callable[[Tensor], tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    """Take a majorized step with the codes, and move the residual of the following layer along.

    Args:
        now: The codes, and whatever else moves with them.
        following: The layer that reads the codes.
        step: The points that a curvature of the following link leads to.

    Returns:
        The points.
    """
    link = following.link
    start = carried(link.input_curvature(), following.input_curvature)
    point, image, following.input_curvature = majorized(now, start, step, link.forward)
    following.residual = following.residual + image
    following.input_push = image
    return point


def put_codes(layer: Layer, following: Layer, code: Tensor, a: Iterate) -> None:
    """Set the codes of a layer, and move the residual of the following layer along.

    Args:
        layer: The hidden layer.
        following: The layer that reads the codes.
        code: The new codes.
        a: Block a, with the old ones.
    """
    image = following.link.forward(code - a.now)
    following.residual = following.residual + image
    following.input_push = image
    layer.a = a.move(code)


def correct_codes(layer: Layer, following: Layer, code: Tensor) -> None:
    """Put codes where the tie wants them, outside of a step: like ``put_codes``, but the history stays as it is.

    Args:
        layer: The hidden layer.
        following: The layer that reads the codes.
        code: The new codes.
    """
    _, a = layer.hidden
    following.residual = following.residual + following.link.forward(code - a.now)
    layer.a = Iterate(code, a.before)


def exact_change(following: Layer, gradient: Tensor, nu: float) -> Tensor:
    """Solve ``(rho W' W + nu) change = gradient`` for the codes that a linear layer reads.

    Args:
        following: The layer that reads the codes.
        gradient: One row per sample.
        nu: Weight of the activation's term, > 0.

    Returns:
        The change, shaped like the gradient.
    """
    weight = following.link.weight
    hessian = torch.mm(weight.T, weight).mul_(following.rho)
    hessian.diagonal().add_(max(nu, FLOOR))
    factor, _ = torch.linalg.cholesky_ex(hessian.to(torch.float64))
    change = torch.cholesky_solve(gradient.flatten(1).T.to(torch.float64), factor)
    return change.T.to(gradient.dtype).reshape(gradient.shape)
