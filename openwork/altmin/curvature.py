"""Majorized steps: a curvature is carried from sweep to sweep, and every step confirms or doubles it."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from openwork.altmin.state import FLOOR, sum_of_squares

# A block whose curvature has to grow by 2^30 in one step is not a matter of step size.
DOUBLINGS = 30
# The power iteration approaches the largest eigenvalue from below.
MARGIN = 1.02
# What a sweep takes off a curvature that was doubled once, as long as the estimate allows it.
RELIEF = 1.1


class Step(NamedTuple):
    """A step along which the curvature was confirmed.

    Args:
        point: The block after the step, and whatever else moved with it.
        image: The linear map applied to the change of the first of these.
        curvature: What confirmed it, 0-dim.
    """

    point: tuple[Tensor, ...]
    image: Tensor
    curvature: Tensor


def carried(estimate: Tensor, before: Tensor) -> Tensor:
    """The curvature to begin a step with.

    Args:
        estimate: Largest eigenvalue from below, 0-dim.
        before: The curvature of the last sweep, 0-dim.
    """
    return torch.maximum(estimate * MARGIN, before / RELIEF).clamp(min=FLOOR)


def majorized(
    now: tuple[Tensor, ...],
    curvature: Tensor,
    step: Callable[[Tensor], tuple[Tensor, ...]],
    linear: Callable[[Tensor], Tensor],
) -> Step:
    """Take a step whose curvature ``||A d||^2 <= curvature ||d||^2`` holds along its own change d.

    For the quadratic ``rho/2 ||A u - t||^2 + mu/2 ||u||^2`` this is the usual test of the descent lemma with
    ``theta = rho curvature + mu``, free of rounding, and the one product that it needs updates the residual as well.
    On a device nobody waits for the test: a step that fails it is not taken, and the next one has twice the curvature.

    Args:
        now: The block, first, and whatever else moves with it.
        curvature: To begin with, 0-dim.
        step: The points that a curvature leads to.
        linear: The linear map A.

    Returns:
        The step.

    Raises:
        FloatingPointError: If no curvature within 30 doublings will do.
    """
    for _ in range(DOUBLINGS + 1):
        point = step(curvature)
        change = point[0] - now[0]
        image = linear(change)
        steep = sum_of_squares(image) > curvature * sum_of_squares(change)
        if steep.device.type != "cpu":
            kept = tuple(torch.where(steep, old, new) for old, new in zip(now, point, strict=True))
            return Step(kept, image * ~steep, torch.where(steep, 2 * curvature, curvature))
        if not steep:
            return Step(point, image, curvature)
        curvature = 2 * curvature
    raise FloatingPointError(too_steep(curvature))


def too_steep(curvature: Tensor) -> str:
    """What to say when no step size fits.

    Args:
        curvature: The last one tried.
    """
    return (
        f"AMTrainer: no step size fits a block, though its curvature was doubled {DOUBLINGS} times to "
        f"{float(curvature):.3g}; scale the inputs to about unit size"
    )
