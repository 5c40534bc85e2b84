"""Laws of random linear maps S with E[S] = I, and what one draw of them does."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from openwork.sketches.key import Key


class Draw(ABC):
    """One draw of S, for tensors of one shape."""

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """``S x``; differentiable.

        Args:
            x: Of the shape for which S was drawn.
        """

    @abstractmethod
    def adjoint(self, x: Tensor) -> Tensor:
        """``Sᵀ x``.

        Args:
            x: Of the shape for which S was drawn.
        """


@final
@dataclass(frozen=True)
class Whole(Draw):
    """S = I: gives back what it is given, itself and not a copy."""

    @override
    def apply(self, x: Tensor) -> Tensor:
        return x

    @override
    def adjoint(self, x: Tensor) -> Tensor:
        return x


@final
@dataclass(frozen=True, eq=False)
class Diagonal(Draw):
    """S with a diagonal of zeros and scales.

    Args:
        diagonal: Numbers in float64, or booleans, which take an eighth of the memory; of the shape for which S was
            drawn or one that broadcasts to it. 0 where something is dropped, which is exactly zero then, whatever it
            was.
        scale: What the diagonal is multiplied by, not 0.
    """

    diagonal: Tensor
    scale: float = 1.0

    @property
    def weights(self) -> Tensor:
        """The diagonal of S, float64."""
        return self.diagonal.to(torch.float64) * self.scale

    @property
    def kept(self) -> Tensor:
        """Where something stays, booleans like ``weights``."""
        return self.diagonal if self.diagonal.dtype == torch.bool else self.diagonal != 0

    @override
    def apply(self, x: Tensor) -> Tensor:
        factor = self.scale if self.diagonal.dtype == torch.bool else self.weights.to(x.dtype)
        return torch.where(self.kept, x * factor, 0.0)

    @override
    def adjoint(self, x: Tensor) -> Tensor:
        return self.apply(x)


@dataclass(frozen=True)
class Constants:
    """What theorems need to know of a law.

    Args:
        largest: ``L_S^max``, the largest eigenvalue of ``SᵀS`` over all draws.
        smooth: ``L_D``, the largest eigenvalue of ``E[SᵀS]``.
        convex: ``mu_D``, the smallest one.

    References:
        Demidovich et al. (ICLR 2025), arXiv:2311.16086.
    """

    largest: float
    smooth: float
    convex: float

    @property
    def variance(self) -> float:
        """``omega = L_D - 1``, that of S as an unbiased compressor."""
        return self.smooth - 1


class Sketch(ABC):
    """A law of S, for any size; a frozen dataclass.

    ``E[S] = I`` for every law here, and draws are functions of the key alone.

    Attributes:
        axis: None if S acts on all entries of a tensor as one vector; else the axis along which it acts, on each line
            of the tensor alike.
    """

    axis: ClassVar[int | None] = None

    @abstractmethod
    def sample(self, key: Key, size: int, device: torch.device | str | None = None) -> Draw:
        """Draw S.

        Args:
            key: What names the draw.
            size: Numbers in the vectors it is for, >= 1.
            device: Where its tensors lie.

        Returns:
            A map of vectors ``(size,)``; of tensors with ``size`` entries along ``axis`` if that is not None.

        Raises:
            ValueError: If the law has no draw of this size.
        """

    def complements(self, key: Key, size: int, device: torch.device | str | None = None) -> tuple[Draw, ...]:
        """Draws that make up for each other: each has the law of S, together they vary less than independent ones.

        Args:
            key: What names them all.
            size: Numbers in the vectors they are for, >= 1.
            device: Where their tensors lie.

        Returns:
            At least one; a single one where the law knows no better.

        Raises:
            ValueError: If the law has no draw of this size.
        """
        return (self.sample(key, size, device),)

    @abstractmethod
    def constants(self, size: int) -> Constants:
        """Constants of the law.

        Args:
            size: Numbers in a vector, >= 1.

        Raises:
            ValueError: If the law has no draw of this size.
        """


class DiagonalSketch(Sketch):
    """A law that keeps a random set J of entries, and multiplies them so that each has mean 1.

    Most laws multiply an entry that is kept with probability p by 1 / p: subclasses draw J, and everything else follows
    from ``inclusion`` and ``pair_matrix``.
    """

    @property
    def complementary(self) -> int:
        """How many workers' draws of one key complete each other to the identity; 1 if none do."""
        return 1

    @override
    def complements(
        self, key: Key, size: int, device: torch.device | str | None = None
    ) -> "tuple[Whole | Diagonal, ...]":
        """Draws that make up for each other; by default those of the workers that complete each other.

        Args:
            key: What names them all.
            size: Numbers in the vectors they are for, >= 1.
            device: Where their tensors lie.
        """
        if self.complementary == 1:
            return (self.sample(key, size, device),)
        return tuple(self.sample(key.at(worker=worker), size, device) for worker in range(self.complementary))

    @abstractmethod
    def inclusion(self, size: int) -> Tensor:
        """``p_j``, the probability that entry j is kept; float64 ``(size,)``, in (0, 1].

        Args:
            size: Numbers in a vector, >= 1.

        Raises:
            ValueError: If the law has no draw of this size.
        """

    @abstractmethod
    def pair_matrix(self, size: int) -> Tensor:
        """``P_ij``, the probability that i and j are both kept; float64 ``(size, size)``.

        Args:
            size: Numbers in a vector, >= 1.

        Raises:
            ValueError: If the law has no draw of this size.
        """

    @override
    @abstractmethod
    def sample(self, key: Key, size: int, device: torch.device | str | None = None) -> "Whole | Diagonal": ...

    def fixed_count(self, size: int) -> int | None:
        """Entries that every draw keeps; None if draws differ in that.

        Args:
            size: Numbers in a vector, >= 1.
        """
        return None

    def mean_square(self, size: int) -> Tensor:
        """``E[w_j^2]`` of the diagonal w of S, that of ``second_moment``; float64 ``(size,)``, >= 1.

        Args:
            size: Numbers in a vector, >= 1.
        """
        return 1 / self.inclusion(size)

    def second_moment(self, size: int) -> Tensor:
        """``E[w wᵀ]`` of the diagonal w of S, so that ``E[S A S] = E[w wᵀ] * A``; float64 ``(size, size)``.

        Args:
            size: Numbers in a vector, >= 1.
        """
        p = self.inclusion(size)
        return self.pair_matrix(size) / torch.outer(p, p)

    def largest_scale(self, size: int) -> float:
        """The largest number by which an entry is ever multiplied.

        Args:
            size: Numbers in a vector, >= 1.
        """
        return 1 / float(self.inclusion(size).min())

    def one_scale(self, size: int) -> bool:
        """Whether each entry is multiplied by the same number, 1 / p, in every draw that keeps it, on every worker.

        Args:
            size: Numbers in a vector, >= 1.
        """
        p = self.inclusion(size)
        # By Cauchy and Schwarz 1 = E[w]^2 <= E[w^2] p, equal only where w is the same whenever it is not 0.
        return bool(((self.mean_square(size) * p - 1).abs() < 1e-9).all())

    @override
    def constants(self, size: int) -> Constants:
        squares = self.mean_square(size)
        return Constants(self.largest_scale(size) ** 2, float(squares.max()), float(squares.min()))


def check_diagonal(place: str, name: str, law: object) -> None:
    """Refuse what keeps no entries.

    Args:
        place: Class that was called.
        name: Of its argument.
        law: What was passed.

    Raises:
        TypeError: If it is no diagonal sketch.
    """
    if not isinstance(law, DiagonalSketch):
        raise TypeError(f"{place}: {name} must be a diagonal sketch such as RandK(0.5), got {law!r}")


def diagonal_of(draw: Whole | Diagonal, size: int, device: torch.device | str | None = None) -> Tensor:
    """The diagonal of a draw as numbers, float64 ``(size,)``.

    Args:
        draw: Of vectors.
        size: Numbers in a vector.
        device: Where, if it is the identity.
    """
    return torch.ones(size, dtype=torch.float64, device=device) if isinstance(draw, Whole) else draw.weights


__all__ = ["Constants", "Diagonal", "DiagonalSketch", "Draw", "Sketch", "Whole", "check_diagonal", "diagonal_of"]
