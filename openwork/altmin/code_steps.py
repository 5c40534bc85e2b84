"""Steps of the codes as functions of single entries, which run as they are or compiled into one loop.

All take the activation, numbers, and then tensors of one shape, some of which are None where there is no history.
"""

import torch
from torch import Tensor

from openwork.altmin.elementwise import Activation
from openwork.altmin.inertia import Iterate, relaxed
from openwork.kernels import Scalar


def joint_step(
    activation: Activation,
    numbers: tuple[Scalar, ...],
    residual: Tensor,
    z: Tensor,
    z_before: Tensor | None,
    a: Tensor,
    a_before: Tensor | None,
    pull: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The pair ``(z, a)`` with ``a = h(z)``.

    Args:
        activation: The function h.
        numbers: ``rho`` of the link before, curvature and ``rho`` of the link behind, p1, p1 - p2, p3.
        residual: Of the link before.
        z: Block z.
        z_before: One sweep ago.
        a: Block a.
        a_before: One sweep ago.
        pull: Of the link behind: its adjoint applied to its residual at the extrapolated codes.

    Returns:
        The codes, z, and the residual of the link before.
    """
    rho, curvature, rho_behind, p1, shift, p3 = numbers
    target = residual + z
    wanted = Iterate(z, z_before).shifted(target, shift)
    base = Iterate(a, a_before).ahead(p1)
    point = activation.solve(wanted, base - pull / curvature, rho, curvature * rho_behind, z)
    point = activation.project(relaxed(point, z, p3))
    return activation.forward(point), point, target - point


def penalized_step(
    activation: Activation,
    numbers: tuple[Scalar, ...],
    residual: Tensor,
    z: Tensor,
    z_before: Tensor | None,
    a: Tensor,
) -> tuple[Tensor, Tensor]:
    """The block z under the term ``nu/2 ||a - h(z)||^2``.

    Args:
        activation: The function h.
        numbers: ``rho``, weight of the proximal term, ``nu``, p1 - p2, p3.
        residual: Of the link before.
        z: Block z.
        z_before: One sweep ago.
        a: Block a.

    Returns:
        Block z, and the residual of the link before.
    """
    rho, alpha, nu, shift, p3 = numbers
    target = residual + z
    wanted = Iterate(z, z_before).shifted(target.lerp(z, alpha / (rho + alpha)), shift)
    point = activation.project(relaxed(activation.solve(wanted, a, rho + alpha, nu, z), z, p3))
    return point, target - point


def penalized_code(
    activation: Activation,
    numbers: tuple[Scalar, ...],
    z: Tensor,
    a: Tensor,
    a_before: Tensor | None,
    pull: Tensor,
) -> tuple[Tensor]:
    """The block a under the same term.

    Args:
        activation: The function h.
        numbers: ``nu``, curvature and ``rho`` of the link behind, p1, p3.
        z: Block z.
        a: Block a.
        a_before: One sweep ago.
        pull: As in ``joint_step``.

    Returns:
        Block a.
    """
    nu, curvature, rho, p1, p3 = numbers
    target, tau = activation.forward(z), curvature * rho
    base = Iterate(a, a_before).ahead(p1)
    point = (base - target).mul_(tau).sub_(pull * rho).div_(tau + nu).add_(target)
    return (relaxed(point, a, p3),)


def banded_step(
    activation: Activation,
    numbers: tuple[Scalar, ...],
    residual: Tensor,
    z: Tensor,
    z_before: Tensor | None,
    a: Tensor,
) -> tuple[Tensor, Tensor]:
    """The block z under the constraint ``|a - h(z)| <= eps``.

    Args:
        activation: The function h.
        numbers: ``eps``, p1 - p2, p3.
        residual: Of the link before.
        z: Block z.
        z_before: One sweep ago.
        a: Block a.

    Returns:
        Block z, and the residual of the link before.
    """
    eps, shift, p3 = numbers
    target = residual + z
    low, high = activation.interval(a - eps, a + eps)
    # z is in the interval, though its ends may say otherwise where h is flat to the last digit.
    low, high = torch.minimum(low, z), torch.maximum(high, z)
    point = Iterate(z, z_before).shifted(target, shift).clamp(low, high)
    point = relaxed(point, z, p3).clamp(low, high)
    return point, target - point


def banded_code(
    activation: Activation,
    numbers: tuple[Scalar, ...],
    z: Tensor,
    a: Tensor,
    a_before: Tensor | None,
    pull: Tensor,
) -> tuple[Tensor]:
    """The block a under the same constraint.

    Args:
        activation: The function h.
        numbers: ``eps``, curvature of the link behind, p1, p3.
        z: Block z.
        a: Block a.
        a_before: One sweep ago.
        pull: As in ``joint_step``.

    Returns:
        Block a.
    """
    eps, curvature, p1, p3 = numbers
    value = activation.forward(z)
    low, high = value - eps, value + eps
    point = (Iterate(a, a_before).ahead(p1) - pull / curvature).clamp(low, high)
    return (relaxed(point, a, p3).clamp(low, high),)
