"""Which units nothing reads, read off the weights alone: what shrink may take out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from openwork.wiring import (
    Coupling,
    Grouping,
    Numbers,
    Traced,
    couplings,
    items,
    module_of,
    operation,
    propagate,
    with_means,
)


@dataclass(frozen=True, eq=False)
class Fold:
    """A constant channel that a bias takes over, so that nothing reads the channel any more.

    Args:
        operation: Name of the linear operation or convolution that reads it.
        weight: Name of its weight.
        bias: Name of its bias; there may be none yet.
        output: Dimension of the weight that the bias goes along.
        coupling: Number of the channel's coupling.
        unit: Number of the channel's unit.
        channel: Which channel of the weight it is.
        shift: What the bias grows by, ``(outputs,)``.
    """

    operation: str
    weight: str
    bias: str
    output: int
    coupling: int
    unit: int
    channel: int
    shift: Tensor


@dataclass(frozen=True, eq=False)
class Finding:
    """What can go.

    Args:
        grouping: Couplings, and what ties their widths together.
        dead: For each coupling, the units that nothing reads, booleans ``(width,)``; none where it is blocked.
        idle: For each coupling, the units that nothing reads although they must stay.
        folds: Constants that make units dead once the biases have taken them over.
        numbers: What is known about the tensors of the graph, with the weights as they are.
        traced: The graph.
    """

    grouping: Grouping
    dead: list[Tensor]
    idle: list[Tensor]
    folds: list[Fold]
    numbers: Numbers
    traced: Traced


def find(model: nn.Module, traced: Traced, *, fold: bool) -> Finding:
    """Find the units that nothing reads.

    A unit that goes takes its rows and columns along, which may leave others unread: so it is repeated until nothing
    changes. Each repetition works on weights in which all that is dead has become zero.

    Args:
        model: As it was traced; not changed.
        traced: Its graph.
        fold: Whether constants may move into biases.

    Returns:
        What can go.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    working: dict[str, Tensor] = {name: tensor.detach() for name, tensor in tensors.items()}
    shifts: dict[str, Tensor] = {}
    folds: list[Fold] = []
    owned: set[str] = set()
    dead: list[Tensor] | None = None
    as_it_is: Numbers | None = None
    while True:
        numbers = Numbers(traced, working, shifts)
        as_it_is = as_it_is or numbers
        grouping = couplings(propagate(traced, numbers))
        grouping = replace(grouping, couplings=with_means(model, grouping.couplings))
        found = [_unread(coupling) & (not coupling.blocked) for coupling in grouping.couplings]
        new = _constants(model, traced, grouping, numbers, working) if fold else []
        if not new and dead is not None and all(map(torch.equal, found, dead)):
            idle = [_unread(coupling) & coupling.blocked for coupling in grouping.couplings]
            return Finding(grouping, dead, idle, folds, as_it_is, traced)
        before = dead or [torch.zeros_like(units) for units in found]
        # What was dead stays so: its readers have become zero.
        dead = [units | old for units, old in zip(found, before, strict=True)]
        for coupling, units, old in zip(grouping.couplings, dead, before, strict=True):
            _clear(coupling, units & ~old, working, owned)
        for one in new:
            # Other channels of the unit, such as other positions, may not be constant.
            _zero(working, owned, one.weight, 1 - one.output, torch.tensor([one.channel]))
            shifts[one.operation] = shifts.get(one.operation, torch.zeros_like(one.shift)) + one.shift
        folds += new


def _unread(coupling: Coupling) -> Tensor:
    return torch.zeros(coupling.width, dtype=torch.bool) if coupling.read is None else ~coupling.read


def _clear(coupling: Coupling, units: Tensor, working: dict[str, Tensor], owned: set[str]) -> None:
    """Make all slices of some units zero."""
    if not units.any():
        return
    for part in (*coupling.producers, *coupling.consumers):
        indices = part.along(units, False).flatten().nonzero().flatten()
        _zero(working, owned, part.name, part.dim, indices)


def _zero(working: dict[str, Tensor], owned: set[str], name: str, dim: int, indices: Tensor) -> None:
    if name not in owned:
        working[name] = working[name].clone()
        owned.add(name)
    working[name].index_fill_(dim, indices.to(working[name].device), 0)


def _constants(
    model: nn.Module, traced: Traced, grouping: Grouping, numbers: Numbers, working: Mapping[str, Tensor]
) -> list[Fold]:
    """Constants that reach a linear operation or a convolution, whose bias could take them over."""
    readers = {
        (part.name, part.dim): (which, part.units)
        for which, coupling in enumerate(grouping.couplings)
        if not coupling.blocked
        for part in coupling.consumers
    }
    found: list[Fold] = []
    for node in traced.graph.nodes:
        place = _Reader.of(node, model, traced)
        if place is None or (place.weight, place.dim) not in readers:
            continue
        which, units = readers[place.weight, place.dim]
        constants = place.constants(numbers)
        if constants is None:
            continue
        weight = working[place.weight].double()
        # (outputs, inputs), summed over the kernel if there is one.
        matrix = weight.movedim(place.dim, 1).unsqueeze(-1).flatten(2).sum(dim=2)
        for k in map(int, (constants.nan_to_num() != 0).nonzero().flatten()):
            if units[k] >= 0 and bool(matrix[:, k].any()):
                shift = (matrix[:, k] * constants[k].double()).to(working[place.weight].dtype)
                found.append(Fold(node.name, place.weight, place.bias, 1 - place.dim, which, int(units[k]), k, shift))
    return found


_READ_BIAS = frozenset(kind.forward for kind in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))


@dataclass(frozen=True)
class _Reader:
    """A linear operation or convolution whose weight and bias are parameters of their own.

    Args:
        node: The operation.
        source: What it reads.
        weight: Name of the weight.
        dim: Dimension of the weight that indexes what is read.
        bias: Name of the bias, which may not be there yet.
        channel_dim: Dimension of the input that indexes its channels, counted from the end.
    """

    node: fx.Node
    source: fx.Node
    weight: str
    dim: int
    bias: str
    channel_dim: int

    @classmethod
    def of(cls, node: fx.Node, model: nn.Module, traced: Traced) -> "_Reader | None":
        """The reader that an operation is; None if it is none, or pads what it reads."""
        if node.op != "call_function":
            return None
        name = operation(node)
        args = [*node.args, None, None, None]
        match name:
            case "linear":
                source, weight, bias = args[:3]
                dim = 1
            case "addmm":
                bias, source, weight = args[:3]
                dim = 0
                if node.kwargs:
                    # Factors of its own.
                    return None
            case "conv1d" | "conv2d" | "conv3d":
                source, weight, bias = args[:3]
                dim = 1
                padding = node.args[4] if len(node.args) > 4 else node.kwargs.get("padding", 0)
                groups = node.args[6] if len(node.args) > 6 else node.kwargs.get("groups", 1)
                if groups != 1 or (padding not in (0, "valid") and set(items(padding)) != {0}):
                    return None
            case _:
                return None
        if not isinstance(weight, fx.Node) or not isinstance(source, fx.Node) or len(weight.users) > 1:
            return None
        name_of = traced.parameters.get(weight.name)
        if name_of is None:
            return None
        if isinstance(bias, fx.Node):
            bias_name = traced.parameters.get(bias.name)
            if bias_name is None or len(bias.users) > 1:
                return None
        else:
            owner, _, local = name_of.rpartition(".")
            layer = model.get_submodule(owner)
            # A bias that is not there yet is read by layers of torch alone, and only where they run themselves.
            own = type(layer).forward in _READ_BIAS and module_of(node) == owner
            if not own or local != "weight" or layer.bias is not None:
                return None
            bias_name = f"{owner}.bias" if owner else "bias"
        ndim = len(weight.meta["val"].shape)
        return cls(node, source, name_of, dim, bias_name, -1 if ndim == 2 else 1 - ndim)

    def constants(self, numbers: Numbers) -> Tensor | None:
        """The number that each channel is everywhere, NaN where it is none; None if that is so for all."""
        known = numbers[self.source]
        if not isinstance(known, Tensor) or not known.is_floating_point() or known.numel() == 0:
            return None
        rows = known.movedim(self.channel_dim, 0).reshape(known.shape[self.channel_dim], -1)
        constants = torch.where((rows == rows[:, :1]).all(dim=1), rows[:, 0], torch.nan)
        return constants if bool(constants.nan_to_num().any()) else None


__all__ = ["Finding", "Fold", "find"]
