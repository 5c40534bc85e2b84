"""Weight layers as linear maps: the map, its adjoint, its gradient, its norms."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional, grad
from typing_extensions import override

from openwork.altmin.fronts import Averaging, Front, Selection

__all__ = ["ConvLink", "LinearLink", "Link"]

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d


class Link(ABC):
    """A weight layer and the linear maps in front of it, ``x -> A x + b``, with samples as rows.

    Args:
        layer: The layer; its weight and bias stay its parameters.
        fronts: Linear maps without weights between the activation before the layer and the layer, in order.
    """

    def __init__(self, layer: nn.Linear | Conv, fronts: Sequence[Front] = ()) -> None:
        self.layer = layer
        self.fronts = tuple(fronts)
        # Of one sample, as the layer itself last read it, behind the fronts.
        self._read: torch.Size | None = None
        self._weight_vector: Tensor | None = None
        self._input_vector: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """The layer's weight, without its history."""
        return self.layer.weight.detach()

    @property
    def bias(self) -> Tensor | None:
        """The layer's bias, without its history; None if it has none."""
        bias = self.layer.bias
        return None if bias is None else bias.detach()

    @property
    def probes(self) -> tuple[Tensor | None, Tensor | None]:
        """Where the power methods of ``weight_curvature`` and ``input_curvature`` ended; None before the first."""
        return self._weight_vector, self._input_vector

    @probes.setter
    def probes(self, probes: tuple[Tensor | None, Tensor | None]) -> None:
        self._weight_vector, self._input_vector = probes

    def refresh(self, x: Tensor) -> None:
        """Let max-pooling in front select anew, by the present inputs; between two calls the map is linear."""
        for front in self.fronts:
            front.refresh(x)
            x = front.forward(x)

    def forward(self, x: Tensor) -> Tensor:
        """``A x`` with the present weight, without bias."""
        return self.map_with(self.weight, x)

    def map_with(self, weight: Tensor, x: Tensor) -> Tensor:
        """``A x`` with another weight, without bias."""
        return self._map(weight, self.reading(x))

    def adjoint(self, r: Tensor) -> Tensor:
        """``A' r``, of the shape of the inputs that the link last saw.

        Args:
            r: Of the shape of the layer's outputs.

        Raises:
            RuntimeError: If the link has seen no inputs yet.
        """
        if self._read is None:
            raise RuntimeError("the adjoint of a link needs the shape of its inputs; call forward first")
        x = self._adjoint(r)
        for front in reversed(self.fronts):
            x = front.adjoint(x)
        return x

    def weight_grad(self, x: Tensor, r: Tensor) -> Tensor:
        """The gradient of ``<A x, r>`` in the weight."""
        return self._weight_grad(self.reading(x), r)

    def reading(self, x: Tensor) -> Tensor:
        """The inputs as the layer itself reads them, behind the fronts."""
        for front in self.fronts:
            x = front.forward(x)
        self._read = x.shape[1:]
        return x

    def bias_add(self, z: Tensor) -> Tensor:
        """``z + b``, a new tensor; ``z`` itself if the layer has no bias."""
        bias = self.bias
        return z if bias is None else z + bias.view(-1, *(1,) * (z.ndim - 2))

    def bias_mean(self, r: Tensor) -> Tensor:
        """Mean over samples and positions, one number per output feature."""
        return r.mean((0, *range(2, r.ndim)))

    def weight_curvature(self, x: Tensor, iterations: int = 4) -> Tensor:
        """Largest eigenvalue of the Hessian of ``||A x||^2 / 2`` in the weight, from below, a 0-dim tensor.

        Args:
            x: Inputs.
            iterations: Of the power method, which starts where the last call ended.
        """
        read = self.reading(x)
        if self._weight_vector is None:
            self._weight_vector = _start(self._one_output())
        self._weight_vector, size = _power(self._weight_vector.to(read), lambda v: self._normal(read, v), iterations)
        return size

    def input_curvature(self, iterations: int = 4) -> Tensor:
        """Largest eigenvalue of ``A' A``, from below, a 0-dim tensor.

        Args:
            iterations: Of the power method, which starts where the last call ended.

        Raises:
            RuntimeError: If the link has seen no inputs yet.
        """
        if self._read is None:
            raise RuntimeError("the norm of a link needs the shape of its inputs; call forward first")
        # Selections are left out: they differ between samples, and lengthen nothing where windows do not overlap.
        whole = any(isinstance(front, Averaging) for front in self.fronts) and not any(
            isinstance(front, Selection) for front in self.fronts
        )
        shape = (1, *(self.fronts[0].shape if whole else self._read))
        weight = self.weight
        if self._input_vector is None or self._input_vector.shape != shape:
            self._input_vector = _start(weight.new_empty(shape))

        def gram(v: Tensor) -> Tensor:
            return self.adjoint(self.forward(v)) if whole else self._adjoint(self._map(weight, v))

        self._input_vector, size = _power(self._input_vector.to(weight), gram, iterations)
        return size

    @abstractmethod
    def macs(self, n: int) -> int:
        """Multiply-accumulates of ``A x`` for n samples, once the link has seen inputs."""

    @abstractmethod
    def _map(self, weight: Tensor, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _adjoint(self, r: Tensor) -> Tensor: ...

    @abstractmethod
    def _weight_grad(self, x: Tensor, r: Tensor) -> Tensor: ...

    def _normal(self, x: Tensor, vector: Tensor) -> Tensor:
        """The Hessian of ``||A x||^2 / 2`` in the weight, applied to a weight of few output features."""
        return self._weight_grad(x, self._map(vector, x))

    @abstractmethod
    def _one_output(self) -> Tensor:
        """A weight with as few output features as show the largest eigenvalue."""


class LinearLink(Link):
    """``nn.Linear``, possibly behind Flatten and AvgPool."""

    layer: nn.Linear

    @override
    def _map(self, weight: Tensor, x: Tensor) -> Tensor:
        # One sample is a product of a matrix and a vector, as in power iterations.
        return torch.mm(x, weight.T) if len(x) > 1 else weight.mv(x[0])[None]

    @override
    def _adjoint(self, r: Tensor) -> Tensor:
        return torch.mm(r, self.weight) if len(r) > 1 else self.weight.T.mv(r[0])[None]

    @override
    def _weight_grad(self, x: Tensor, r: Tensor) -> Tensor:
        return torch.mm(r.T, x)

    def gram(self, x: Tensor) -> Tensor:
        """``x' x`` of the inputs as read by the layer: the Hessian of ``||A x||^2 / 2`` in each row of the weight."""
        read = self.reading(x)
        return torch.mm(read.T, read)

    def gram_curvature(self, gram: Tensor, iterations: int = 4) -> Tensor:
        """What ``weight_curvature`` gives, from ``gram(x)`` or a sum of such matrices."""
        if self._weight_vector is None:
            self._weight_vector = _start(self._one_output())
        self._weight_vector, size = _power(self._weight_vector.to(gram), gram.mv, iterations)
        return size

    @override
    def _normal(self, x: Tensor, vector: Tensor) -> Tensor:
        return x.T.mv(x.mv(vector))

    @override
    def _one_output(self) -> Tensor:
        return self.weight[0]

    @override
    def macs(self, n: int) -> int:
        return n * self.layer.in_features * self.layer.out_features


class ConvLink(Link):
    """``nn.Conv1d``, ``nn.Conv2d`` or ``nn.Conv3d`` with zero padding, possibly behind AvgPool."""

    layer: Conv

    @override
    def _map(self, weight: Tensor, x: Tensor) -> Tensor:
        layer = self.layer
        convolve = _MAPS[x.ndim - 3]
        return convolve(x, weight, None, layer.stride, _padding(layer), layer.dilation, layer.groups)

    @override
    def _adjoint(self, r: Tensor) -> Tensor:
        layer, read = self.layer, self._read or torch.Size()
        padding = _padding(layer)
        # Rows and columns behind the last step of the kernel are read by nobody.
        behind = [
            size + 2 * pad - width * (kernel - 1) - 1 - stride * (out - 1)
            for size, pad, width, kernel, stride, out in zip(
                read[1:], padding, layer.dilation, layer.kernel_size, layer.stride, r.shape[2:], strict=True
            )
        ]
        transpose = _ADJOINTS[r.ndim - 3]
        return transpose(r, self.weight, None, layer.stride, padding, behind, layer.groups, layer.dilation)

    @override
    def _weight_grad(self, x: Tensor, r: Tensor) -> Tensor:
        layer = self.layer
        # The power method asks for fewer output features than the layer has.
        shape = (r.shape[1], *self.weight.shape[1:])
        gradient = _WEIGHT_GRADS[x.ndim - 3]
        return gradient(x, shape, r.contiguous(), layer.stride, _padding(layer), layer.dilation, layer.groups)

    @override
    def _one_output(self) -> Tensor:
        return self.weight[: self.layer.groups]

    @override
    def macs(self, n: int) -> int:
        if self._read is None:
            raise RuntimeError("the cost of a convolution depends on the shape of its inputs; call forward first")
        return n * prod(_outputs(self.layer, self._read[1:])) * self.weight.numel()


_MAPS: tuple[Callable[..., Tensor], ...] = (functional.conv1d, functional.conv2d, functional.conv3d)
_ADJOINTS: tuple[Callable[..., Tensor], ...] = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)
_WEIGHT_GRADS: tuple[Callable[..., Tensor], ...] = (grad.conv1d_weight, grad.conv2d_weight, grad.conv3d_weight)


def _padding(layer: Conv) -> tuple[int, ...]:
    """Padding on both sides of each axis, also where it was asked for by name."""
    if layer.padding == "valid":
        return (0,) * len(layer.kernel_size)
    if layer.padding == "same":
        spans = zip(layer.dilation, layer.kernel_size, strict=True)
        return tuple(width * (kernel - 1) // 2 for width, kernel in spans)
    return tuple(int(pad) for pad in layer.padding)


def _outputs(layer: Conv, sizes: Sequence[int]) -> list[int]:
    """Sizes of the output axes."""
    return [
        (size + 2 * pad - width * (kernel - 1) - 1) // stride + 1
        for size, pad, width, kernel, stride in zip(
            sizes, _padding(layer), layer.dilation, layer.kernel_size, layer.stride, strict=True
        )
    ]


def _start(like: Tensor) -> Tensor:
    """A fixed vector in general position, the same in each run and on each device."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(like.shape, generator=generator).to(like)


def _power(vector: Tensor, multiply: Callable[[Tensor], Tensor], iterations: int) -> tuple[Tensor, Tensor]:
    """Power iterations with a semidefinite map: the last direction, and the Rayleigh quotient of the one before."""
    tiny = torch.finfo(vector.dtype).tiny
    size = vector.new_zeros(())
    for _ in range(iterations):
        vector = vector / vector.norm().clamp(min=tiny)
        image = multiply(vector)
        size = (vector * image).sum()
        vector = torch.where(image.norm() > 0, image, vector)
    return vector, size
