"""Modules that apply an activation of this package: sign, quantizers, and those that users define."""

from collections.abc import Sequence

from torch import Tensor, nn
from typing_extensions import override

from openwork.altmin.elementwise import Activation
from openwork.altmin.piecewise import SignSteps, Steps


class Elementwise(nn.Module):
    """A module that applies an activation, so that a model of your own activation can be trained.

    Args:
        activation: The activation, such as ``PiecewiseLinear(pieces)``.
    """

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation = activation

    @override
    def forward(self, z: Tensor) -> Tensor:
        """The values ``h(z)``."""
        return self.activation.forward(z)


class Sign(Elementwise):
    """``sign(z)`` with ``sign(0) = 1``; its derivative is zero, so backpropagation cannot train what is before it.

    Args:
        margin: While trained by alternating minimization, codes keep out of ``(-margin, margin)``; >= 0.
    """

    activation: SignSteps

    def __init__(self, margin: float = 0.5) -> None:
        super().__init__(SignSteps(margin))


class Quantizer(Elementwise):
    """The nearest of some levels; halfway between two, the upper one. Its derivative is zero.

    Args:
        levels: Two or more increasing numbers.
    """

    activation: Steps

    def __init__(self, levels: Sequence[float]) -> None:
        super().__init__(Steps(levels))
