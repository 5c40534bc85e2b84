"""What alternating minimization holds: the layers with their blocks, and the problem they are the blocks of."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from openwork.altmin.elementwise import Activation
from openwork.altmin.entrywise import Entrywise, eager
from openwork.altmin.fronts import Selection
from openwork.altmin.inertia import Iterate
from openwork.altmin.links import Link
from openwork.altmin.losses import OutputLoss
from openwork.penalties import Penalty, Zero

__all__ = ["Layer", "Problem"]

# Curvatures may be 0 (dead inputs, a zero weight), and steps divide by them.
FLOOR = 1e-12


class Factor(NamedTuple):
    """A Cholesky factor.

    Args:
        ridge: What was added to the diagonal of the matrix.
        matrix: The factor, lower triangular.
    """

    ridge: float
    matrix: Tensor


@dataclass(eq=False)
class Layer:
    """One weight layer with its blocks. Updates put new tensors in place of old ones and never write into them.

    A copy of the object is thus a snapshot, free of cost. Only the module's weight is written in place, by ``set_``.

    Args:
        link: The weight layer.
        activation: What follows it; None at the output.
        rho: Weight of the link's term ``rho/2 ||W a + b - z||^2``, > 0.
        mu: Weight of ``mu/2 ||W||^2``, >= 0.
        penalty: Of the weight.
        penalty_weight: Factor of the penalty: the number of samples, since losses are sums here.
        weight: Block W.
        bias: Block b; None if the layer has none.
        z: Block z.
        a: Block a, at hidden layers.
        residual: ``W a + b - z``, kept up to date by every block.
        dual: Multiplier of the link over ``rho``; None for none.
        weight_push: ``(W - W_before)`` applied to the layer's input.
        input_push: ``W`` applied to the last change of the layer's input.
        weight_curvature: Largest eigenvalue of ``||A x||^2 / 2`` in the weight, confirmed by the steps taken.
        input_curvature: The same in the layer's input.
        eps: Half width of the band around the activation, where the coupling has one.
        eps_floor: The smallest half width that the schedule goes to.
        factor: Of ``x' x`` of the input, where it never changes and a solver formed it.
        entrywise: How functions of single entries are computed.
    """

    link: Link
    activation: Activation | None
    weight: Iterate
    bias: Iterate | None
    z: Iterate
    a: Iterate | None
    residual: Tensor
    weight_curvature: Tensor
    input_curvature: Tensor
    rho: float = 1.0
    mu: float = 0.0
    penalty: Penalty = field(default_factory=Zero)
    penalty_weight: float = 1.0
    dual: Tensor | None = None
    weight_push: Tensor | None = None
    input_push: Tensor | None = None
    eps: Tensor | None = None
    eps_floor: Tensor | None = None
    factor: Factor | None = None
    entrywise: Entrywise = eager

    @property
    def penalized(self) -> bool:
        """Whether the weight has a penalty besides the smooth one."""
        return not isinstance(self.penalty, Zero)

    @property
    def pull(self) -> Tensor:
        """The residual, less the multiplier: its product with ``rho`` is the gradient of the link's term in ``W a``."""
        return self.residual if self.dual is None else self.residual - self.dual

    @property
    def hidden(self) -> tuple[Activation, Iterate]:
        """The activation and the block a of a hidden layer.

        Raises:
            RuntimeError: If this is the output layer.
        """
        if self.activation is None or self.a is None:
            raise RuntimeError("the output layer has no activation and no codes")
        return self.activation, self.a

    def set_weight(self, weight: Tensor) -> None:
        """Move the block W and write it into the module."""
        self.weight = self.weight.move(weight)
        self.link.weight.copy_(weight)

    def set_bias(self, bias: Tensor) -> None:
        """Move the block b and write it into the module."""
        if self.bias is not None and self.link.bias is not None:
            self.bias = self.bias.move(bias)
            self.link.bias.copy_(bias)

    def write_back(self) -> None:
        """Write W and b into the module."""
        self.link.weight.copy_(self.weight.now)
        if self.bias is not None and self.link.bias is not None:
            self.link.bias.copy_(self.bias.now)

    def forget(self) -> None:
        """Clear the history, so that the next step has no inertia."""
        self.weight, self.z = self.weight.rest(), self.z.rest()
        self.bias = None if self.bias is None else self.bias.rest()
        self.a = None if self.a is None else self.a.rest()
        self.weight_push = self.input_push = None

    def recompute(self, x: Tensor) -> None:
        """Compute the residual from scratch, which removes the rounding errors of many updates.

        Args:
            x: Input of the layer.
        """
        target = self.link.map_with(self.weight.now, x)
        if self.bias is not None:
            target = target + per_feature(self.bias.now, target)
        self.residual = target - self.z.now


@dataclass(eq=False)
class Problem:
    """The function that a sweep lowers, block by block.

    Args:
        x: Inputs, samples as rows.
        y: Targets, one row or entry per sample.
        loss: Of the outputs, summed over samples.
        layers: In order; the last one gives the outputs.
    """

    x: Tensor
    y: Tensor
    loss: OutputLoss
    layers: list[Layer]

    def input_of(self, index: int) -> Tensor:
        """What a layer reads: the samples, or the codes of the layer before."""
        return self.x if index == 0 else self.layers[index - 1].hidden[1].now

    @property
    def size(self) -> int:
        """Number of samples."""
        return self.x.shape[0]

    def surrogate_loss(self) -> Tensor:
        """Loss of the block z of the output layer, a sum over samples."""
        return self.loss.value(self.layers[-1].z.now, self.y).to(torch.float64)

    def forget(self) -> None:
        """Clear the history of every block."""
        for layer in self.layers:
            layer.forget()

    def select(self) -> bool:
        """Let max-pooling select anew by the present codes, and go on with the links that result.

        Returns:
            Whether there is any, so that objectives before and after are not comparable.
        """
        changed = False
        for index, layer in enumerate(self.layers):
            if any(isinstance(front, Selection) for front in layer.link.fronts):
                x = self.input_of(index)
                layer.link.refresh(x)
                layer.recompute(x)
                layer.weight_push = layer.input_push = None
                changed = True
        return changed

    def project(self) -> None:
        """Move every hidden block z to where its activation allows it, after that changed; histories are cleared."""
        for layer in self.layers:
            if layer.activation is not None:
                point = layer.activation.project(layer.z.now)
                layer.residual = layer.residual + (layer.z.now - point)
                layer.z = Iterate(point)
        self.forget()

    def recompute(self) -> None:
        """Compute every residual from scratch."""
        for index, layer in enumerate(self.layers):
            layer.recompute(self.input_of(index))


def total(x: Tensor) -> Tensor:
    """Sum of all entries, in double precision where that is fast."""
    return x.sum(dtype=torch.float64) if x.device.type == "cpu" else x.sum().to(torch.float64)


def sum_of_squares(x: Tensor) -> Tensor:
    """``||x||^2``, accumulated as ``total`` does."""
    if x.device.type != "cpu" or x.dtype == torch.float64 or x.ndim < 2:
        return total(x.square())
    # Norms of rows read the entries once; a conversion to double precision would take ten times as long.
    return torch.linalg.vector_norm(x.flatten(1), dim=1).to(torch.float64).square().sum()


def dot(x: Tensor, y: Tensor) -> Tensor:
    """``<x, y>``, accumulated as ``total`` does."""
    return total(x * y)


def per_feature(v: Tensor, like: Tensor) -> Tensor:
    """One number per feature in a form that broadcasts against samples, ``(1, features, 1, ...)``."""
    return v.reshape(1, -1, *([1] * (like.ndim - 2)))
