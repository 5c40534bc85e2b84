"""How the weight ``rho`` of the links is chosen, and changed while training."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from typing_extensions import override

from openwork.altmin.state import Layer

__all__ = ["AdaptiveRho", "FixedRho", "RelativeRho", "RhoPolicy", "RisingCostRho"]


class RhoPolicy(ABC):
    """A rule for ``rho``; frozen configuration."""

    @property
    @abstractmethod
    def start(self) -> float:
        """The first ``rho``."""

    @property
    def period(self) -> int:
        """Sweeps between two looks at the forward loss of the training samples; 0 for never."""
        return 0

    def growth_now(self, rho: float, forward: Sequence[float], surrogate: float) -> float:
        """What to multiply ``rho``, ``mu`` and the penalties by, so that their ratio stays.

        Args:
            rho: The present one.
            forward: Forward losses of the training samples since the last change, means over samples, the latest last.
            surrogate: Loss of the block z at the output, a mean over samples.
        """
        return 1.0

    def of_layer(self, rho: float, mean_square: Callable[[], float]) -> float:
        """The ``rho`` of one layer.

        Args:
            rho: Of the problem.
            mean_square: Computes the mean square of ``W a + b``; waits for a device.
        """
        return rho


@dataclass(frozen=True)
class FixedRho(RhoPolicy):
    """The same ``rho`` for all layers and sweeps.

    Args:
        value: > 0, against a loss summed over samples.

    Raises:
        ValueError: If it is not positive.
    """

    value: float = 0.1

    def __post_init__(self) -> None:
        check_positive(self, value=self.value)

    @property
    @override
    def start(self) -> float:
        return self.value


@dataclass(frozen=True)
class RelativeRho(RhoPolicy):
    """``rho`` over the mean square of ``W a + b``, layer by layer, frozen between two balancings.

    Args:
        value: > 0; the weight of a relative residual.

    Raises:
        ValueError: If it is not positive.
    """

    value: float = 0.1

    def __post_init__(self) -> None:
        check_positive(self, value=self.value)

    @property
    @override
    def start(self) -> float:
        return self.value

    @override
    def of_layer(self, rho: float, mean_square: Callable[[], float]) -> float:
        size = mean_square()
        return rho / size if size > 0 else rho


@dataclass(frozen=True)
class AdaptiveRho(RhoPolicy):
    """``rho`` grows as long as the network is worse than its surrogate: ``forward > 2 surrogate + 0.02``.

    Args:
        value: The first one, > 0.
        every: Sweeps between two looks, >= 1.
        growth: Factor, > 1.

    Raises:
        ValueError: If a number is out of range.
    """

    value: float = 0.1
    every: int = 10
    growth: float = 1.3

    def __post_init__(self) -> None:
        check_positive(self, value=self.value, every=self.every)
        check_growth(self, self.growth)

    @property
    @override
    def start(self) -> float:
        return self.value

    @property
    @override
    def period(self) -> int:
        return self.every

    @override
    def growth_now(self, rho: float, forward: Sequence[float], surrogate: float) -> float:
        return self.growth if forward[-1] > 2 * surrogate + 0.02 else 1.0


@dataclass(frozen=True)
class RisingCostRho(RhoPolicy):
    """``rho`` jumps after so many rises of the forward training loss in a row, up to a cap: dlADMM's rule.

    Args:
        value: The first one, > 0.
        growth: Factor, > 1.
        cap: The largest ``rho``, > 0.
        patience: Rises in a row, >= 1.

    Raises:
        ValueError: If a number is out of range.

    References:
        Wang et al., dlADMM, arXiv:1905.13611, released code.
    """

    value: float = 1e-6
    growth: float = 10.0
    cap: float = 0.1
    patience: int = 3

    def __post_init__(self) -> None:
        check_positive(self, value=self.value, cap=self.cap, patience=self.patience)
        check_growth(self, self.growth)

    @property
    @override
    def start(self) -> float:
        return self.value

    @property
    @override
    def period(self) -> int:
        return 1

    @override
    def growth_now(self, rho: float, forward: Sequence[float], surrogate: float) -> float:
        recent = forward[-self.patience - 1 :]
        if len(recent) <= self.patience or not all(before < after for before, after in pairwise(recent)):
            return 1.0
        return max(1.0, min(self.growth, self.cap / rho))


def check_positive(policy: RhoPolicy, **numbers: float) -> None:
    """Refuse a number that is not positive.

    Raises:
        ValueError: If there is one.
    """
    for name, value in numbers.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{type(policy).__name__}: {name} must be finite and > 0, got {value}")


def check_growth(policy: RhoPolicy, growth: float) -> None:
    """Refuse a factor that does not grow.

    Raises:
        ValueError: If it is not above 1.
    """
    if not 1 < growth < float("inf"):
        raise ValueError(f"{type(policy).__name__}: growth must be finite and > 1, got {growth}")


def weigh(layers: Sequence[Layer], growth: float) -> None:
    """Multiply the ``rho`` of all layers and what is weighed against it; the multipliers themselves stay.

    Args:
        layers: Changed in place.
        growth: Factor.
    """
    for layer in layers:
        layer.rho, layer.mu = layer.rho * growth, layer.mu * growth
        layer.penalty_weight *= growth
        layer.dual = None if layer.dual is None else layer.dual / growth
