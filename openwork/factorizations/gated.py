"""Gates: a whole group of weights is multiplied by a few numbers of its own."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from openwork.factorizations.factorization import Factorization
from openwork.factorizations.forms import Form, Planned, Request
from openwork.factorizations.initializations import Initialization, Split, UnitGate
from openwork.factorizations.products import product
from openwork.factorizations.units import Units, units_of_layers
from openwork.wiring import AxisSlices, Coupling, Side, choose, inspect, reasons, role_of

Start = Literal["ones", "balanced"]
GroupScale = Literal["none", "sqrt"]

V = TypeVar("V", int, float)


class Gates(Factorization):
    """``w_j = omega_j * prod_d gamma_{j,d}`` for every group j of slices along one axis, with ``D - 1`` gates.

    L2 on all of them is the penalty ``lam sum_j ||w_j||^(2/D)`` on the product: the group lasso for ``D = 2``. With
    ``entries = k`` elementwise factors in the place of omega and ``D - k`` gates it is
    ``lam sum_j ||w_j||_{2/k}^(2/D)``. Groups may go on in other tensors, which share the gates.

    The factors are the k elementwise ones, what belongs to no group (if there is any), and the gates.

    Args:
        depth: Number D of factors of each entry, > ``entries``.
        lam: Strength.
        dtype: Of the tensor.
        slices: Which group each index along an axis belongs to; -1 for none.
        width: Number of groups.
        entries: Number k of elementwise factors, >= 1.

    References:
        Kolb, Frost, Bischl & Rügamer, Differentiable Sparsity via D-Gating (NeurIPS 2025), arXiv:2509.23898, theorem 1.
    """

    def __init__(
        self, depth: int, lam: float, dtype: torch.dtype, slices: AxisSlices, width: int, entries: int = 1
    ) -> None:
        super().__init__(depth, lam, dtype)
        self.width = width
        self.entries = entries
        self.exponent = 2 / entries
        self.dim = slices.dim
        # Along the axis, what has gates comes first inside; this puts it back in its place.
        gated, rest = (slices.units >= 0).nonzero().flatten(), (slices.units < 0).nonzero().flatten()
        self.free = int(rest.numel() > 0)
        shape = (*slices.shape[: self.dim], gated.numel(), *slices.shape[self.dim + 1 :])
        self.slices = AxisSlices(slices.name, self.dim, shape, slices.units[gated])
        self.run = _run(self.slices.units)
        # Buffers, so that they are where the tensor is; no part of its state.
        for name, indices, needed in (
            ("units", self.slices.units, self.run is None),
            ("gated", gated, self.free),
            ("rest", rest, self.free),
            ("place", torch.cat([gated, rest]).argsort(), self.free),
        ):
            self.register_buffer(name, indices if needed else None, persistent=False)

    @override
    def forward(self, *factors: Tensor) -> Tensor:
        own, gates = list(factors[: self.entries]), self.shared(factors)
        gate = self._spread(product(*gates) if len(gates) > 1 else gates[0])
        value = (product(*own) if len(own) > 1 else own[0]) * gate
        if self.free:
            value = torch.cat([value, factors[self.entries]], self.dim).index_select(self.dim, self._indices("place"))
        return value.to(self.dtype)

    @override
    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        if self.joined:
            raise ValueError(
                f"Gates: {self.slices.name} shares its gates with other tensors, which would change with them; "
                "collapse the model before you assign to it"
            )
        return self.start(weight, weight.new_ones(self.width), UnitGate())

    def start(
        self, weight: Tensor, gate: Tensor, init: Initialization, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        """Factors whose product is a tensor, given what all gates are.

        Args:
            weight: Like the tensor.
            gate: Each gate, shape ``(width,)``; a group whose gate is 0 becomes zero.
            init: How the k elementwise factors start, given their product.
            generator: Of its random numbers.

        Returns:
            The factors, in float32 at least.
        """
        exact = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
        gates = [gate.to(exact, copy=True) for _ in range(self.depth - self.entries)]
        rest: list[Tensor] = []
        if self.free:
            rest = [exact.index_select(self.dim, self._indices("rest"))]
            exact = exact.index_select(self.dim, self._indices("gated"))
        spread = self._spread(gates[0] ** len(gates))
        inside = torch.where(spread != 0, exact / torch.where(spread != 0, spread, 1.0), 0.0)
        own = init.factors(inside, self.entries, generator) if self.entries > 1 else [inside]
        return *own, *rest, *gates

    @override
    def squares(self, factors: Sequence[Tensor]) -> list[Tensor]:
        return [self.slices.sum(factor.square(), self.width) for factor in factors[: self.entries]]

    @override
    def shared(self, factors: Sequence[Tensor]) -> list[Tensor]:
        return list(factors[self.entries + self.free :])

    @override
    def mass(self, factors: Sequence[Tensor]) -> Tensor:
        return self.slices.sum(self._powers(factors[: self.entries]), self.width)

    @override
    def counts(self, factors: Sequence[Tensor]) -> Tensor:
        return self.slices.sum(torch.ones_like(factors[0]), self.width)

    def _powers(self, own: Sequence[Tensor]) -> Tensor:
        """``|prod_i omega_i|^(2/k)``, entry by entry."""
        if len(own) == 1:
            return own[0].square()
        return product(*own).abs() ** self.exponent

    @override
    def zero_(self, factors: Sequence[Tensor], small: Tensor) -> None:
        dead = self._spread(small.to(torch.uint8)).bool()
        for factor in factors[: self.entries]:
            factor.masked_fill_(dead, 0.0)
        for gate in self.shared(factors):
            gate.masked_fill_(small, 0.0)

    def _spread(self, gate: Tensor) -> Tensor:
        """Numbers of groups where their slices are: a view along the axis, for broadcasting."""
        if self.run is None:
            along = gate.index_select(0, self._indices("units"))
        else:
            first, width, run, times = self.run
            along = gate.narrow(0, first, width)
            if run > 1 or times > 1:
                along = along.view(1, width, 1).expand(times, width, run).reshape(-1)
        return along.view([-1 if dim == self.dim else 1 for dim in range(len(self.slices.shape))])

    def _indices(self, name: str) -> Tensor:
        return self.get_buffer(name)


def _run(units: Tensor) -> tuple[int, int, int, int] | None:
    """First group, number of groups, length of each run and number of repeats of ``a a b b c c a a b b c c``.

    None if units are in another order. No gather is needed then, whose derivative is slow.
    """
    if not units.numel():
        return None
    first, width = int(units.min()), int(units.max() - units.min()) + 1
    run = int((units == first).long().cumprod(0).sum())
    times = units.numel() // max(width * run, 1)
    regular = torch.arange(first, first + width, device=units.device).repeat_interleave(run).repeat(times)
    return (first, width, run, times) if run and torch.equal(regular, units) else None


@dataclass(frozen=True)
class Gated(Form):
    """Whole groups of weights have gates, ``w_j = omega_j * prod_d gamma_{j,d}`` with ``D - 1`` of them.

    With ``example_inputs``, ``factorize`` gives every unit of every removable coupling (``openwork.wiring.inspect``
    lists them) its gates: on side ``"producers"`` for all that writes the unit, biases and normalizations included; on
    side ``"consumers"`` for all that reads it. A unit whose gates are zero can be removed by ``shrink``. A coupling is
    taken if all its parameters on that side are included, and none is excluded or frozen.

    Without them, every weight has groups of its own, by ``units``, which need not be removable. Biases stay free, save
    those of heads and of recurrent units. Beware of a filter before a batch normalization, whose outputs do not depend
    on the filter's scale: L2 alone makes it smaller at no loss, whatever the filter is good for, and what is left once
    it is zero is the shift. Pass ``example_inputs``: the scale and the shift are in the group then.

    What belongs to no group, such as the queries beside gated values, stays a free parameter without weight decay.
    Give an optimizer no ``weight_decay`` for the scales of normalizations that have no gates, for the same reason.

    Args:
        units: What a group is without ``example_inputs``: ``"output"``, the entries of a weight that make one output
            feature (a neuron, a filter; a unit of an RNN, GRU or LSTM with all its gates, recurrent weights and
            biases; a column of an embedding, if ``include`` insists on it); ``"input"``, those that read one input
            feature (a depthwise convolution has filters instead; a row of an embedding); ``"heads"``, the values of a
            head of ``nn.MultiheadAttention`` with their bias: without them its queries and keys do not matter.
        start: ``"ones"``: gates of one and the weights as they are, which the product is bit for bit. ``"balanced"``:
            the factors of least L2 with this product, for warm starts; a group of zeros stays zero for good.
        group_scale: ``"sqrt"``: strength ``lam sqrt(|G|)``, with all entries of a group in all its tensors.
        entries: Experimental: number k of elementwise factors, from 1 to ``D - 1``, beside ``D - k`` gates. For k of 2
            or more the penalty ``lam sum_j ||w_j||_{2/k}^(2/D)`` makes zeros inside groups too.

    Raises:
        ValueError: If an argument is another word, or ``entries`` is not positive.

    References:
        Kolb, Frost, Bischl & Rügamer, Differentiable Sparsity via D-Gating (NeurIPS 2025), arXiv:2509.23898.
    """

    units: Units = "output"
    start: Start = "ones"
    group_scale: GroupScale = "none"
    entries: int = 1

    def __post_init__(self) -> None:
        for name, value, known in (
            ("units", self.units, ("output", "input", "heads")),
            ("start", self.start, ("ones", "balanced")),
            ("group_scale", self.group_scale, ("none", "sqrt")),
        ):
            if value not in known:
                raise ValueError(f"Gated: {name} must be one of {', '.join(map(repr, known))}, got {value!r}")
        if self.entries < 1:
            raise ValueError(f"Gated: entries must be at least 1, got {self.entries}; 1 is the usual choice")

    @override
    def plan(self, model: nn.Module, request: Request) -> list[Planned]:
        if request.example_inputs is None and request.side != "producers":
            raise ValueError(
                f"Gated: side={request.side!r} is one of couplings, which show only when the model runs; pass "
                "example_inputs, or say Gated(units='input') for the columns of each weight"
            )
        if request.example_inputs is None:
            found = list(units_of_layers(model, request, self.units))
        else:
            found = [_plain(model, coupling) for coupling in inspect(model, request.example_inputs).couplings]
        choices = choose(model, found, request.side, request.selected)
        if not any(choice.taken for choice in choices):
            way_out = (
                f"Gated(units={self.units!r}) takes layers that have such units"
                if request.example_inputs is None
                else "leave example_inputs out to give weights gates whose units need not be removable"
            )
            raise ValueError(
                f"Gated: {type(model).__name__} has no units left to give gates to: {reasons(choices)}; {way_out}"
            )
        for choice in choices if request.example_inputs is None else ():
            if not choice.taken and (name := request.selected.insists([choice.coupling.name])):
                raise ValueError(f"Gated: include names {name!r}, which cannot have gates: {choice.why}; take it out")
        taken = [choice.coupling for choice in choices if choice.taken]
        return [self._planned(slices, width, request) for slices, width in _joined(taken, request.side)]

    def _planned(self, slices: Sequence[AxisSlices], width: int, request: Request) -> Planned:
        """What shares gates.

        Raises:
            ValueError: If depth, strength or size is not the same for all.
        """
        names = [part.name for part in slices]
        parameters = {its_names[0]: parameter for parameter, its_names in request.names.items()}
        depth = _agreed("depths", request.depths, names, request.depth)
        lam = _agreed("lams", request.lams, names, request.lam)
        if self.entries >= depth:
            raise ValueError(
                f"Gated: entries must be below the depth, which is {depth} for {names[0]}, got {self.entries}; "
                "there are depth - entries gates"
            )
        if self.group_scale == "sqrt":
            lam *= _size(slices, width) ** 0.5
        parts = {
            part.name: Gates(depth, lam, parameters[part.name].dtype, part, width, self.entries).to(
                parameters[part.name].device
            )
            for part in slices
        }
        gate, init = torch.ones(width), UnitGate()
        if self.start == "balanced":
            # gamma^2 = (sum |w|^(2/k))^(k/D)
            powers = torch.stack(
                [
                    part.sum(parameters[part.name].detach().double().abs() ** (2 / self.entries), width)
                    for part in slices
                ]
            ).sum(dim=0)
            gate, init = powers ** (self.entries / (2 * depth)), Split(imbalance=0.0)
        return Planned(
            parts=parts,
            starts={name: made.start(parameters[name], gate, init, request.generator) for name, made in parts.items()},
            shared=depth - self.entries,
        )


def _plain(model: nn.Module, coupling: Coupling) -> Coupling:
    """A coupling, blocked if something computes a tensor of it."""
    for part in coupling.slices():
        path, _, local = part.name.rpartition(".")
        role = role_of(model.get_submodule(path), local)
        if role is not None and role.kind == "original":
            return replace(coupling, reasons=(*coupling.reasons, f"{part.name} has a parametrization"))
    return coupling


def _joined(couplings: Sequence[Coupling], side: Side) -> Iterator[tuple[list[AxisSlices], int]]:
    """Couplings that have a tensor in common, as one, whose units are those of all of them; and their number."""
    left = list(couplings)
    while left:
        members = [left.pop(0)]
        names = {part.name for part in members[0].side(side)}
        while more := [one for one in left if not names.isdisjoint(part.name for part in one.side(side))]:
            members += more
            left = [one for one in left if one not in more]
            names |= {part.name for one in more for part in one.side(side)}
        found: dict[str, AxisSlices] = {}
        width = 0
        for coupling in members:
            for part in coupling.side(side):
                earlier = found[part.name].units if part.name in found else torch.full_like(part.units, -1)
                joined = torch.where(part.units >= 0, part.units + width, earlier)
                found[part.name] = replace(part, units=joined)
            width += coupling.width
        yield list(found.values()), width


def _agreed(argument: str, values: Mapping[str, V], names: Sequence[str], default: V) -> V:
    """The one value that somebody said for any of the tensors.

    Raises:
        ValueError: If there are several.
    """
    said = {values[name] for name in names if name in values}
    if len(said) > 1:
        raise ValueError(
            f"factorize: {argument} has {' and '.join(map(str, sorted(said)))} for tensors that share gates "
            f"({', '.join(names)}); give them one value"
        )
    return said.pop() if said else default


def _size(slices: Sequence[AxisSlices], width: int) -> int:
    """Number of entries of a group, over all its tensors.

    Raises:
        ValueError: If groups are not equally large.
    """
    counts = torch.zeros(width, dtype=torch.int64)
    for part in slices:
        known = part.units[part.units >= 0].cpu()
        counts += known.bincount(minlength=width) * (prod(part.shape) // part.shape[part.dim])
    if int(counts.min()) != int(counts.max()):
        raise ValueError(
            f"Gated: group_scale='sqrt' needs groups of one size among tensors that share gates, and those of "
            f"{', '.join(part.name for part in slices)} have {int(counts.min())} to {int(counts.max())} entries; "
            "exclude one of them, or take group_scale='none'"
        )
    return int(counts[0])


__all__ = ["Gated", "Gates", "GroupScale", "Start"]
