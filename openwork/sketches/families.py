"""What one law sketches in a model: the entries of a tensor, those of several together, or the units of a coupling."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal, final

import torch
from torch import Tensor
from typing_extensions import override

from openwork.sketches.key import Key
from openwork.sketches.sketch import Diagonal, DiagonalSketch, Draw, Sketch, Whole
from openwork.wiring import AxisSlices, Coupling

ScaleSide = Literal["outgoing", "all"]


@final
@dataclass(frozen=True, eq=False)
class Flat(Draw):
    """A map of vectors, for tensors of another shape."""

    inner: Draw

    @override
    def apply(self, x: Tensor) -> Tensor:
        return self.inner.apply(x.flatten()).view_as(x)

    @override
    def adjoint(self, x: Tensor) -> Tensor:
        return self.inner.adjoint(x.flatten()).view_as(x)


class Family(ABC):
    """Parameters that one draw sketches."""

    name: str

    @property
    @abstractmethod
    def size(self) -> int:
        """Entries or units among which the law draws."""

    @property
    @abstractmethod
    def parameters(self) -> tuple[str, ...]:
        """Names of what is sketched."""

    @abstractmethod
    def sample(self, key: Key, device: torch.device) -> dict[str, Draw]:
        """Draw once.

        Args:
            key: Without the family's name.
            device: Where.

        Returns:
            Maps by the name of the parameter.
        """

    @abstractmethod
    def complements(self, key: Key, device: torch.device) -> tuple[dict[str, Draw], ...]:
        """Draw several that make up for each other, see ``Sketch.complements``.

        Args:
            key: Without the family's name.
            device: Where.

        Returns:
            Maps by the name of the parameter, for each of them.
        """

    @abstractmethod
    def maps(self, weights: Tensor) -> dict[str, Diagonal]:
        """What multiplies every entry or unit by a number.

        Args:
            weights: Float64 ``(size,)``, on the device of the parameters.

        Returns:
            Maps by the name of the parameter.
        """

    @abstractmethod
    def magnitudes(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Absolute values of the entries, or norms of all that reads a unit; ``(size,)``.

        Args:
            tensors: By the names of the parameters.
        """


@final
@dataclass(frozen=True, eq=False)
class Entries(Family):
    """All entries of one or several tensors, drawn together.

    Args:
        name: Of the family.
        law: Of the sketch.
        shapes: By the names of the parameters.
    """

    name: str
    law: Sketch
    shapes: Mapping[str, torch.Size]

    @property
    @override
    def size(self) -> int:
        return sum(shape.numel() for shape in self.shapes.values())

    @property
    @override
    def parameters(self) -> tuple[str, ...]:
        return tuple(self.shapes)

    @override
    def sample(self, key: Key, device: torch.device) -> dict[str, Draw]:
        return self._maps(self.law.sample(key.at(family=self.name), self.size, device))

    @override
    def complements(self, key: Key, device: torch.device) -> tuple[dict[str, Draw], ...]:
        draws = self.law.complements(key.at(family=self.name), self.size, device)
        return tuple(self._maps(draw) for draw in draws)

    @override
    def maps(self, weights: Tensor) -> dict[str, Diagonal]:
        parts = weights.split([shape.numel() for shape in self.shapes.values()])
        return {n: Diagonal(w.view(s)) for (n, s), w in zip(self.shapes.items(), parts, strict=True)}

    @override
    def magnitudes(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([tensors[name].detach().abs().flatten() for name in self.shapes])

    def _maps(self, draw: Draw) -> dict[str, Draw]:
        if isinstance(draw, Whole):
            return dict.fromkeys(self.shapes, draw)
        if isinstance(draw, Diagonal):
            return dict(self.maps(draw.weights))
        if len(self.shapes) > 1:
            raise ValueError(f"{self.name!r}: only a diagonal sketch can be drawn for several tensors together")
        return {name: Flat(draw) for name in self.shapes}


@final
@dataclass(frozen=True, eq=False)
class Units(Family):
    """The units of a coupling: neurons, channels, heads.

    Args:
        name: Of the family.
        law: Of the sketch, over units.
        coupling: Which slices belong to each unit.
        side: ``"outgoing"`` multiplies what reads a unit, as inverted dropout does; ``"all"`` also what writes it, by
            which a ReLU unit counts 1 / p times too much: for theory only.
    """

    name: str
    law: DiagonalSketch
    coupling: Coupling
    side: ScaleSide = "outgoing"

    @property
    def slices(self) -> tuple[AxisSlices, ...]:
        """What is multiplied."""
        consumers = self.coupling.consumers
        return consumers if self.side == "outgoing" else (*self.coupling.producers, *consumers)

    @property
    @override
    def size(self) -> int:
        return self.coupling.width

    @property
    @override
    def parameters(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part.name for part in self.slices))

    def weights(self, key: Key, device: torch.device | None = None) -> Tensor:
        """The diagonal over units, float64 ``(size,)``; 0 where a unit is dropped.

        Args:
            key: Without the family's name.
            device: Where.
        """
        return self._weights(self.law.sample(key.at(family=self.name), self.size, device), device)

    def _weights(self, draw: Draw, device: torch.device | None) -> Tensor:
        return draw.weights if isinstance(draw, Diagonal) else torch.ones(self.size, dtype=torch.float64, device=device)

    @override
    def sample(self, key: Key, device: torch.device) -> dict[str, Draw]:
        return dict(self.maps(self.weights(key, device)))

    @override
    def complements(self, key: Key, device: torch.device) -> tuple[dict[str, Draw], ...]:
        draws = self.law.complements(key.at(family=self.name), self.size, device)
        return tuple(dict(self.maps(self._weights(draw, device))) for draw in draws)

    @override
    def magnitudes(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return self.coupling.sum({name: x.detach().square() for name, x in tensors.items()}).sqrt()

    @override
    def maps(self, weights: Tensor) -> dict[str, Diagonal]:
        device = weights.device
        found: dict[str, list[Tensor]] = {}
        for part in self.slices:
            units = part.units.to(device)
            along = torch.where(units >= 0, weights[units.clamp_min(0)], 1.0)
            shape = [-1 if dim == part.dim else 1 for dim in range(len(part.shape))]
            found.setdefault(part.name, []).append(along.view(shape))
        return {name: Diagonal(reduce(torch.mul, along)) for name, along in found.items()}


def joined(draws: Sequence[Mapping[str, Draw]]) -> dict[str, tuple[Draw, ...]]:
    """All maps of each parameter, in the order in which they act; those that change nothing are left out.

    Args:
        draws: Of the families.
    """
    found: dict[str, tuple[Draw, ...]] = {}
    for draw in draws:
        for name, one in draw.items():
            if not isinstance(one, Whole):
                found[name] = (*found.get(name, ()), one)
    return found


Families = tuple[Family, ...]

__all__ = ["Entries", "Families", "Family", "Flat", "ScaleSide", "Units", "joined"]
