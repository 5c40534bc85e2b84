"""The slices of several tensors that index the same channels."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor

Side = Literal["producers", "consumers"]
# A mean over the channels divides by their number; a channel whose producers are zero is a constant where it is read;
# units must stay as many as those of other couplings.
RemarkKind = Literal["mean", "constant", "equal"]


@dataclass(frozen=True)
class Remark:
    """What whoever removes units has to know.

    Args:
        kind: ``"mean"``: a mean over the channels divides by their number, for which the scale and eps of the module
            make up; ``"constant"``: where producers are zero, what is read is a constant, which the bias of the reader
            takes over; ``"equal"``: some couplings must keep equally many units.
        text: The same in words, with the place.
        module: Path of the module where it happens.
    """

    kind: RemarkKind
    text: str
    module: str = ""


@dataclass(frozen=True, eq=False)
class AxisSlices:
    """What belongs to each unit along one axis of one tensor.

    Args:
        name: Qualified name of the parameter or buffer.
        dim: The axis.
        shape: Shape of the tensor.
        units: For each index along the axis the number of its unit, int64 ``(shape[dim],)``; -1 where it has none. A
            unit may have several indices: the positions of a flattened channel, the entries of a head.
    """

    name: str
    dim: int
    shape: tuple[int, ...]
    units: Tensor

    def indices(self, unit: int) -> Tensor:
        """The indices of one unit along the axis, int64."""
        return (self.units == unit).nonzero().flatten()

    @property
    def entries(self) -> int:
        """Number of entries that belong to any unit."""
        return int((self.units >= 0).sum()) * (prod(self.shape) // self.shape[self.dim])

    @property
    def multiplicity(self) -> int:
        """Largest number of indices that one unit has."""
        known = self.units[self.units >= 0]
        return int(known.bincount().max()) if known.numel() else 0

    def sum(self, x: Tensor, width: int) -> Tensor:
        """Sum of the entries of each unit, shape ``(width,)``."""
        rows = x.movedim(self.dim, 0).flatten(1).sum(dim=1) if x.ndim > 1 else x
        known = self.units.to(x.device) >= 0
        return x.new_zeros(width).index_add(0, self.units.to(x.device)[known], rows[known])

    def along(self, g: Tensor, outside: float) -> Tensor:
        """Give every index along the axis the number of its unit; broadcasts to the tensor.

        Args:
            g: One number or boolean per unit, on any device.
            outside: For an index without a unit.
        """
        units = self.units.to(g.device)
        rows = torch.where(units >= 0, g[units.clamp_min(0)], outside)
        return rows.view([-1 if dim == self.dim else 1 for dim in range(len(self.shape))])

    def spread(self, g: Tensor) -> Tensor:
        """Give every entry the number of its unit, or zero if it has none; of the tensor's shape."""
        return self.along(g, 0).expand(self.shape)


@dataclass(frozen=True, eq=False)
class Coupling:
    """Channels that are produced and consumed together, one unit at a time.

    If the producer slices of a unit are zero, its channel is exactly zero wherever it goes (a constant where a remark
    says so), and the consumer slices of the unit do not matter. A weight whose output is one coupling and whose input
    is another belongs to both.

    Args:
        width: Number of units.
        producers: What writes the channel: rows of weights, biases, scales and shifts of normalizations.
        consumers: What reads it: columns of weights.
        statistics: Buffers with an entry per channel, such as running means: cut with it, never penalized.
        reasons: Why no unit can be removed; empty if units can.
        remarks: What has to be adjusted when units are removed.
        read: Whether anything sees more than zeros in a unit, booleans ``(width,)``; None if nobody has looked at the
            weights. What nothing reads can go.
        attributes: What counts the units in modules and cannot be found out, as path and name with dots between.
    """

    width: int
    producers: tuple[AxisSlices, ...]
    consumers: tuple[AxisSlices, ...]
    statistics: tuple[AxisSlices, ...] = ()
    reasons: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()
    read: Tensor | None = None
    attributes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The first parameter of the coupling."""
        return next((part.name for part in self.slices()), "")

    @property
    def blocked(self) -> bool:
        """Whether no unit can be removed."""
        return bool(self.reasons)

    def slices(self) -> tuple[AxisSlices, ...]:
        """All that has to be cut when units are removed, each axis once."""
        unique = {(part.name, part.dim): part for part in (*self.producers, *self.consumers, *self.statistics)}
        return tuple(unique.values())

    @property
    def saving(self) -> int:
        """Parameters that go when all units but one go; 0 if blocked."""
        if self.blocked:
            return 0
        statistics = {part.name for part in self.statistics}
        entries = sum(part.entries for part in self.slices() if part.name not in statistics)
        return entries * (self.width - 1) // self.width

    def side(self, side: Side) -> tuple[AxisSlices, ...]:
        """Slices of one side.

        Raises:
            ValueError: If ``side`` is neither ``"producers"`` nor ``"consumers"``.
        """
        if side not in ("producers", "consumers"):
            raise ValueError(f"Coupling: side must be 'producers' or 'consumers', got {side!r}")
        return self.producers if side == "producers" else self.consumers

    def sum(self, tensors: Mapping[str, Tensor], side: Side = "consumers") -> Tensor:
        """Sum over each unit.

        Args:
            tensors: A tensor for each name of the side, shaped like the parameter; others are ignored.
            side: Which slices.

        Returns:
            One number per unit, shape ``(width,)``.

        Raises:
            ValueError: If a tensor is missing or has another shape, or the side has no slices.
        """
        parts = self.side(side)
        if not parts:
            raise ValueError(f"Coupling {self.name!r} has no {side}; use the other side")
        for part in parts:
            shape = tuple(tensors[part.name].shape) if part.name in tensors else None
            if shape != part.shape:
                raise ValueError(
                    f"Coupling {self.name!r}: tensors[{part.name!r}] must have shape {part.shape}, got {shape}; "
                    "pass one tensor for each parameter of the side"
                )
        return torch.stack([part.sum(tensors[part.name], self.width) for part in parts]).sum(dim=0)

    def spread(self, g: Tensor, side: Side = "consumers") -> dict[str, Tensor]:
        """Give every entry the number of its unit; the adjoint of ``sum``.

        Args:
            g: One number per unit, shape ``(width,)``.
            side: Which slices.

        Returns:
            A tensor for each name of the side, shaped like the parameter; zero where an entry is in no unit.

        Raises:
            ValueError: If ``g`` has another shape.
        """
        if tuple(g.shape) != (self.width,):
            raise ValueError(
                f"Coupling {self.name!r}: g must have shape ({self.width},), got {tuple(g.shape)}; "
                "pass one number per unit"
            )
        return {part.name: part.spread(g) for part in self.side(side)}


__all__ = ["AxisSlices", "Coupling", "Remark", "Side"]
