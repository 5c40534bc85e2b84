"""Linear maps without weights that stand in front of a weight layer: flattening and pooling."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

AvgPool = nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d
MaxPool = nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d


class Front(ABC):
    """A linear map of the codes, and its adjoint for inputs of the shape last seen, which ``shape`` tells."""

    def __init__(self) -> None:
        self.shape = torch.Size()

    def refresh(self, x: Tensor) -> None:  # noqa: B027, only selections depend on the inputs
        """Let the map depend on these inputs from now on."""

    def forward(self, x: Tensor) -> Tensor:
        """The map."""
        self.shape = x.shape[1:]
        return self._forward(x)

    @abstractmethod
    def adjoint(self, r: Tensor) -> Tensor:
        """The adjoint."""

    @abstractmethod
    def _forward(self, x: Tensor) -> Tensor: ...


class Flattening(Front):
    """All numbers of a sample in a row."""

    @override
    def _forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    @override
    def adjoint(self, r: Tensor) -> Tensor:
        return r.reshape(-1, *self.shape)


class Averaging(Front):
    """Means over windows.

    Args:
        layer: The module, whose map is linear.
    """

    def __init__(self, layer: AvgPool) -> None:
        super().__init__()
        self.layer = layer

    @override
    def _forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    @override
    def adjoint(self, r: Tensor) -> Tensor:
        # A local adjoint of one linear map: no graph outlives this line.
        pull: Any = torch.func.vjp(self.layer, r.new_zeros((len(r), *self.shape)))[1]
        return pull(r)[0]


class Selection(Front):
    """Max-pooling with the selection of the inputs last shown to ``refresh``, which makes it a linear map.

    Args:
        layer: The module.
    """

    def __init__(self, layer: MaxPool) -> None:
        super().__init__()
        self.layer = layer
        self._chosen: Tensor | None = None

    @override
    def refresh(self, x: Tensor) -> None:
        layer, pool = self.layer, _MAX[x.ndim - 3]
        _, self._chosen = pool(
            x, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode, return_indices=True
        )

    @override
    def _forward(self, x: Tensor) -> Tensor:
        if self._chosen is None or len(self._chosen) != len(x):
            self.refresh(x)
        chosen = self._chosen
        if chosen is None:
            raise RuntimeError("max-pooling has seen no inputs")
        return x.flatten(2).gather(2, chosen.flatten(2)).view(chosen.shape)

    @override
    def adjoint(self, r: Tensor) -> Tensor:
        chosen = self._chosen
        if chosen is None:
            raise RuntimeError("max-pooling has seen no inputs")
        x = r.new_zeros((len(r), *self.shape))
        return x.flatten(2).scatter_add_(2, chosen.flatten(2), r.flatten(2)).view(x.shape)


_MAX: tuple[Callable[..., Any], ...] = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
