"""Units that are written down by hand, for models whose wiring cannot be traced."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

import torch
from torch import Tensor, nn

from openwork.wiring import AxisSlices, Coupling, parameter_names

Role = Literal["in", "out"]


@dataclass(frozen=True)
class UnitSlices:
    """Where the units of a group lie along one dimension of one tensor.

    From ``start`` to ``stop``, index i belongs to unit ``((i - start) // stride) % width``: ``stride`` indices of the
    first unit, then those of the second one, and from the first one again after the last, as in a fused projection of
    gates and values.

    Args:
        name: Of a parameter, or of a buffer with running statistics, whose role is ``"in"``.
        dim: The dimension; negative ones count from the end.
        role: ``"in"`` writes the units, such as rows of a weight, its bias, and a BatchNorm behind them; ``"out"``
            reads them, such as columns of a weight, and is what a sketch multiplies.
        stride: Indices of one unit next to each other, >= 1: the entries of a head, the positions of a channel.
        start: First index.
        stop: Index after the last; the length of the dimension if left out.
    """

    name: str
    dim: int
    role: Role
    stride: int = 1
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class GroupSpec:
    """A group of units by hand: ``GroupSpec(...).coupling(model)`` is used as those of ``wiring.inspect`` are.

    Nothing but the comparison of ``SketchedModule(mode="slice")`` shows whether the slices belong together.

    Args:
        width: Number of units, >= 1.
        slices: Where they lie, with at least one ``"out"``.
        attributes: Of modules, as path and name with dots between, whose number counts the units or a multiple of them,
            such as ``"experts.num_experts"``; needed where the model's own code asks for it.

    Raises:
        ValueError: If ``width``, a ``role`` or a ``stride`` is out of range, or nothing is read.
    """

    width: int
    slices: Sequence[UnitSlices]
    attributes: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"GroupSpec: width must be at least 1, got {self.width}")
        for part in self.slices:
            if part.role not in ("in", "out"):
                raise ValueError(f"GroupSpec: the role of {part.name!r} must be 'in' or 'out', got {part.role!r}")
            if part.stride < 1:
                raise ValueError(f"GroupSpec: the stride of {part.name!r} must be at least 1, got {part.stride}")
        if all(part.role == "in" for part in self.slices):
            raise ValueError("GroupSpec: nothing reads the units; list what does with the role 'out'")

    def coupling(self, model: nn.Module) -> Coupling:
        """The group in a model.

        Args:
            model: That has the tensors.

        Returns:
            Producers are the slices "in", consumers the slices "out".

        Raises:
            ValueError: If a tensor is not there, has no such dimension, has a length that does not fit, is tied to one
                that is not in the group, or is read without being trainable; or an attribute is not there.
        """
        first = {name: names[0] for names in parameter_names(model).values() for name in names}
        buffers = dict(model.named_buffers())
        sides: dict[str, dict[tuple[str, int], Tensor]] = {"in": {}, "out": {}, "statistics": {}}
        for part in self.slices:
            if part.name not in first and part.name not in buffers:
                raise ValueError(
                    f"GroupSpec: {type(model).__name__} has no tensor {part.name!r}; "
                    f"nearest are {', '.join(get_close_matches(part.name, [*first, *buffers], cutoff=0.0))}"
                )
            name = first.get(part.name, part.name)
            tensor = model.get_parameter(name) if name in first else buffers[name]
            dim = self._check(part, tensor, statistic=name not in first)
            side = sides["statistics" if name not in first else part.role]
            units = side.setdefault((name, dim), torch.full((tensor.shape[dim],), -1))
            here = slice(part.start, tensor.shape[dim] if part.stop is None else part.stop)
            if bool((units[here] >= 0).any()):
                raise ValueError(
                    f"GroupSpec: two slices of {part.name!r} overlap in dimension {dim}; give each its start and stop"
                )
            units[here] = (torch.arange(units[here].numel()) // part.stride) % self.width
        self._check_ties(model)
        self._check_attributes(model)
        tensors = {**dict(model.named_parameters()), **buffers}
        made = {
            side: tuple(
                AxisSlices(name, dim, tuple(tensors[name].shape), units) for (name, dim), units in found.items()
            )
            for side, found in sides.items()
        }
        return Coupling(self.width, made["in"], made["out"], made["statistics"], attributes=tuple(self.attributes))

    def _check(self, part: UnitSlices, tensor: Tensor, *, statistic: bool) -> int:
        """The dimension of slices that fit.

        Raises:
            ValueError: If they do not.
        """
        shape = tuple(tensor.shape)
        if not -tensor.ndim <= part.dim < tensor.ndim:
            raise ValueError(f"GroupSpec: {part.name!r} of shape {shape} has no dimension {part.dim}")
        dim = part.dim % tensor.ndim
        stop = shape[dim] if part.stop is None else part.stop
        if not 0 <= part.start < stop <= shape[dim]:
            raise ValueError(
                f"GroupSpec: start {part.start} and stop {stop} of {part.name!r} must lie in order within the "
                f"{shape[dim]} indices of dimension {dim}"
            )
        if (stop - part.start) % (self.width * part.stride):
            raise ValueError(
                f"GroupSpec: {stop - part.start} indices of dimension {dim} of {part.name!r}, of shape {shape}, are no "
                f"multiple of {self.width} units of {part.stride}; change width, stride, start or stop"
            )
        if part.role == "out" and (statistic or not tensor.is_floating_point() or not tensor.requires_grad):
            what = "a buffer" if statistic else "frozen" if tensor.is_floating_point() else f"of {tensor.dtype}"
            raise ValueError(
                f"GroupSpec: {part.name!r} is {what} and cannot be sketched; list trainable weights as 'out'"
            )
        return dim

    def _check_ties(self, model: nn.Module) -> None:
        """Refuse to cut a shared tensor in one of its places alone.

        Raises:
            ValueError: If a name of it is missing.
        """
        for names in parameter_names(model).values():
            listed = [part for part in self.slices if part.name in names]
            for part in listed:
                for name in names:
                    dims = [other.dim % model.get_parameter(name).ndim for other in listed if other.name == name]
                    if part.dim % model.get_parameter(name).ndim not in dims:
                        raise ValueError(
                            f"GroupSpec: {part.name!r} is the same tensor as {name!r}, which the group leaves out; "
                            f"list dimension {part.dim} of both, or untie them"
                        )

    def _check_attributes(self, model: nn.Module) -> None:
        """Refuse attributes that are not there or do not count units.

        Raises:
            ValueError: If there is one.
        """
        modules = dict(model.named_modules())
        for attribute in self.attributes:
            path, _, name = attribute.rpartition(".")
            value = getattr(modules.get(path), name, None)
            if not isinstance(value, int) or value % self.width:
                raise ValueError(
                    f"GroupSpec: attribute {attribute!r} must hold {self.width} or a multiple of it, got {value!r}"
                )


__all__ = ["GroupSpec", "Role", "UnitSlices"]
