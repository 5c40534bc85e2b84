"""Codes by coordinate descent: unit after unit, each one solved with all the others as they are now."""

from collections.abc import Iterable, Sequence

import torch

from openwork.altmin.codes import put_codes
from openwork.altmin.inertia import Inertia
from openwork.altmin.links import Link
from openwork.altmin.state import FLOOR, Layer
from openwork.altmin.weight_block import check_linear
from openwork.kernels import Scalar


def check_units(place: str, links: Sequence[Link]) -> None:
    """Refuse layers that do not read one code per unit.

    Args:
        place: For the message.
        links: That read codes.

    Raises:
        TypeError: If there is one.
    """
    check_linear(place, "Exact(solver='coordinates')", links)
    if any(link.fronts for link in links):
        raise TypeError(
            f"{place}: Exact(solver='coordinates') needs linear layers that read their codes directly, and there is "
            "Flatten or pooling between two layers; take the majorized steps"
        )


def coordinate_cycle(layer: Layer, following: Layer, inertia: Inertia) -> None:
    """Move every unit of a hidden layer once, its ``z`` and ``a = h(z)`` together.

    For unit j, with ``w_j`` the column of the following weight that reads it, the objective is
    ``rho/2 (z - c)^2 + tau_j/2 (h(z) - d)^2`` per sample, with ``tau_j = rho ||w_j||^2`` and
    ``d = a_j - w_j'R / ||w_j||^2``. It is solved globally, and the residual R of the following layer, taken along by a
    product of rank 1, is what the next unit sees. The curvature of one unit is far below that of the layer, which is
    what frees codes that can only jump.

    Args:
        layer: The hidden layer.
        following: The linear layer that reads its codes.
        inertia: Of this sweep. A unit is solved exactly, so only ``p1 - p2`` and ``p3`` act.
    """
    activation, a = layer.hidden
    z = layer.z
    target = layer.residual + z.now
    # One unit is one row here, in its own stretch of memory; clones, since rows are written.
    wanted = z.shifted(target, inertia.shift).T.contiguous()
    points, codes = z.now.T.clone(memory_format=torch.contiguous_format), a.now.T.contiguous()
    pull = following.pull.T.clone(memory_format=torch.contiguous_format)
    columns = following.link.weight.T.contiguous()
    squares = columns.square().sum(1).clamp(min=FLOOR)
    # Where reading them means no waiting, plain numbers save a good part of the many small operations.
    known: Iterable[Scalar] = map(float, squares) if squares.device.type == "cpu" else squares
    for unit, (column, square) in enumerate(zip(columns, known, strict=True)):
        own, now = activation.of_unit(unit), points[unit].clone()
        nearest = codes[unit] - torch.mv(pull.T, column) / square
        point = own.solve(wanted[unit], nearest, layer.rho, square * following.rho, now)
        points[unit] = own.project(inertia.relaxed(point, now))
        pull.addr_(column, own.forward(points[unit]) - codes[unit])
    point = points.T.contiguous()
    layer.residual = target - point
    layer.z = z.move(point)
    following.input_curvature = squares.amax()
    put_codes(layer, following, activation.forward(point), a)
