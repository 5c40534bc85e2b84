"""What is known about the entries of every tensor of a graph, whatever the inputs are: zeros and other constants.

A known entry is a number, an unknown one is NaN; a tensor of which nothing is known, or whose type has no NaN, is None.
An unknown entry is taken to be finite when it runs, so 0 times it is 0.
"""

from collections.abc import Callable, Mapping
from operator import getitem
from typing import Any, cast

import torch
from torch import Tensor, fx

from openwork.wiring.flow import items, names, operation
from openwork.wiring.known import ENTRYWISE, SPECIAL, Known, Operation, entrywise, is_unknown, unknown_like
from openwork.wiring.memory import in_place, shared_memory
from openwork.wiring.rules import movement
from openwork.wiring.tracing import Traced

# Added to what an operation gives, one number per channel: constants that a bias has taken over.
Shifts = Mapping[str, Tensor]


class Numbers:
    """Known entries of the tensors of a graph, by name of the operation.

    Args:
        traced: The graph.
        tensors: Parameters and buffers by name, with the numbers to reckon with.
        shifts: By name of a linear operation or convolution, what to add to each of its output channels.
    """

    def __init__(self, traced: Traced, tensors: Mapping[str, Tensor], shifts: Shifts | None = None) -> None:
        self._known: dict[fx.Node, Any] = {}
        self._shifts = shifts or {}
        self._same, tainted = shared_memory(traced.graph)
        with torch.no_grad():
            for node in traced.graph.nodes:
                self._known[node] = self._placeholder(node, traced, tensors) if node.op == "placeholder" else None
                if node.op == "call_function" and node not in tainted:
                    self._known[node] = self._call(node)

    def __getitem__(self, node: fx.Node) -> Any:
        """What is known of a node: a tensor, None, or a list of them where the operation gives several."""
        return self._known[node]

    def overwritten(self, node: fx.Node) -> bool:
        """Whether an operation in place writes into what a node gives."""
        return any(node in others for others in self._same.values())

    def _placeholder(self, node: fx.Node, traced: Traced, tensors: Mapping[str, Tensor]) -> Known:
        name = traced.parameters.get(node.name) or traced.buffers.get(node.name)
        if name is not None:
            return tensors[name].detach()
        constant = traced.constants.get(node.name)
        return None if constant is None else constant.detach()

    def _call(self, node: fx.Node) -> Any:
        if node.target is getitem:
            parts, which = cast("tuple[fx.Node, int]", node.args)
            found = self._known[parts]
            return cast("Any", found[which]) if isinstance(found, (list, tuple)) else None
        name = operation(node)
        operands = [self._known[source] for source in node.all_input_nodes]
        if name in _RANDOM or "." not in str(node.target):
            return None
        try:
            result = self._result(node, name, operands)
        except Exception:
            # What cannot be run on numbers with gaps is not known, which is always true.
            result = None
        for other in self._same.get(node, ()):
            # Some read the operand of an operation in place before it, some after.
            self._known[other] = _agreement(self._known[other], result)
        return result

    def _result(self, node: fx.Node, name: str, operands: list[Any]) -> Any:
        plain = node.name not in self._shifts and name not in _SOMETIMES_RANDOM
        if plain and operands and all(isinstance(x, Tensor) and not is_unknown(x).any() for x in operands):
            return self._run(node, Tensor.clone if in_place(name) else lambda x: x)
        special = SPECIAL.get(name)
        if special is not None:
            return special(Operation(node, self._known, self._shifts.get(node.name)))
        if all(x is None for x in operands):
            # Creation of tensors of numbers written in the code; all else depends on what is not known.
            return self._run(node, lambda x: x) if not operands and name in _CREATE else None
        if name in movement.RULES and all(isinstance(x, Tensor) for x in operands):
            # What is known may be laid out otherwise than the tensor will be, which a view would mind.
            return self._run(node, Tensor.contiguous if name == "view" else lambda x: x)
        if name in ("cat", "concat", "concatenate", "stack"):
            return self._run(node, lambda x: x, fill=True)
        if name in ENTRYWISE:
            return entrywise(node, self._known)
        if name in _WINDOWS and isinstance(operands[0], Tensor):
            return self._windows(node)
        return None

    def _run(self, node: fx.Node, change: Callable[[Tensor], Tensor], *, fill: bool = False) -> Any:
        """Run the operation on what is known."""

        def lookup(arg: Any) -> Any:
            if isinstance(arg, fx.Node):
                known = self._known[arg]
                return change(unknown_like(arg) if fill and known is None else known)
            return [lookup(item) for item in items(cast("object", arg))] if isinstance(arg, (list, tuple)) else arg

        args = [lookup(arg) for arg in node.args]
        target: Any = node.target
        return target(*args, **{key: lookup(arg) for key, arg in node.kwargs.items()})

    def _windows(self, node: fx.Node) -> Any:
        """Pooling, resampling and sums: a result is known if all that it looks at is."""
        # The smallest of several numbers notices one that lies below the others.
        sign = -1 if operation(node) == "amin" else 1
        numbers = self._run(node, torch.nan_to_num)
        seen = self._run(node, lambda x: sign * x.isnan().to(x.dtype))
        first, *others = cast("list[Tensor]", items(numbers))
        mask = cast("Tensor", items(seen)[0])
        result = torch.where(mask.abs() > 0, torch.nan, first)
        # Where the maximum was is not known.
        return [result, *(None for _ in others)] if others else result


def _agreement(a: Known, b: Known) -> Known:
    """What is known of a tensor that is one at first and the other later."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor) or not b.is_floating_point() or a.shape != b.shape:
        return None
    return torch.where(a == b, b, torch.nan)


_RANDOM = frozenset(
    names(
        """
        bernoulli bernoulli_ empty empty_like multinomial native_dropout new_empty normal normal_ rand rand_like randint
        randint_like randn randn_like randperm rrelu rrelu_with_noise uniform_ _assert_tensor_metadata
        """
    )
)
_CREATE = frozenset(names("arange eye full linspace ones scalar_tensor tril_indices triu_indices zeros"))
_WINDOWS = frozenset(
    [
        *(f"{kind}_pool{n}d" for kind in ("avg", "max", "adaptive_avg", "adaptive_max") for n in (1, 2, 3)),
        *(f"{kind}_pool{n}d_with_indices" for kind in ("max", "adaptive_max") for n in (1, 2, 3)),
        *(f"upsample_nearest{n}d" for n in (1, 2, 3)),
        *names("amax amin mean sum upsample_linear1d upsample_bilinear2d upsample_trilinear3d"),
    ]
)  # fmt: skip
# Dropout that is always on, and attention with it.
_SOMETIMES_RANDOM = frozenset(
    names("alpha_dropout dropout dropout_ feature_dropout scaled_dot_product_attention lstm gru rnn_tanh rnn_relu")
)


__all__ = ["Numbers", "Shifts"]
