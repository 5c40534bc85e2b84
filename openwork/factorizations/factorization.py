"""How a tensor is computed from factors."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized


class Factorization(nn.Module, ABC):
    """How one tensor of a model is computed from factors, registered as a parametrization of it.

    Some factors may be shared with other tensors: those come last. What is divided into groups is the product, and a
    group is zero if all its entries are: ``groups`` numbers, which are the same for all that share factors.

    Args:
        depth: Number D of factors of each entry, >= 2.
        lam: Strength of the penalty that L2 on the factors is for the product, ``lam * sum_j size_j^(2/D)``.
        dtype: Of the tensor; factors are in float32 at least.
    """

    def __init__(self, depth: int, lam: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.depth = depth
        self.lam = lam
        self.dtype = dtype
        #: Names of all parameters of the module that holds the tensor, in the order they had.
        self.order: tuple[str, ...] = ()
        #: Whether other tensors share factors with it.
        self.joined = False

    @property
    def decay(self) -> float:
        """Weight decay of every factor, ``2 lam / D``: what an optimizer adds to the gradient, times the factor."""
        return 2 * self.lam / self.depth

    #: Number of factors, just before the shared ones, that are in no group: they stay as they are, without decay.
    free: int = 0

    #: A group's size is the sum of the masses of its parts in all tensors, to the power ``1 / exponent``, times the
    #: magnitudes of the shared factors.
    exponent: float = 1.0

    @abstractmethod
    def forward(self, *factors: Tensor) -> Tensor:
        """The tensor.

        Args:
            *factors: As ``right_inverse`` gives them.
        """

    @abstractmethod
    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Factors whose product is a tensor, to rounding, or the best approximation of it.

        Args:
            weight: Like the tensor.
        """

    @abstractmethod
    def squares(self, factors: Sequence[Tensor]) -> list[Tensor]:
        """Sum of squares of each factor that is not shared, for each group; of shape ``groups``."""

    @abstractmethod
    def shared(self, factors: Sequence[Tensor]) -> list[Tensor]:
        """Factors that are shared, of shape ``groups``; the last of ``factors``."""

    @abstractmethod
    def mass(self, factors: Sequence[Tensor]) -> Tensor:
        """What the product of the factors that are not shared adds to the size of each group; of shape ``groups``."""

    @abstractmethod
    def counts(self, factors: Sequence[Tensor]) -> Tensor:
        """How many entries of the tensor each group has; of shape ``groups``."""

    def low_rank(self, factors: Sequence[Tensor]) -> tuple[Tensor, Tensor] | None:
        """Two matrices whose product is the weight of a layer, as ``(outputs, inputs * kernel)``.

        Args:
            factors: As ``right_inverse`` gives them.

        Returns:
            Of shapes ``(outputs, rank)`` and ``(rank, inputs * kernel)``; None if the factors are something else.
        """
        return None

    @abstractmethod
    def zero_(self, factors: Sequence[Tensor], small: Tensor) -> None:
        """Make groups zero, and all their factors.

        Args:
            factors: Written.
            small: Which groups, booleans of shape ``groups``.
        """


class Part:
    """One tensor that is factorized, in its place.

    Args:
        name: Qualified name of the tensor in the model.
        owner: The module that holds it.
        local: Its name there.
    """

    def __init__(self, name: str, owner: nn.Module, local: str) -> None:
        self.name = name
        self.owner = owner
        self.local = local

    @property
    def steps(self) -> ParametrizationList:
        """Where the factors are."""
        return cast("ParametrizationList", cast("nn.ModuleDict", self.owner.parametrizations)[self.local])

    @property
    def factorization(self) -> Factorization:
        """How the tensor is computed."""
        return cast("Factorization", self.steps[0])

    @property
    def factors(self) -> list[nn.Parameter]:
        """The factors, shared ones last."""
        return [getattr(self.steps, f"original{i}") for i in range(self.steps.ntensors)]

    @property
    def penalized(self) -> list[nn.Parameter]:
        """The factors that have a weight decay: all but free ones."""
        factors, made = self.factors, self.factorization
        end = len(factors) - len(made.shared(factors))
        return [*factors[: end - made.free], *factors[end:]]

    @property
    def value(self) -> Tensor:
        """The product."""
        return getattr(self.owner, self.local)

    def share(self, factors: Sequence[nn.Parameter], start: int) -> None:
        """Take factors from elsewhere, from the one at ``start`` on."""
        for i, factor in enumerate(factors, start):
            setattr(self.steps, f"original{i}", factor)


class Block:
    """Tensors that are factorized together, since they share factors; mostly one.

    Args:
        parts: At least one.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)

    @property
    def name(self) -> str:
        """Name of the first tensor."""
        return self.parts[0].name

    @property
    def depth(self) -> int:
        """Number of factors."""
        return self.parts[0].factorization.depth

    @property
    def lam(self) -> float:
        """Strength."""
        return self.parts[0].factorization.lam

    def squares(self) -> list[Tensor]:
        """Squares of each factor, summed over every group: D tensors of one shape."""
        own = [part.factorization.squares(part.factors) for part in self.parts]
        first = self.parts[0]
        gates = [gate.square() for gate in first.factorization.shared(first.factors)]
        return [*(torch.stack(same).sum(dim=0) for same in zip(*own, strict=True)), *gates]

    def magnitudes(self) -> Tensor:
        """Size of every group of the product: of an entry its magnitude, of a larger group its norm."""
        first = self.parts[0].factorization
        size = torch.stack([part.factorization.mass(part.factors) for part in self.parts]).sum(dim=0)
        if first.exponent != 1:
            size = size ** (1 / first.exponent)
        for gate in first.shared(self.parts[0].factors):
            size = size * gate.abs()
        return size

    def counts(self) -> Tensor:
        """How many entries every group has, over all tensors."""
        return torch.stack([part.factorization.counts(part.factors) for part in self.parts]).sum(dim=0)

    @torch.no_grad()
    def zero_below_(self, threshold: float) -> Tensor:
        """Make groups whose size is below a threshold zero, and all their factors.

        Args:
            threshold: >= 0.

        Returns:
            Which groups, booleans.
        """
        small = self.magnitudes() < threshold
        for part in self.parts:
            part.factorization.zero_(part.factors, small)
        return small


def parametrized(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, ParametrizationList]]:
    """All tensors of a model that something computes: their name, who holds them, their name there, and how."""
    modules: dict[str, nn.Module] = dict(cast("Iterable[tuple[str, nn.Module]]", model.named_modules()))
    for path, owner in modules.items():
        if is_parametrized(owner):
            for local, steps in cast("nn.ModuleDict", owner.parametrizations).items():
                yield f"{path}.{local}" if path else local, owner, local, cast("ParametrizationList", steps)


def parts_of(model: nn.Module) -> list[Part]:
    """All tensors of a model that are factorized, each owner of a shared one, in the order of the model."""
    return [
        Part(name, owner, local)
        for name, owner, local, steps in parametrized(model)
        if isinstance(steps[0], Factorization)
    ]


def blocks_of(model: nn.Module) -> list[Block]:
    """What is factorized together in a model: tensors that share some factors, each tensor once."""
    together: dict[int, list[Part]] = {}
    seen: set[int] = set()
    for part in parts_of(model):
        factors = part.factors
        # A shared tensor has all its factors in common with its other owners.
        if id(factors[0]) not in seen:
            seen.add(id(factors[0]))
            shared = part.factorization.shared(factors)
            together.setdefault(id(shared[0] if shared else factors[0]), []).append(part)
    return [Block(parts) for parts in together.values()]


__all__ = ["Block", "Factorization", "Part", "blocks_of", "parametrized", "parts_of"]
