"""Weight layers as linear maps: the map, its adjoint, its gradient, its norms."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from typing_extensions import override

from openwork.altmin.activations import activation_of
from openwork.altmin.elementwise import Activation


class Link(ABC):
    """A weight layer and the linear maps in front of it, ``x -> A x + b``, with samples as rows.

    Args:
        layer: The layer; its weight and bias stay its parameters.
        front: Linear maps without weights between the layer and the activation before it, in order.
    """

    def __init__(self, layer: nn.Linear, front: tuple[nn.Module, ...] = ()) -> None:
        self.layer = layer
        self.front = front
        self._shape: torch.Size | None = None

    @property
    def weight(self) -> Tensor:
        """The layer's weight, without its history."""
        return self.layer.weight.detach()

    @property
    def bias(self) -> Tensor | None:
        """The layer's bias, without its history; None if it has none."""
        bias = self.layer.bias
        return None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """``A x`` with the present weight, without bias."""
        return self.map_with(self.weight, x)

    @abstractmethod
    def map_with(self, weight: Tensor, x: Tensor) -> Tensor:
        """``A x`` with another weight, without bias."""

    @abstractmethod
    def adjoint(self, r: Tensor) -> Tensor:
        """``A' r``, of the shape of the inputs last seen by ``forward``."""

    @abstractmethod
    def weight_grad(self, x: Tensor, r: Tensor) -> Tensor:
        """The gradient of ``<A x, r>`` in the weight."""

    @abstractmethod
    def bias_add(self, z: Tensor) -> Tensor:
        """``z + b``, a new tensor; ``z`` itself if the layer has no bias."""

    @abstractmethod
    def bias_mean(self, r: Tensor) -> Tensor:
        """Mean over samples and positions, one number per output feature."""

    @abstractmethod
    def weight_curvature(self, x: Tensor, iterations: int = 4) -> Tensor:
        """Largest eigenvalue of the Hessian of ``||A x||^2 / 2`` in the weight, from below, a 0-dim tensor."""

    @abstractmethod
    def input_curvature(self, iterations: int = 4) -> Tensor:
        """Largest eigenvalue of ``A' A``, from below, a 0-dim tensor."""

    @abstractmethod
    def macs(self, n: int) -> int:
        """Multiply-accumulates of ``A x`` for n samples."""


class LinearLink(Link):
    """``nn.Linear``, possibly behind a Flatten."""

    def _inputs(self, x: Tensor) -> Tensor:
        self._shape = x.shape
        return x.flatten(1)

    @override
    def map_with(self, weight: Tensor, x: Tensor) -> Tensor:
        return torch.mm(self._inputs(x), weight.T)

    @override
    def adjoint(self, r: Tensor) -> Tensor:
        flat = torch.mm(r, self.weight)
        return flat if self._shape is None else flat.view(-1, *self._shape[1:])

    @override
    def weight_grad(self, x: Tensor, r: Tensor) -> Tensor:
        return torch.mm(r.T, self._inputs(x))

    @override
    def bias_add(self, z: Tensor) -> Tensor:
        return z if self.bias is None else z + self.bias

    @override
    def bias_mean(self, r: Tensor) -> Tensor:
        return r.mean(0)

    def gram(self, x: Tensor) -> Tensor:
        """``x' x`` of the flattened inputs: the Hessian of ``||A x||^2 / 2`` in each row of the weight."""
        flat = self._inputs(x)
        return torch.mm(flat.T, flat)

    @override
    def weight_curvature(self, x: Tensor, iterations: int = 4) -> Tensor:
        flat = self._inputs(x)
        return torch.linalg.matrix_norm(flat, 2).square()

    @override
    def input_curvature(self, iterations: int = 4) -> Tensor:
        return torch.linalg.matrix_norm(self.weight, 2).square()

    @override
    def macs(self, n: int) -> int:
        return n * self.layer.in_features * self.layer.out_features


def links_of(model: nn.Sequential) -> tuple[list[Link], list[Activation]]:
    """The links of a model and the activations between them, one less.

    Args:
        model: Weight layers, activations, and Flatten in front of weight layers.
    """
    links: list[Link] = []
    activations: list[Activation] = []
    front: list[nn.Module] = []
    for module in model:
        match module:
            case nn.Linear():
                links.append(LinearLink(module, tuple(front)))
                front = []
            case nn.Flatten():
                front.append(module)
            case _:
                activations.append(activation_of(module))
    return links, activations
