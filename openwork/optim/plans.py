"""What a parameter group remembers from one fused step to the next: its plans, and where it says what is kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import is_not
from typing import Any, NamedTuple

import torch
from torch import Tensor

from openwork.kernels import Plan, Scalar
from openwork.penalties import Penalty

# Lists of parameters that a group remembers: where two losses take turns, each step has gradients of some only.
MOST_PLANS = 4


class Pieces(NamedTuple):
    """What parameters keep, as vectors of booleans, so that a thousand are read and written as one.

    Args:
        vectors: They hold the state of the parameters.
        terms: For each vector, which term of the plan says it; with couplings, one may say several.
        firsts: For each term, the first of its vectors.
    """

    vectors: list[Tensor]
    terms: list[int]
    firsts: list[Tensor]

    def joined(self) -> Tensor:
        """A copy of all, numbered as the groups of the plan."""
        return torch.cat(self.firsts)

    def update_(self, kept: Tensor, *, wait: bool) -> Scalar:
        """Write what is kept now.

        Args:
            kept: Numbered as the groups of the plan.
            wait: For the device.

        Returns:
            Whether something is not as it was, as a number, or as a tensor on the device if nobody waits.
        """
        now = kept.split([len(first) for first in self.firsts])
        if wait and all(map(torch.equal, self.firsts, now)):
            return 0.0
        changed = 1.0 if wait else (self.joined() != kept).any().double()
        torch._foreach_copy_(self.vectors, [now[term] for term in self.terms])
        return changed


@dataclass(eq=False)
class Planned:
    """A penalty over parameters that lie so in memory.

    Args:
        penalty: Of the group.
        shapes: Of the parameters.
        strides: Of the parameters.
        plan: What kernels make of it; None if they cannot.
        states: What a step has found to lie as the parameters do: state tensors, by name.
    """

    penalty: Penalty
    shapes: list[torch.Size]
    strides: list[tuple[int, ...]]
    plan: Plan | None
    states: dict[str, list[Tensor]] = field(default_factory=dict[str, list[Tensor]])
    _held: list[Tensor] = field(default_factory=list[Tensor])
    _pieces: Pieces = field(default_factory=lambda: Pieces([], [], []))

    def lies(self, name: str, tensors: list[Tensor], dtype: torch.dtype, device: torch.device) -> bool:
        """Whether these are the state tensors of the last step, which lie as ``strides`` says.

        Args:
            name: Of the state.
            tensors: One for each parameter.
            dtype: Of the parameters now.
            device: Of the parameters now.
        """
        known = self.states.get(name, [])
        if len(known) != len(tensors) or any(map(is_not, tensors, known)):
            return False
        return (known[0].dtype, known[0].device) == (dtype, device)

    def kept(self, plan: Plan, states: Sequence[dict[str, Any]], weights: Sequence[Tensor]) -> tuple[Pieces, bool]:
        """What the parameters keep, as pieces of their state.

        Args:
            plan: The one of this.
            states: Of the parameters; those without a ``"kept"`` of the right shape get what their weights have now.
            weights: The parameters.

        Returns:
            The pieces, and whether some parameter had none.
        """
        held: list[Any] = [state.get("kept") for state in states]
        if len(held) == len(self._held) and not any(map(is_not, held, self._held)):
            return self._pieces, False
        layouts = self._layouts(plan)
        lost = [old is None or old.shape != shape for old, (shape, _) in zip(held, layouts, strict=True)]
        present = self.penalty.kept_list([weight.detach() for weight in weights]) if any(lost) else held
        for i, (shape, strides) in enumerate(layouts):
            source = present[i] if lost[i] else held[i]
            if lost[i] or source.stride() != strides:
                kept = torch.empty_strided(shape, strides, dtype=torch.bool, device=weights[i].device)
                states[i]["kept"] = kept.copy_(source)
        self._held = [state["kept"] for state in states]
        self._pieces = self._cut(plan)
        return self._pieces, any(lost)

    def _layouts(self, plan: Plan) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Shapes and strides of what each parameter keeps."""
        found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        for numbers, strides in zip(self.penalty.kept_terms(len(self.shapes)), self.strides, strict=True):
            grids = [plan.terms[number].grid for number in numbers]
            shape = grids[0] if len(grids) == 1 else (sum(length for (length,) in grids),)
            entries = plan.terms[numbers[0]].kind == "entries"
            found.append((shape, strides if entries else torch.empty(shape, device="meta").stride()))
        return found

    def _cut(self, plan: Plan) -> Pieces:
        vectors: list[Tensor] = []
        terms: list[int] = []
        for own, numbers in zip(self._held, self.penalty.kept_terms(len(self.shapes)), strict=True):
            whole = own.as_strided((own.numel(),), (1,))
            vectors += whole.split([plan.terms[number].groups for number in numbers])
            terms += numbers
        # What is in no group of the penalty has terms that no parameter is told of.
        for number in sorted({*range(len(plan.terms))} - {*terms}):
            vectors.append(self._held[0].new_zeros(plan.terms[number].groups))
            terms.append(number)
        first = dict(zip(reversed(terms), reversed(vectors), strict=True))
        return Pieces(vectors, terms, [first[number] for number in range(len(plan.terms))])


def planned(penalty: Penalty, weights: Sequence[Tensor], known: list[Planned]) -> Planned:
    """A penalty over weights, made where none of those known fits.

    Args:
        penalty: Of the group.
        weights: Parameters that take a step together.
        known: Those of the group, the last one first; written.
    """
    shapes, strides = [weight.shape for weight in weights], [weight.stride() for weight in weights]
    for found in known:
        same = found.penalty is penalty or found.penalty == penalty
        if same and found.shapes == shapes and found.strides == strides:
            known.remove(found)
            break
    else:
        terms = penalty.terms(weights)
        found = Planned(penalty, shapes, strides, None if terms is None else Plan(tuple(terms)))
    # One that is equal may be a copy: to see that takes longer.
    found.penalty = penalty
    known.insert(0, found)
    del known[MOST_PLANS:]
    return found
