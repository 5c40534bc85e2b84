"""Blocks W and b: a majorized proximal step or an exact solution, then the mean residual."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from openwork.altmin.curvature import carried, majorized
from openwork.altmin.inertia import Inertia, Iterate
from openwork.altmin.links import LinearLink, Link
from openwork.altmin.state import FLOOR, Factor, Layer, per_feature
from openwork.altmin.sums import Sums

__all__ = ["ExactWeights", "MajorizedWeights", "WeightSolver"]

# Of the trace of x' x, in units of its rounding: what makes a singular matrix one that can be factored.
SINGULAR = 4.0


class WeightSolver(ABC):
    """How the block W of a layer is updated; frozen configuration, safe to share."""

    @abstractmethod
    def step(self, layer: Layer, x: Tensor, inertia: Inertia, *, constant: bool) -> None:
        """Move the weight of a layer, and its residual along.

        Args:
            layer: The layer.
            x: Its input.
            inertia: Of this sweep.
            constant: Whether the input is the same in every sweep.
        """

    @abstractmethod
    def step_by_sums(self, layer: Layer, sums: Sums, inertia: Inertia, *, constant: bool) -> None:
        """Move the weight of a linear layer that is known by sums over its samples; the residuals stay theirs.

        Args:
            layer: The layer.
            sums: With its present residuals.
            inertia: Of this sweep.
            constant: Whether the input is the same in every sweep.
        """


@dataclass(frozen=True)
class MajorizedWeights(WeightSolver):
    """One proximal gradient step with a curvature that is estimated once per sweep and confirmed by the step.

    ``Wbar = prox(W~ - G / theta)`` with the gradient ``G = rho R a' + mu W`` at the extrapolated point and
    ``theta = rho lambda_max(a a') + mu``: two products per layer. A penalized weight takes no third step, which would
    leave the exact zeros of the proximal point.

    Args:
        fresh: Whether the residual at the extrapolated point is formed with the present input, by one more product
            (behind the first layer), instead of the input of the last sweep. The difference is of second order: it is
            the last change of the weight times the last change of the input.

    References:
        Wang et al., mDLAM, arXiv:1811.04187: the majorized block. Yan et al., TIAM, arXiv:2503.08489: three inertias.
    """

    fresh: bool = False

    @override
    def step(self, layer: Layer, x: Tensor, inertia: Inertia, *, constant: bool) -> None:
        link, weight = layer.link, layer.weight
        residual = layer.pull
        if inertia.p2 and weight.before is not None:
            push = layer.weight_push
            if push is None or (self.fresh and not constant):
                push = link.map_with(weight.now - weight.before, x)
            residual = residual.add(push, alpha=inertia.p2)
        step = proximal_step(layer, link.weight_grad(x, residual), inertia)
        if not constant:
            layer.weight_curvature = carried(link.weight_curvature(x), layer.weight_curvature)
        (point,), image, layer.weight_curvature = majorized(
            (weight.now,), layer.weight_curvature, step, lambda change: link.map_with(change, x)
        )
        layer.residual = layer.residual + image
        layer.weight_push = image
        layer.set_weight(point)

    @override
    def step_by_sums(self, layer: Layer, sums: Sums, inertia: Inertia, *, constant: bool) -> None:
        weight = layer.weight
        push = None if inertia.p2 == 0 or weight.before is None else (weight.now - weight.before).mul_(inertia.p2)
        step = proximal_step(layer, sums.gradient(push).to(weight.now.dtype), inertia)
        if not constant:
            layer.weight_curvature = carried(gram_curvature(layer.link, sums), layer.weight_curvature)
        (point,), _, layer.weight_curvature = majorized((weight.now,), layer.weight_curvature, step, sums.length)
        layer.set_weight(point)


@dataclass(frozen=True)
class ExactWeights(WeightSolver):
    """The minimizer of ``rho/2 ||W a + b - z||^2 + mu/2 ||W||^2 + t/2 ||W - W_now||^2``, by a Cholesky factorization.

    It costs one product more than a majorized step, behind the first layer, and lowers the objective much further:
    inputs whose mean is far from zero, or of very different size, do not slow it down. The factor of the first layer is
    kept. Of inertia only the shift ``(p1 - p2)(W - W_before)`` and the third step are left. Layers that have no such
    solution, or are too wide for it, take the majorized step: penalized weights, convolutions, more than ``limit``
    inputs.

    Args:
        t: Weight of the proximal term, >= 0.
        limit: Most inputs of a layer, >= 0; time and memory of the factorization grow with their cube and square.

    Raises:
        ValueError: If a number is negative.

    References:
        Zeng, Lau, Lin & Yao, BCD, arXiv:1803.00225, who call the weight of the proximal term alpha.
    """

    t: float = 0.0
    limit: int = 2048

    def __post_init__(self) -> None:
        if not self.t >= 0:
            raise ValueError(f"ExactWeights: t must be >= 0, got {self.t}")
        if self.limit < 0:
            raise ValueError(f"ExactWeights: limit must be a number of inputs >= 0, got {self.limit}")

    @override
    def step(self, layer: Layer, x: Tensor, inertia: Inertia, *, constant: bool) -> None:
        link, now = layer.link, layer.weight.now
        if not isinstance(link, LinearLink) or not self._solvable(layer):
            return MajorizedWeights().step(layer, x, inertia, constant=constant)
        gradient = link.weight_grad(x, layer.pull)
        point = ridge_point(layer, gradient, lambda: link.gram(x), self.t, inertia, constant=constant)
        image = link.map_with(point - now, x)
        layer.residual = layer.residual + image
        layer.weight_push = image
        layer.set_weight(point)

    @override
    def step_by_sums(self, layer: Layer, sums: Sums, inertia: Inertia, *, constant: bool) -> None:
        if not self._solvable(layer):
            return MajorizedWeights(fresh=True).step_by_sums(layer, sums, inertia, constant=constant)
        gradient = sums.gradient(None).to(layer.weight.now.dtype)
        layer.set_weight(ridge_point(layer, gradient, lambda: sums.aa, self.t, inertia, constant=constant))

    def _solvable(self, layer: Layer) -> bool:
        return not layer.penalized and layer.weight.now.flatten(1).shape[1] <= self.limit


def proximal_step(layer: Layer, gradient: Tensor, inertia: Inertia) -> Callable[[Tensor], tuple[Tensor]]:
    """The majorized step of a weight: where a curvature of ``||A W||^2 / 2`` leads to.

    Args:
        layer: The layer.
        gradient: Of ``||R||^2 / 2`` at the extrapolated weight; written.
        inertia: Of this sweep.
    """
    weight, rho, mu = layer.weight, layer.rho, layer.mu
    gradient = gradient.mul_(rho)
    if mu:
        gradient.add_(weight.ahead(inertia.p2), alpha=mu)
    base = weight.ahead(inertia.p1)
    if layer.penalized:
        inertia = inertia.without_relaxation()

    def step(curvature: Tensor) -> tuple[Tensor]:
        theta = (curvature * rho + mu).clamp(min=FLOOR)
        point = base - gradient / theta
        if layer.penalized:
            point = layer.penalty.prox(point, layer.penalty_weight / theta)
        return (inertia.relaxed(point, weight.now),)

    return step


def ridge_point(
    layer: Layer, gradient: Tensor, gram: Callable[[], Tensor], t: float, inertia: Inertia, *, constant: bool
) -> Tensor:
    """The exact solution of the block W of a linear layer, and on by inertia.

    Args:
        layer: The layer.
        gradient: Of ``||R||^2 / 2`` at the present weight; written.
        gram: Gives ``x' x`` of the input.
        t: Weight of the proximal term.
        inertia: Of this sweep.
        constant: Whether the input is the same in every sweep, so that its factor is kept.
    """
    now = layer.weight.now
    gradient = gradient.mul_(layer.rho).add_(now, alpha=layer.mu).flatten(1)
    # Divided by rho, the matrix stays the same when rho and mu grow together.
    ridge = (layer.mu + t) / layer.rho
    if layer.factor is not None and layer.factor.ridge == ridge:
        factor = layer.factor.matrix
    else:
        rounding = SINGULAR * torch.finfo(now.dtype).eps
        hessian = gram().to(torch.float64, copy=True)
        # A small proximal term, for samples that are fewer than their features, and for rounding errors.
        hessian.diagonal().add_(ridge + hessian.trace() * rounding + FLOOR)
        factor, failed = torch.linalg.cholesky_ex(hessian)
        # What has no factor all the same becomes NaN, which the safeguard sees.
        factor = torch.where(failed > 0, torch.nan, factor)
        if constant:
            layer.factor = Factor(ridge, factor)
    change = torch.cholesky_solve(gradient.T.to(torch.float64), factor).T.to(now.dtype) / layer.rho
    return inertia.relaxed(layer.weight.shifted(now - change.reshape(now.shape), inertia.shift), now)


def gram_curvature(link: Link, sums: Sums, iterations: int = 4) -> Tensor:
    """What ``link.weight_curvature`` gives, from sums; linear layers only.

    Args:
        link: The layer.
        sums: Over its inputs.
        iterations: Of the power method.

    Raises:
        TypeError: If the layer is another one.
    """
    if not isinstance(link, LinearLink):
        raise TypeError(f"sums over samples need linear layers, got {type(link.layer).__name__}")
    return link.gram_curvature(sums.aa, iterations).to(link.weight)


def bias_step(layer: Layer, inertia: Inertia) -> None:
    """Move the bias to where the mean residual is zero, and on by inertia; the residual goes along."""
    if layer.bias is None:
        return
    now = layer.bias.now
    point = bias_point(layer.bias, layer.link.bias_mean(layer.pull), inertia)
    layer.residual = layer.residual + per_feature(point - now, layer.residual)
    layer.set_bias(point)


def bias_step_by_sums(layer: Layer, sums: Sums, inertia: Inertia) -> None:
    """The same for a linear layer whose samples are known by sums, after its weight moved."""
    if layer.bias is None or layer.weight.before is None:
        return
    mean = sums.mean_residual(layer.weight.now - layer.weight.before)
    layer.set_bias(bias_point(layer.bias, mean, inertia))


def bias_point(bias: Iterate, mean: Tensor, inertia: Inertia) -> Tensor:
    """Where the mean residual is zero, and on by inertia.

    Args:
        bias: Block b.
        mean: Residual at the block.
        inertia: Of this sweep.
    """
    return inertia.relaxed(bias.shifted(bias.now - mean, inertia.shift), bias.now)


def check_linear(place: str, what: str, links: Sequence[Link]) -> None:
    """Refuse layers that are not plain matrices.

    Args:
        place: For the message.
        what: Asks for it.
        links: Layers.

    Raises:
        TypeError: If one is no linear layer.
    """
    for link in links:
        if not isinstance(link, LinearLink):
            raise TypeError(
                f"{place}: {what} needs linear layers, the model has a {type(link.layer).__name__}; "
                "take the majorized steps"
            )
