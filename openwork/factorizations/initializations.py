"""Where the factors of a weight start."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override


class Initialization(ABC):
    """How the factors of a weight start, given the weight as the model has it."""

    @abstractmethod
    def factors(self, weight: Tensor, depth: int, generator: torch.Generator | None = None) -> list[Tensor]:
        """Factors to start with.

        Args:
            weight: Any shape, floating; not changed.
            depth: Number of factors, >= 2.
            generator: Of random numbers, on the device of ``weight``; None for torch's own.

        Returns:
            ``depth`` new tensors like ``weight``, also in memory; in float32 at least.
        """


@dataclass(frozen=True)
class Sampled(Initialization):
    """Factors drawn anew: normal with deviation ``sigma^(1/D)``, magnitudes between two bounds, any sign.

    ``sigma`` is the root mean square of the weight, as its dense initialization left it. Without the bounds, the
    product would have the deviation ``sigma`` exactly, but with heavy tails and with most entries near 0, where they
    stay. Magnitudes of factors are kept in ``((eps sigma)^(1/D), min(1, (2 sigma)^(1/D)))``; this makes the product
    smaller than ``sigma``, so that by default all factors are rescaled to make up for it.

    Args:
        eps: Smallest magnitude of the product over ``sigma``, in (0, 1): no factor starts near 0.
        correct: Rescale so that the mean square of the product is ``sigma^2``; False is the published sampler.

    Raises:
        ValueError: If ``eps`` is out of range.

    References:
        Kolb et al., Deep Weight Factorization (ICLR 2025), arXiv:2502.02496, algorithm 1 (appendix D.1): the bounds.
    """

    eps: float = 0.05
    correct: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.eps < 1:
            raise ValueError(f"Sampled: eps must be above 0 and below 1, got {self.eps}; 0.05 and 0.25 are in use")

    @override
    def factors(self, weight: Tensor, depth: int, generator: torch.Generator | None = None) -> list[Tensor]:
        like = _single(weight)
        sigma = like.double().square().mean().sqrt()
        low, high, scale = self.bounds(sigma, depth)
        start, end = _below(low), _below(high)
        found: list[Tensor] = []
        for _ in range(depth):
            u = torch.rand(like.shape, generator=generator, dtype=torch.float64, device=like.device)
            sign = torch.randint(2, like.shape, generator=generator, device=like.device) * 2 - 1
            # The inverse of the distribution function: no loop of rejections.
            magnitude = _quantile(start + u * (end - start)).clamp(low, high)
            found.append(_laid_out(sign * magnitude * scale, like))
        return found

    def bounds(self, sigma: Tensor, depth: int) -> tuple[Tensor, Tensor, Tensor]:
        """Smallest and largest magnitude of a factor, in units of its deviation before truncation; and that unit.

        Args:
            sigma: Deviation of the weight, 0-dim float64; 0 for a weight of zeros.
            depth: Number of factors, >= 2.

        Returns:
            ``a``, ``b`` and the factor by which a standard normal variable in ``(a, b)`` becomes a factor.
        """
        unit = sigma ** (1 / depth)
        low = torch.full_like(sigma, self.eps ** (1 / depth))
        # A weight of zeros has no scale: its factors are zeros whatever the bounds.
        high = torch.where(unit > 0, torch.clamp(1 / unit, max=2 ** (1 / depth)), 2 ** (1 / depth))
        # A deviation above 1 would leave no room below the cap of 1.
        high = torch.maximum(high, low * 2 ** (1 / depth))
        return low, high, unit * _second_moment(low, high) ** -0.5 if self.correct else unit


def _second_moment(low: Tensor, high: Tensor) -> Tensor:
    """Mean square of a standard normal variable whose magnitude is between two bounds."""
    mass = _below(high) - _below(low)
    return 1 - (high * _density(high) - low * _density(low)) / mass


def _below(x: Tensor) -> Tensor:
    """Probability that a standard normal variable is below x."""
    return torch.special.ndtr(x)  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]


def _quantile(p: Tensor) -> Tensor:
    """The inverse of ``_below``."""
    return torch.special.ndtri(p)  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]


def _density(x: Tensor) -> Tensor:
    return torch.exp(-x.square() / 2) / (2 * torch.pi) ** 0.5


@dataclass(frozen=True)
class UnitGate(Initialization):
    """The weight itself and factors of one: the product is the weight, bit for bit, and so is its dense gradient.

    Training starts like that of the dense network and becomes sparse once the factors are balanced, which takes about
    ``D (1 - momentum) / (4 lam lr) log(1 / tolerance)`` steps.

    References:
        Kolb et al., Differentiable Sparsity via D-Gating (NeurIPS 2025), arXiv:2509.23898: the rule for gates.
    """

    @override
    def factors(self, weight: Tensor, depth: int, generator: torch.Generator | None = None) -> list[Tensor]:
        like = _single(weight)
        return [like.clone(), *(torch.ones_like(like) for _ in range(depth - 1))]


@dataclass(frozen=True)
class Split(Initialization):
    """The present weight, split: for a pre-trained model, or with the distribution of the dense initialization.

    ``w_i = +-|w|^(1/D) exp(s_i)`` with ``sum_i s_i = 0``: two factors, random ones for each weight, have ``s`` and
    ``-s``. The product is the weight, to rounding. Signs are random, with that of the weight as their product. With
    ``imbalance=0`` all factors of a weight have one magnitude, which gradient steps keep, and it can never change sign.

    Args:
        imbalance: ``s``, >= 0.
        zero: What a weight of zero becomes: ``"dead"`` stays zero for good (all factors are 0), ``"revivable"`` has one
            factor of 0, and the others at ``revived^(1/D)``.
        revived: Magnitude that belongs to the other factors of a revivable zero, > 0.

    Raises:
        ValueError: If a number is out of range or ``zero`` is another word.
    """

    imbalance: float = 0.25
    zero: Literal["dead", "revivable"] = "dead"
    revived: float = 1e-3

    def __post_init__(self) -> None:
        if not self.imbalance >= 0:
            raise ValueError(f"Split: imbalance must be at least 0, got {self.imbalance}; 0.25 is a good choice")
        if self.zero not in ("dead", "revivable"):
            raise ValueError(f"Split: zero must be 'dead' or 'revivable', got {self.zero!r}")
        if not self.revived > 0:
            raise ValueError(f"Split: revived must be above 0, got {self.revived}")

    @override
    @torch.no_grad()
    def factors(self, weight: Tensor, depth: int, generator: torch.Generator | None = None) -> list[Tensor]:
        like = _single(weight)
        exact = like.double()
        root = exact.abs() ** (1 / depth)
        # Which two factors are apart; the first is also the one that is zero for a revivable zero.
        first = torch.randint(depth, like.shape, generator=generator, device=like.device)
        second = (first + torch.randint(1, depth, like.shape, generator=generator, device=like.device)) % depth
        last = torch.where(exact < 0, -1.0, 1.0).double()
        found: list[Tensor] = []
        for i in range(depth):
            magnitude = root * (self.imbalance * ((first == i).double() - (second == i).double())).exp()
            if self.zero == "revivable":
                other = torch.where(first == i, 0.0, self.revived ** (1 / depth))
                magnitude = torch.where(exact == 0, other, magnitude)
            if i < depth - 1:
                sign = torch.randint(2, like.shape, generator=generator, device=like.device) * 2.0 - 1
                last = last * sign
            else:
                sign = last
            found.append(_laid_out(sign * magnitude, like))
        return found


def _single(weight: Tensor) -> Tensor:
    """The weight in float32 at least, without its history."""
    return weight.detach().to(torch.promote_types(weight.dtype, torch.float32))


def _laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """A copy with the dtype and the strides of another tensor."""
    return torch.empty_like(like).copy_(tensor)


__all__ = ["Initialization", "Sampled", "Split", "UnitGate"]
