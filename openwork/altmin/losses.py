"""Losses of the output block: values, and proximal points sample by sample."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot
from typing_extensions import override

from openwork.kernels import Scalar

# Below this weight of the quadratic term Newton's method needs fewer steps than accelerated gradients.
NEWTON_BELOW = 0.05


class OutputLoss(ABC):
    """A convex loss ``R(z; y)`` of the outputs, summed over samples (rows)."""

    @abstractmethod
    def value(self, z: Tensor, y: Tensor) -> Tensor:
        """``R(z; y)``, a 0-dim tensor: the sum over samples, in double precision on the CPU."""

    @abstractmethod
    def prox(self, c: Tensor, y: Tensor, rho: Scalar, z: Tensor) -> Tensor:
        """The minimizer of ``R(z; y) + rho/2 ||z - c||^2``.

        Args:
            c: Outputs of the last layer, of shape (samples, outputs).
            y: Labels, one row or entry per sample.
            rho: Weight of the quadratic term, > 0.
            z: The present point, where an iterative solver starts.

        Returns:
            A new tensor of the shape of ``c``.
        """

    @abstractmethod
    def gradient(self, z: Tensor, y: Tensor) -> Tensor:
        """The gradient of ``R(z; y)`` in ``z``, a subgradient where there is none."""

    @abstractmethod
    def check(self, y: Tensor, outputs: int, n: int) -> None:
        """Refuse labels that do not fit.

        Args:
            y: The labels.
            outputs: Outputs of the model.
            n: Number of samples.

        Raises:
            ValueError: If their shape or values do not fit.
            TypeError: If they are of the wrong type.
        """


class Squared(OutputLoss):
    """``weight/2 ||z - y||^2`` with targets ``y`` of the shape of the outputs.

    Args:
        weight: Weight, > 0.

    Raises:
        ValueError: If ``weight`` is not positive.
    """

    def __init__(self, weight: float = 1.0) -> None:
        if not weight > 0:
            raise ValueError(f"Squared: weight must be > 0, got {weight}")
        self.weight = weight

    @override
    def value(self, z: Tensor, y: Tensor) -> Tensor:
        return _total((z - y).square_()) * (self.weight / 2)

    @override
    def prox(self, c: Tensor, y: Tensor, rho: Scalar, z: Tensor) -> Tensor:
        return (y * self.weight + c * rho) / (self.weight + rho)

    @override
    def gradient(self, z: Tensor, y: Tensor) -> Tensor:
        return (z - y) * self.weight

    @override
    def check(self, y: Tensor, outputs: int, n: int) -> None:
        pass


class CrossEntropy(OutputLoss):
    """Softmax cross-entropy of logits, with labels ``y`` in ``0, ..., outputs - 1``.

    References:
        The Hessian ``diag(p) - p p'`` of one sample has norm at most 1/2, hence the steps of the accelerated method.
    """

    @override
    def value(self, z: Tensor, y: Tensor) -> Tensor:
        return _total(cross_entropy(z, y, reduction="none"))

    @override
    def prox(self, c: Tensor, y: Tensor, rho: Scalar, z: Tensor) -> Tensor:
        target = one_hot(y, c.shape[1]).to(c.dtype)
        rate = rho / (0.5 + rho)
        momentum = (1 - rate**0.5) / (1 + rate**0.5)
        z, previous = z.clone(), z
        for _ in range(200):
            point = z + (z - previous) * momentum
            previous = z
            z = point - ((point.softmax(1) - target) + rho * (point - c)) / (0.5 + rho)
        return z

    @override
    def gradient(self, z: Tensor, y: Tensor) -> Tensor:
        return z.softmax(1) - one_hot(y, z.shape[1]).to(z.dtype)

    @override
    def check(self, y: Tensor, outputs: int, n: int) -> None:
        pass


def _total(x: Tensor) -> Tensor:
    return x.sum(dtype=torch.float64) if x.device.type == "cpu" else x.sum()
