"""What one law sketches in a model: the entries of a tensor, those of several together, or the units of a coupling."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor
from typing_extensions import override

from openwork.sketches.key import Key
from openwork.sketches.sketch import Diagonal, DiagonalSketch, Draw, Sketch, Whole, diagonal_of
from openwork.wiring import AxisSlices, Coupling

ScaleSide = Literal["outgoing", "all"]
# The maps of each parameter that a draw changes, one after the other.
Drawn = Mapping[str, tuple[Draw, ...]]


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


@dataclass(frozen=True, eq=False)
class Family(ABC):
    """Parameters that one draw sketches.

    Args:
        name: Part of the key of its draws.
        law: What is drawn.
    """

    name: str
    law: Sketch

    @property
    @abstractmethod
    def size(self) -> int:
        """Entries or units among which the law draws."""

    @property
    @abstractmethod
    def parameters(self) -> tuple[str, ...]:
        """Names of what is sketched."""

    def sample(self, key: Key, device: torch.device) -> dict[str, Draw]:
        """Draw once.

        Args:
            key: Without the family's name.
            device: Where.

        Returns:
            Maps by the name of the parameter.
        """
        return self.maps(self.law.sample(key.at(family=self.name), self.size, device))

    @abstractmethod
    def maps(self, draw: Draw) -> dict[str, Draw]:
        """What a draw of the law does to each parameter, by name.

        Args:
            draw: Of vectors of this size.
        """

    @abstractmethod
    def inclusion(self) -> dict[str, Tensor]:
        """Probabilities that entries are kept, by the name of the parameter; they broadcast to its shape.

        Raises:
            TypeError: If the law is not diagonal, so that it keeps no entry as it is.
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

    Raises:
        ValueError: If the law acts along an axis that a parameter does not have.
    """

    shapes: Mapping[str, torch.Size]

    def __post_init__(self) -> None:
        axis = self.law.axis
        for name, shape in self.shapes.items():
            if axis is not None and len(shape) <= axis:
                raise ValueError(
                    f"{name!r}: {type(self.law).__name__} acts along axis {axis}, which shape {tuple(shape)} does not "
                    "have; exclude this parameter"
                )

    @property
    @override
    def size(self) -> int:
        shapes, axis = self.shapes.values(), self.law.axis
        return sum(shape.numel() for shape in shapes) if axis is None else next(iter(shapes))[axis]

    @property
    @override
    def parameters(self) -> tuple[str, ...]:
        return tuple(self.shapes)

    @override
    def maps(self, draw: Draw) -> dict[str, Draw]:
        if isinstance(draw, Whole):
            return dict.fromkeys(self.shapes, draw)
        if isinstance(draw, Diagonal):
            parts = draw.diagonal.split([shape.numel() for shape in self.shapes.values()])
            return {n: Diagonal(d.view(s), draw.scale) for (n, s), d in zip(self.shapes.items(), parts, strict=True)}
        if len(self.shapes) > 1:
            raise ValueError(f"{self.name!r}: only a diagonal sketch can be drawn for several tensors together")
        return {name: Flat(draw) if self.law.axis is None else draw for name in self.shapes}

    @override
    def inclusion(self) -> dict[str, Tensor]:
        if not isinstance(self.law, DiagonalSketch):
            raise TypeError(f"{self.name!r}: {type(self.law).__name__} is no diagonal sketch; it keeps no entry")
        parts = self.law.inclusion(self.size).split([shape.numel() for shape in self.shapes.values()])
        return {n: p.view(s) for (n, s), p in zip(self.shapes.items(), parts, strict=True)}

    @override
    def magnitudes(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([tensors[name].abs().flatten() for name in self.shapes])


@final
@dataclass(frozen=True, eq=False)
class Units(Family):
    """The units of a coupling: neurons, channels, heads.

    Args:
        name: Of the family.
        law: Of the sketch, over units.
        coupling: Which slices belong to each unit.
        side: ``"outgoing"`` multiplies what reads a unit, as inverted dropout does; ``"all"`` also what writes it, by
            which a ReLU unit counts 1 / p times too much: for theory only. No parameter is in two of these slices.
    """

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
        return diagonal_of(self.law.sample(key.at(family=self.name), self.size, device), self.size, device)

    @override
    def maps(self, draw: Draw) -> dict[str, Draw]:
        if not isinstance(draw, Diagonal):
            return dict.fromkeys(self.parameters, Whole())
        return {name: Diagonal(along) for name, along in self._along(draw.weights).items()}

    @override
    def inclusion(self) -> dict[str, Tensor]:
        return self._along(self.law.inclusion(self.size))

    @override
    def magnitudes(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return self.coupling.sum({name: x.square() for name, x in tensors.items()}).sqrt()

    def _along(self, units: Tensor) -> dict[str, Tensor]:
        """Numbers of the units along their axes, 1 where there is no unit; each parameter has one axis."""
        return {part.name: part.along(units, 1.0) for part in self.slices}


def joined(draws: Sequence[Mapping[str, Draw]]) -> Drawn:
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

__all__ = ["Drawn", "Entries", "Families", "Family", "Flat", "ScaleSide", "Units", "joined"]
