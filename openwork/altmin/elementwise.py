"""What an activation is to alternating minimization: a scalar function whose fits are solved, not differentiated."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from openwork.kernels import Scalar


class Activation(ABC):
    """A scalar function ``h`` applied to each entry, known by its values and by the problems it is a part of."""

    @property
    def homogeneous(self) -> bool:
        """Whether ``h(s z) = s h(z)`` for all s > 0, so that moving a factor across the layer changes nothing."""
        return False

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """The values ``h(z)``, a new tensor."""

    @abstractmethod
    def solve(self, c: Tensor, d: Tensor, r: Scalar, k: Scalar, z: Tensor) -> Tensor:
        """A global minimizer of ``r/2 (z - c)^2 + k/2 (h(z) - d)^2``, entry by entry.

        Args:
            c: Where the layer before wants ``z``.
            d: Where the layer behind wants ``h(z)``, of the shape of ``c``.
            r: Weight of the first term, > 0 and finite.
            k: Weight of the second term, >= 0 and finite.
            z: The present point; the result is never worse.

        Returns:
            A new tensor of the shape of ``c``.
        """

    @abstractmethod
    def interval(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The ends of ``{z : low <= h(z) <= high}``, entry by entry; infinite where there is no end.

        Args:
            low: Lower bounds.
            high: Upper bounds, not below ``low``.

        Raises:
            ValueError: If ``h`` is not monotone, so that the set need not be an interval.
        """

    def project(self, z: Tensor) -> Tensor:
        """The nearest point that ``solve`` may return; ``z`` itself unless ``h`` keeps a margin."""
        return z


def above(x: Tensor, y: Tensor | float) -> Tensor:
    """One where ``x > y`` and zero elsewhere, in the precision of ``x``, to be used as the weight of ``lerp_``.

    ``torch.lerp`` with a weight of zero or one gives one of two finite numbers exactly, and is vectorized on the CPU.
    ``torch.where`` is not, and takes ten times as long.
    """
    return (x > y).to(x.dtype) if torch.compiler.is_compiling() else torch.gt(x, y, out=torch.empty_like(x))


def at_most(x: Tensor, y: Tensor | float) -> Tensor:
    """One where ``x <= y`` and zero elsewhere; see ``above``."""
    return (x <= y).to(x.dtype) if torch.compiler.is_compiling() else torch.le(x, y, out=torch.empty_like(x))


def above_(x: Tensor, y: Tensor | float) -> Tensor:
    """``above(x, y)``, which may be written over ``x``."""
    return above(x, y) if torch.compiler.is_compiling() else x.gt_(y)
