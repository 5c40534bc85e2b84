"""Channels flow through the graph of a model, operation by operation, from inputs to outputs."""

from collections.abc import Sequence
from dataclasses import replace
from operator import getitem
from typing import Any, cast

from torch import Tensor, fx

from openwork.wiring.atoms import Atoms, Axis
from openwork.wiring.flow import Call, Result, items, shapes_of
from openwork.wiring.numbers import Numbers
from openwork.wiring.rules import apply
from openwork.wiring.tracing import Traced
from openwork.wiring.values import Label, Value


def propagate(traced: Traced, numbers: Numbers | None = None) -> Atoms:
    """Send channels through the graph, operation by operation.

    Args:
        traced: The graph.
        numbers: What is known of its tensors; None to leave open who reads what.

    Returns:
        Which atoms are joined, blocked and read.
    """
    atoms = Atoms(weighed=numbers is not None)
    axes: dict[str, list[Axis]] = {}
    known: dict[fx.Node, Result] = {}
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            known[node] = _placeholder(node, traced, atoms, axes)
        elif node.op == "call_function":
            known[node] = _call(node, known, atoms)
        elif node.op == "get_attr":
            # A part of the graph that an operation with control flow runs.
            known[node] = Value((), source="a constant")
        elif node.op == "output":
            for source in node.all_input_nodes:
                for value in _values(known[source]):
                    for label in value.labels:
                        atoms.block(label.ids, "it is an output of the model")
        if numbers is not None and node.op in ("placeholder", "call_function"):
            known[node] = _weighed(known[node], numbers[node])
    return atoms


def _placeholder(node: fx.Node, traced: Traced, atoms: Atoms, axes: dict[str, list[Axis]]) -> Value:
    (shape,) = shapes_of(node)
    name = traced.parameters.get(node.name) or traced.buffers.get(node.name)
    if name is None:
        return Value(shape, source="an input of the model" if node.name in traced.inputs else "a constant")
    if name not in axes:
        axes[name] = atoms.add(name, shape)
    labels: list[Label] = []
    for axis in axes[name]:
        if axis.size > 1:
            view = [axis.size if dim == axis.dim else 1 for dim in range(len(shape))]
            labels.append(Label(axis.atoms.view(view)))
    if node.name in traced.buffers:
        return Value(shape, owned=True, source=f"the buffer {name}", statistics=tuple(labels))
    return Value(shape, tuple(labels), owned=True, source=name)


def _call(node: fx.Node, known: dict[fx.Node, Result], atoms: Atoms) -> Result:
    def lookup(arg: Any) -> Any:
        if isinstance(arg, fx.Node):
            return known[arg]
        return list(map(lookup, items(cast("object", arg)))) if isinstance(arg, (list, tuple)) else arg

    call = Call(node, tuple(map(lookup, node.args)), {name: lookup(arg) for name, arg in node.kwargs.items()}, atoms)
    if node.target is getitem:
        parts, which = cast("tuple[Sequence[Value], int]", call.args)
        return parts[which]
    return apply(call)


def _weighed(result: Result, known: Any) -> Result:
    """Note where entries are known to be zero."""
    if not isinstance(result, Value):
        parts = items(cast("object", known)) if isinstance(known, (list, tuple)) else [None] * len(result)
        return [cast("Value", _weighed(*pair)) for pair in zip(result, parts, strict=True)]
    usable = isinstance(known, Tensor) and tuple(known.shape) == result.shape and known.dtype.is_floating_point
    return replace(result, live=known != 0 if usable else None)


def _values(result: Result) -> tuple[Value, ...]:
    return (result,) if isinstance(result, Value) else tuple(result)


__all__ = ["propagate"]
