"""The network that a draw over units leaves: really smaller, with the loss and the gradients of the masked one."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from openwork.forward_pass import arguments, first_line, tensors
from openwork.shrinking import NotEqual
from openwork.shrinking.attributes import Attributes
from openwork.shrinking.cutting import Blueprint
from openwork.shrinking.verification import TOLERANCES, relative
from openwork.sketches.families import Family, Units
from openwork.sketches.key import Key
from openwork.sketches.tensor_slices import Layout, TensorSlices, axes
from openwork.wiring import prepared

# Networks that are remembered; they hold no numbers.
_REMEMBERED = 64


@dataclass(frozen=True, eq=False)
class Sliced:
    """A draw over units as a smaller network.

    Args:
        skeleton: The network without numbers, on the device "meta"; draws of the same widths share it.
        slices: What is left of parameters and buffers, by first name; those that are not there stay whole.
    """

    skeleton: nn.Module
    slices: Mapping[str, TensorSlices]

    def of(self, name: str) -> TensorSlices:
        """What is left of a tensor.

        Args:
            name: First name of a parameter or buffer.
        """
        return self.slices.get(name, _WHOLE)


_WHOLE = TensorSlices({})


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Units that are kept, and what that means for tensors.

    Args:
        kept: How many units of each family.
        weights: The diagonals over units of each family, and 1 for what has no unit.
        stays: Indices by name and dimension.
        lengths: Numbers of them for each layout.
    """

    kept: list[int]
    weights: list[Tensor]
    stays: dict[str, dict[int, Tensor]]
    lengths: tuple[int, ...]


class Slicer:
    """Turns draws over the units of a module into smaller networks.

    A network is built once for each choice of widths, and compared with the masked module on the example inputs, in
    evaluation mode and with perturbed weights. The last 64 are remembered: a law that keeps a fixed number of units
    needs one, others build a new one for most draws.

    Args:
        module: The whole network.
        families: What is drawn.
        shifts: The shift of every sketched parameter; None stands for zeros.
        example_inputs: For the comparison.

    Raises:
        ValueError: If a family has no units, a shift is not zero where units are dropped, the numbers of kept units
            differ where they must be equal, or the module does not run on ``example_inputs``.
    """

    def __init__(
        self,
        module: nn.Module,
        families: Sequence[Family],
        shifts: Mapping[str, Tensor | None],
        example_inputs: object,
    ) -> None:
        self.module = module
        self.families = [family for family in families if isinstance(family, Units)]
        if len(self.families) < len(families):
            raise ValueError("SketchedModule: only whole units can be sliced; take granularity='units', or mode='mask'")
        _check_shifts(self.families, shifts)
        _check_counts(self.families)
        self._given = arguments("SketchedModule", example_inputs)
        self._blueprint = Blueprint.of(module, example_inputs)
        self._layouts, self._axes = axes(self.families)
        self._on: dict[torch.device, list[Layout]] = {}
        self._skeletons: OrderedDict[tuple[int, ...], nn.Module] = OrderedDict()

    def draw(self, key: Key, *, scaled: bool) -> Sliced:
        """Draw units, and find or build the network that they leave.

        Args:
            key: What names the draw.
            scaled: Whether what is kept is multiplied by its scale.

        Raises:
            NotEqual: If that network does not compute what the masked module does.
        """
        device = self._device
        weights = [family.weights(key, device) for family in self.families]
        kept = [
            int((one != 0).sum()) if (count := family.law.fixed_count(family.size)) is None else count
            for family, one in zip(self.families, weights, strict=True)
        ]
        drawn = self._drawn(weights if scaled else [(one != 0).to(one.dtype) for one in weights], kept)
        skeleton = self._skeletons.pop(drawn.lengths, None) or self._built(drawn)
        self._skeletons[drawn.lengths] = skeleton
        if len(self._skeletons) > _REMEMBERED:
            self._skeletons.popitem(last=False)
        return Sliced(skeleton, self._slices(drawn, scaled=scaled))

    def run(self, key: Key, args: tuple[Any, ...], kwargs: dict[str, Any], *, scaled: bool) -> Any:
        """Run the network that a draw leaves; differentiable in the parameters of the module.

        Args:
            key: What names the draw.
            args: Positional arguments of the module.
            kwargs: Keyword arguments.
            scaled: As for ``draw``.

        Returns:
            Its outputs. In training mode, running statistics of the units that were kept are written back.
        """
        sliced = self.draw(key, scaled=scaled)
        follow_modes_(sliced.skeleton, self.module)
        small = {name: sliced.of(name).take(x) for name, x in named_tensors(self.module).items()}
        output = functional_call(sliced.skeleton, small, args, kwargs)
        if self.module.training:
            for name, buffer in self.module.named_buffers():
                if name in sliced.slices:
                    sliced.of(name).put_(buffer, small[name])
        return output

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device

    def _layouts_on(self, device: torch.device) -> list[Layout]:
        if device not in self._on:
            self._on[device] = [layout.to(device) for layout in self._layouts]
        return self._on[device]

    def _drawn(self, weights: Sequence[Tensor], kept: list[int]) -> _Drawn:
        extended = [torch.cat([one, one.new_ones(1)]) for one in weights]
        layouts = self._layouts_on(extended[0].device)
        alive = [one != 0 for one in extended]
        dropped = [family.size - count for family, count in zip(self.families, kept, strict=True)]
        indices: dict[int, Tensor] = {}
        for at in dict.fromkeys(axis.layout for axis in self._axes):
            here = layouts[at].along(alive)
            # Their number is known, so that nobody waits for the device.
            indices[at] = torch.nonzero_static(here, size=layouts[at].left(dropped, here)).flatten()
        stays: dict[str, dict[int, Tensor]] = {}
        for axis in self._axes:
            stays.setdefault(axis.name, {})[axis.dim] = indices[axis.layout]
        return _Drawn(kept, extended, stays, tuple(i.numel() for i in indices.values()))

    def _slices(self, drawn: _Drawn, *, scaled: bool) -> dict[str, TensorSlices]:
        scales: dict[str, tuple[Tensor, ...]] = {}
        for name, dim, along in self._multipliers(drawn) if scaled else ():
            part = along.index_select(dim, drawn.stays[name][dim])
            scales[name] = (*scales.get(name, ()), part)
        return {name: TensorSlices(dims, scales.get(name, ())) for name, dims in drawn.stays.items()}

    def _multipliers(self, drawn: _Drawn) -> list[tuple[str, int, Tensor]]:
        """What parameters are multiplied by along their dimensions, by name and dimension."""
        layouts = self._layouts_on(drawn.weights[0].device)
        along: dict[int, Tensor] = {}
        found: list[tuple[str, int, Tensor]] = []
        for axis in self._axes:
            if axis.scaled is None:
                continue
            if axis.scaled not in along:
                along[axis.scaled] = layouts[axis.scaled].along(drawn.weights)
            x = self.module.get_parameter(axis.name)
            shape = [-1 if dim == axis.dim else 1 for dim in range(x.ndim)]
            found.append((axis.name, axis.dim, along[axis.scaled].to(x.dtype).view(shape)))
        return found

    def _built(self, drawn: _Drawn) -> nn.Module:
        """A network of new widths.

        Raises:
            NotEqual: If it does not compute what the masked module does.
        """
        skeleton = self._narrower(drawn)
        if trouble := self._compare(skeleton, drawn):
            empty = [family.name for family, kept in zip(self.families, drawn.kept, strict=True) if kept == 0]
            if empty:
                raise NotEqual(
                    f"SketchedModule: the draw keeps no unit of {', '.join(map(repr, empty))}, and without any the "
                    f"smaller network {trouble}; take a law that keeps at least one, such as RandK, or mode='mask'"
                )
            raise NotEqual(
                f"SketchedModule: a smaller network for the units of {self._culprits(drawn)} does not compute what the "
                f"masked one does: it {trouble}; most likely a normalization, a softmax or a mean runs over them: "
                "leave them out with groups or exclude, or take mode='mask'"
            )
        return skeleton

    def _narrower(self, drawn: _Drawn) -> nn.Module:
        attributes: Attributes = {}
        for family, kept in zip(self.families, drawn.kept, strict=True):
            for attribute in family.coupling.attributes:
                path, _, name = attribute.rpartition(".")
                before = getattr(self.module.get_submodule(path), name)
                attributes.setdefault(path, {})[name] = before * kept // family.size
        return self._blueprint.narrower(drawn.stays, attributes)

    def _compare(self, skeleton: nn.Module, drawn: _Drawn) -> str:
        """What is wrong with a network; empty if nothing is."""
        whole = _perturbed(self.module)
        slices = self._slices(drawn, scaled=True)
        small = {name: slices[name].take(x) if name in slices else x for name, x in whole.items()}
        for name, _, along in self._multipliers(drawn):
            whole[name] = whole[name] * along
        device = self._device
        args, kwargs = pytree.tree_map_only(Tensor, lambda x: x.to(device), self._given)
        with prepared(self.module), prepared(skeleton), torch.no_grad():
            expected = tensors(functional_call(self.module, whole, args, kwargs))
            try:
                found = tensors(functional_call(skeleton, small, args, kwargs))
            except Exception as error:
                # Whatever a module raises when its tensors do not fit.
                return f"does not run ({first_line(error)})"
        shapes = [[tuple(x.shape) for x in some] for some in (expected, found)]
        if shapes[0] != shapes[1]:
            return f"gives outputs of shapes {shapes[1]} in place of {shapes[0]}"
        dtype = self._blueprint.dtype or next(self.module.parameters()).dtype
        tolerance = TOLERANCES.get(dtype, 5e-2)
        difference = max((relative(a, b) for a, b in zip(expected, found, strict=True) if a.numel()), default=0.0)
        # Not-a-numbers are no agreement either.
        return "" if difference <= tolerance else f"differs by {difference:.1e} of the largest output"

    def _culprits(self, drawn: _Drawn) -> str:
        """The families that differ when all others stay whole, or all."""
        guilty: list[str] = []
        for at, family in enumerate(self.families):
            weights = [
                one[:-1] if other == at else torch.ones_like(one[:-1]) for other, one in enumerate(drawn.weights)
            ]
            kept = [count if other == at else self.families[other].size for other, count in enumerate(drawn.kept)]
            alone = self._drawn(weights, kept)
            if self._compare(self._narrower(alone), alone):
                guilty.append(family.name)
        return ", ".join(map(repr, guilty or [family.name for family in self.families]))


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by first name.

    Args:
        module: Any module.
    """
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def follow_modes_(small: nn.Module, module: nn.Module) -> None:
    """Put the modules of a smaller network into the modes (training or evaluation) of the whole one's.

    Args:
        small: Changed in place.
        module: The whole network.
    """
    modes = {path: other.training for path, other in module.named_modules()}
    for path, own in small.named_modules():
        own.training = modes.get(path, module.training)


def _perturbed(module: nn.Module) -> dict[str, Tensor]:
    """Tensors of a module, whose parameters are moved: zeros and ones, as at a start, would hide differences."""
    found = {name: x.detach() for name, x in named_tensors(module).items()}
    for at, (name, parameter) in enumerate(module.named_parameters()):
        if parameter.is_floating_point():
            generator = torch.Generator(parameter.device).manual_seed(at)
            noise = torch.randn(parameter.shape, generator=generator, device=parameter.device, dtype=torch.float32)
            size = float(found[name].abs().mean()) if parameter.numel() else 0.0
            found[name] = found[name] + noise.to(parameter.dtype) * (size / 2 or 0.02)
    return found


def _check_counts(families: Sequence[Units]) -> None:
    """Refuse laws that keep a random number of units where several couplings must keep equally many.

    Raises:
        ValueError: If there is one.
    """
    for family in families:
        equal = [remark.text for remark in family.coupling.remarks if remark.kind == "equal"]
        if equal and family.law.fixed_count(family.size) is None:
            raise ValueError(
                f"SketchedModule: {type(family.law).__name__} keeps a random number of the units of {family.name!r}, "
                f"and several couplings must keep equally many ({equal[0]}); take RandK, or mode='mask'"
            )


def _check_shifts(families: Sequence[Units], shifts: Mapping[str, Tensor | None]) -> None:
    """Refuse a shift where units are dropped: in place of nothing, it would stand there.

    Raises:
        ValueError: If there is one.
    """
    for family in families:
        for part in family.slices:
            v = shifts.get(part.name)
            if v is not None and bool(
                v.index_select(part.dim, (part.units >= 0).nonzero().flatten().to(v.device)).any()
            ):
                raise ValueError(
                    f"SketchedModule: the shift of {part.name!r} is not zero, so that a unit which is dropped still "
                    "counts and cannot be sliced off; take shift='zero', or mode='mask'"
                )


__all__ = ["Sliced", "Slicer", "follow_modes_", "named_tensors"]
