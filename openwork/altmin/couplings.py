"""How the codes ``a`` of a hidden layer are held to ``h(z)``: within a band, by a quadratic penalty, or exactly."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from openwork.altmin.code_steps import banded_code, banded_step, joint_step, penalized_code, penalized_step
from openwork.altmin.codes import correct_codes, exact_change, move_codes, pulled, put_codes
from openwork.altmin.coordinates import check_units, coordinate_cycle
from openwork.altmin.fronts import Flattening
from openwork.altmin.inertia import Inertia
from openwork.altmin.links import Link
from openwork.altmin.state import FLOOR, Layer, Problem, sum_of_squares
from openwork.altmin.weight_block import check_linear

__all__ = ["Band", "Coupling", "Exact", "QuadraticPenalty"]


class Coupling(ABC):
    """The tie between blocks z and a of every hidden layer; frozen configuration, its numbers live in the layers."""

    def check(self, place: str, links: Sequence[Link]) -> None:  # noqa: B027, most ties take any layers
        """Refuse layers that this tie cannot solve for.

        Args:
            place: For the message.
            links: Of the model.

        Raises:
            TypeError: If there is one.
        """

    @abstractmethod
    def z_step(self, layer: Layer, following: Layer, inertia: Inertia) -> None:
        """Move the block z of a hidden layer.

        Args:
            layer: The hidden layer.
            following: The layer that reads its codes.
            inertia: Of this sweep.
        """

    @abstractmethod
    def a_step(self, layer: Layer, following: Layer, inertia: Inertia) -> None:
        """Move the block a of a hidden layer; arguments as in ``z_step``."""

    def value(self, layer: Layer) -> Tensor:
        """What the tie of a hidden layer adds to the objective, 0-dim in double precision."""
        return layer.residual.new_zeros((), dtype=torch.float64)

    def gap(self, layer: Layer) -> Tensor:
        """The largest ``|a - h(z)|`` of a hidden layer, 0-dim."""
        activation, a = layer.hidden
        return (a.now - activation.forward(layer.z.now)).abs().amax()

    def prepare(self, layer: Layer) -> None:  # noqa: B027, a tie without numbers has nothing to prepare
        """Set the numbers of a hidden layer after the first forward pass."""

    def tighten(self, problem: Problem) -> bool:
        """Advance the schedule by one sweep.

        Args:
            problem: All layers.

        Returns:
            Whether objectives before and after are not comparable.
        """
        return False

    def settle(self, problem: Problem) -> None:  # noqa: B027, a tie without constraints is always satisfied
        """Make the codes satisfy the tie after something else moved them."""


@dataclass(frozen=True)
class Exact(Coupling):
    """``a = h(z)`` at all times: the pair moves together.

    The next link is majorized in ``a`` alone, ``a = h(z)`` is put in, and the problem that is left,
    ``rho/2 (z - c)^2 + tau/2 (h(z) - d)^2`` per entry, is solved globally. That lowers the objective for any
    activation, monotone or not, smooth or not, and needs no schedule.

    Args:
        solver: One majorized step for the whole layer, or unit after unit in turn. The latter lowers the objective
            more in a sweep, above all where codes can only jump, but takes a step per unit: for small layers.
        fresh: Whether the residual at the extrapolated codes is formed with the present weight; see
            ``MajorizedWeights``. Units in turn have no use for it.

    Raises:
        ValueError: If there is no such solver.
    """

    solver: Literal["majorized", "coordinates"] = "majorized"
    fresh: bool = False

    def __post_init__(self) -> None:
        if self.solver not in ("majorized", "coordinates"):
            raise ValueError(f"Exact: solver must be 'majorized' or 'coordinates', got {self.solver!r}")

    @override
    def check(self, place: str, links: Sequence[Link]) -> None:
        if self.solver == "coordinates":
            check_units(place, links[1:])

    @override
    def z_step(self, layer: Layer, following: Layer, inertia: Inertia) -> None:
        if self.solver == "coordinates":
            coordinate_cycle(layer, following, inertia)
            return
        activation, a = layer.hidden
        z, pull = layer.z, pulled(following, a, inertia, self.fresh)

        def step(curvature: Tensor) -> tuple[Tensor, ...]:
            numbers = (layer.rho, curvature, following.rho, inertia.p1, inertia.shift, inertia.p3)
            return layer.entrywise(
                joint_step, activation, numbers, (layer.residual, z.now, z.before, a.now, a.before, pull)
            )

        code, point, layer.residual = move_codes((a.now, z.now, layer.residual), following, step)
        layer.z = z.move(point)
        layer.a = a.move(code)

    @override
    def a_step(self, layer: Layer, following: Layer, inertia: Inertia) -> None:
        """Nothing: the codes move with z."""

    @override
    def gap(self, layer: Layer) -> Tensor:
        return layer.residual.new_zeros(())

    @override
    def settle(self, problem: Problem) -> None:
        for layer, following in zip(problem.layers, problem.layers[1:], strict=False):
            correct_codes(layer, following, layer.hidden[0].forward(layer.z.now))


@dataclass(frozen=True)
class QuadraticPenalty(Coupling):
    """The term ``nu/2 ||a - h(z)||^2`` in the objective.

    Args:
        nu: Weight, > 0; None for the ``rho`` of the layer.
        solver: Of block a: one majorized step, or the minimizer, by a factorization of the size of the layer.
        alpha: Weight of a proximal term ``alpha/2 (z - z_now)^2`` in block z, >= 0.
        fresh: Whether the residual at the extrapolated codes is formed with the present weight; see
            ``MajorizedWeights``.

    Raises:
        ValueError: If a number is out of range.

    References:
        Zeng, Lau, Lin & Yao, BCD, arXiv:1803.00225; Wang et al., dlADMM, arXiv:1905.13611.
    """

    nu: float | None = None
    solver: Literal["majorized", "exact"] = "majorized"
    alpha: float = 0.0
    fresh: bool = False

    def __post_init__(self) -> None:
        if self.nu is not None and not self.nu > 0:
            raise ValueError(f"QuadraticPenalty: nu must be > 0, or None for rho, got {self.nu}")
        if not self.alpha >= 0:
            raise ValueError(f"QuadraticPenalty: alpha must be >= 0, got {self.alpha}")
        if self.solver not in ("majorized", "exact"):
            raise ValueError(f"QuadraticPenalty: solver must be 'majorized' or 'exact', got {self.solver!r}")

    @override
    def check(self, place: str, links: Sequence[Link]) -> None:
        if self.solver == "exact":
            check_linear(place, "QuadraticPenalty(solver='exact')", links[1:])
            if any(not isinstance(front, Flattening) for link in links[1:] for front in link.fronts):
                raise TypeError(
                    f"{place}: QuadraticPenalty(solver='exact') needs linear layers that read their codes directly, "
                    "and there is pooling between two layers; take the majorized steps"
                )

    def weight(self, layer: Layer) -> float:
        """The ``nu`` of a layer."""
        return layer.rho if self.nu is None else self.nu

    @override
    def z_step(self, layer: Layer, following: Layer, inertia: Inertia) -> None:
        activation, a = layer.hidden
        z = layer.z
        numbers = (layer.rho, self.alpha, self.weight(layer), inertia.shift, inertia.p3)
        point, layer.residual = layer.entrywise(
            penalized_step, activation, numbers, (layer.residual, z.now, z.before, a.now)
        )
        layer.z = z.move(point)

    @override
    def a_step(self, layer: Layer, following: Layer, inertia: Inertia) -> None:
        activation, a = layer.hidden
        nu, z = self.weight(layer), layer.z.now
        if self.solver == "exact":
            target = activation.forward(z)
            gradient = following.link.adjoint(following.pull).mul_(following.rho).add_(a.now - target, alpha=nu)
            point = a.now - exact_change(following, gradient, nu)
            point = inertia.relaxed(a.shifted(point, inertia.shift), a.now)
            put_codes(layer, following, point, a)
            return
        pull = pulled(following, a, inertia, self.fresh)

        def step(curvature: Tensor) -> tuple[Tensor, ...]:
            numbers = (nu, curvature, following.rho, inertia.p1, inertia.p3)
            return layer.entrywise(penalized_code, activation, numbers, (z, a.now, a.before, pull))

        (code,) = move_codes((a.now,), following, step)
        layer.a = a.move(code)

    @override
    def value(self, layer: Layer) -> Tensor:
        activation, a = layer.hidden
        return sum_of_squares(a.now - activation.forward(layer.z.now)) * (self.weight(layer) / 2)


@dataclass(frozen=True)
class Band(Coupling):
    """The constraint ``|a - h(z)| <= eps`` per entry, for monotone activations, under which every block is convex.

    The width is what moves hidden layers: an active unit moves at most ``2 eps`` per sweep, so that a small one freezes
    them, while a large one fits a linear chain. The schedule of eps is thus a learning rate. Whenever it shrinks, the
    history is cleared and objectives are not compared.

    Args:
        start: Half width at the start, > 0; None for the largest ``|z|`` of the first forward pass, layer by layer.
        factor: What a sweep multiplies it by, in (0, 1].
        floor: Where that ends, > 0; None for 1 % of the root mean square of z at the start.
        fresh: Whether the residual at the extrapolated codes is formed with the present weight; see
            ``MajorizedWeights``.

    Raises:
        ValueError: If a number is out of range.

    References:
        Wang, Yu, Chen & Zhao, mDLAM, arXiv:1811.04187.
    """

    start: float | None = None
    factor: float = 0.9
    floor: float | None = None
    fresh: bool = False

    def __post_init__(self) -> None:
        for name, value in (("start", self.start), ("floor", self.floor)):
            if value is not None and not value > 0:
                raise ValueError(f"Band: {name} of eps must be > 0, got {value}; use Exact() for a band of width 0")
        if not 0 < self.factor <= 1:
            raise ValueError(f"Band: factor must be in (0, 1], got {self.factor}")

    @override
    def prepare(self, layer: Layer) -> None:
        z = layer.z.now
        if z.numel():
            layer.hidden[0].interval(z[:1] - 1, z[:1] + 1)  # refuses what is not monotone
        layer.eps = z.abs().amax() if self.start is None else z.new_tensor(self.start)
        rms = z.square().mean().sqrt() / 100
        floor = rms if self.floor is None else z.new_tensor(self.floor)
        layer.eps_floor = torch.minimum(floor, layer.eps).clamp(min=FLOOR)
        layer.eps = layer.eps.clamp(min=FLOOR)

    @override
    def tighten(self, problem: Problem) -> bool:
        pairs = [widths(layer) for layer in problem.layers[:-1]]
        # At its floor the band stays as it is, and history and objective with it.
        if self.factor == 1 or not any(bool(eps > floor) for eps, floor in pairs):
            return False
        for layer, (eps, floor) in zip(problem.layers, pairs, strict=False):
            layer.eps = torch.maximum(eps * self.factor, floor)
        self.settle(problem)
        return True

    @override
    def settle(self, problem: Problem) -> None:
        for layer, following in zip(problem.layers, problem.layers[1:], strict=False):
            activation, a = layer.hidden
            eps, _ = widths(layer)
            # Clipping z first would move the codes less, but the interval may be empty now.
            value = activation.forward(layer.z.now)
            correct_codes(layer, following, a.now.clamp(value - eps, value + eps))
        problem.forget()

    @override
    def z_step(self, layer: Layer, following: Layer, inertia: Inertia) -> None:
        activation, a = layer.hidden
        z = layer.z
        numbers = (widths(layer)[0], inertia.shift, inertia.p3)
        point, layer.residual = layer.entrywise(
            banded_step, activation, numbers, (layer.residual, z.now, z.before, a.now)
        )
        layer.z = z.move(point)

    @override
    def a_step(self, layer: Layer, following: Layer, inertia: Inertia) -> None:
        activation, a = layer.hidden
        pull = pulled(following, a, inertia, self.fresh)

        def step(curvature: Tensor) -> tuple[Tensor, ...]:
            numbers = (widths(layer)[0], curvature, inertia.p1, inertia.p3)
            return layer.entrywise(banded_code, activation, numbers, (layer.z.now, a.now, a.before, pull))

        (code,) = move_codes((a.now,), following, step)
        layer.a = a.move(code)


def widths(layer: Layer) -> tuple[Tensor, Tensor]:
    """The present and the smallest half width of a layer's band.

    Raises:
        RuntimeError: If the layer has no band.
    """
    if layer.eps is None or layer.eps_floor is None:
        raise RuntimeError("the layer has no band; prepare it first")
    return layer.eps, layer.eps_floor
