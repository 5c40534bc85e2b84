"""Recurrent layers: each layer and direction has hidden units of its own, which read one another at every step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import getitem
from typing import Any, cast

import torch
from torch import Tensor, fx

from openwork.wiring.flow import Call, Result, Rule, elementwise, frames, items, moved, names, operation, place, product
from openwork.wiring.recurrence import GATES, recurrent_known
from openwork.wiring.rules import movement
from openwork.wiring.values import Label, Value

# These give zeros if they get zeros, so an initial state is seen to be zero behind them.
_PASS = names("_to_copy alias clone contiguous detach expand repeat reshape squeeze to transpose unsqueeze view")
_ZEROS = names("new_zeros zeros zeros_like")


@dataclass(frozen=True, eq=False)
class _Units:
    """Hidden units of one layer and direction.

    Args:
        cell: What the gates make, shape ``(1, units)``.
        output: What is read at the next step and above: the same, or its projection, shape ``(1, features)``.
    """

    cell: Value
    output: Value


def _recurrent(call: Call) -> Result:
    """A stack of layers in one or two directions.

    A unit is a row of every gate of the two weights and biases; it is read by a column of the recurrent weight, by a
    column of the weights of the layer above, and as a channel of the output.
    """
    if not str(call.node.target).endswith(".input"):
        return call.unknown()
    x, params, biased = (
        call.value(0, "input"),
        cast("Sequence[Value]", call.arg(2, "params")),
        call.arg(3, "has_biases"),
    )
    layers, directions, time = (
        call.arg(4, "num_layers"),
        1 + call.arg(7, "bidirectional"),
        int(call.arg(8, "batch_first")),
    )
    each = len(params) // (layers * directions)
    features = _one_step(call, x, time)
    stack: list[_Units] = []
    alive = _alive(call, x, params)
    for at in range(0, layers * directions, directions):
        here = [params[each * (at + k) : each * (at + k + 1)] for k in range(directions)]
        stack += [_layer(call, features, weights, biased, alive[at + k]) for k, weights in enumerate(here)]
        features = _side_by_side([units.output for units in stack[-directions:]])
    groups = [[units.output for units in stack], [units.cell for units in stack]]
    _check_start(call, groups)
    for group in groups[: 1 if stack[0].cell is stack[0].output else 2]:
        if len(group) > 1:
            why = f"all layers and directions of a recurrent layer have equally many units{call.place}"
            call.atoms.equal([label.ids.flatten() for value in group for label in value.labels], why)
    finals = [_stacked(group) for group in groups]
    results = [replace(features, shape=(1, *features.shape), labels=_unsqueezed(features)), *finals]
    shapes = [tuple(item.shape) for item in call.node.meta["val"]]
    batch = [label for label in x.labels if label.dims == (1 - time,)]
    return [
        replace(result, shape=shape, labels=(*result.labels, *_along_batch(call, batch, 1 - time if at == 0 else 1)))
        for at, (result, shape) in enumerate(zip(results, shapes, strict=False))
    ]


def _alive(call: Call, x: Value, params: Sequence[Value]) -> list[tuple[Tensor | None, Tensor | None]]:
    """Which cells and which outputs of each layer and direction need not be zero, ``(1, units)`` each."""
    parts = call.arg(4, "num_layers") * (1 + call.arg(7, "bidirectional"))
    if not call.atoms.weighed:
        return [(None, None)] * parts

    def numbers(value: Value) -> Tensor:
        return torch.where(value.living(tuple(range(len(value.shape)))).expand(value.shape), torch.nan, 0.0)

    starts = [numbers(state) for state in cast("Sequence[Value]", items(call.arg(1, "hx")))]
    options = [call.arg(at, "") for at in range(3, 9)]
    _, output, *cells = recurrent_known(call.name, numbers(x), starts, [numbers(p) for p in params], *options)
    cell = cells[0] if cells else output
    return [
        ((cell[at] != 0).any(dim=0, keepdim=True), (output[at] != 0).any(dim=0, keepdim=True)) for at in range(parts)
    ]


def _one_step(call: Call, x: Value, time: int) -> Value:
    """The input at any step of any sequence, shape ``(1, features)``."""
    labels: list[Label] = []
    for label in x.labels:
        if label.dims == (2,):
            labels.append(Label(label.ids.flatten(0, 1), label.lost))
        elif time in label.dims or 2 in label.dims:
            call.block(label, "a recurrence runs over it")
    live = None if x.live is None else x.living((2,))[0]
    return Value((1, x.shape[2]), tuple(labels), x.owned, x.source, live=live)


def _layer(
    call: Call, x: Value, weights: Sequence[Value], biased: bool, alive: tuple[Tensor | None, Tensor | None]
) -> _Units:
    """One layer in one direction: gates from input and hidden units, cells from gates, hidden units from cells."""
    inner, recurrent, *others = weights
    _read(call, x, inner)
    sums = product(call, x, inner)
    for bias in others[: 2 if biased else 0]:
        sums = elementwise(call, [sums, bias], "all")
    gates, _ = GATES[call.name]
    width = inner.shape[0] // gates
    labels: list[Label] = []
    for label in sums.labels:
        ids = label.ids.view(gates, width)
        call.atoms.merge(ids, 0)
        if width == 1:
            call.block(label, "it is the only unit of a recurrent layer")
        else:
            labels.append(Label(ids[:1], label.lost))
    cell = output = Value((1, width), tuple(labels), source="a hidden unit", live=alive[0])
    if len(others) == (3 if biased else 1):
        _read(call, cell, others[-1])
        output = replace(product(call, cell, others[-1]), live=alive[1])
    _read(call, output, recurrent)
    for label in elementwise(call, [sums, product(call, output, recurrent)], "all").labels:
        if label.lost:
            call.block(label, f"its gates are not zero: {label.lost};")
    return _Units(cell, output)


def _side_by_side(values: Sequence[Value]) -> Value:
    """Both directions of a layer, as the next layer reads them, shape ``(1, features)``."""
    labels = [label for value in values for label in value.labels]
    shape = (1, sum(value.shape[1] for value in values))
    known = all(value.live is not None for value in values)
    live = torch.cat([value.living((1,)).expand(value.shape) for value in values], dim=1) if known else None
    return Value(shape, _together(labels, len(values), 1), source="a recurrent layer", live=live)


def _stacked(values: Sequence[Value]) -> Value:
    """Final states of all layers and directions, shape ``(layers * directions, 1, features)``."""
    labels = [label for value in values for label in _together(list(value.labels), 1, 0)]
    label = _together(labels, len(values), 0)
    stacked = tuple(replace(one, ids=one.ids.unsqueeze(1)) for one in label)
    return Value((len(values), 1, values[0].shape[1]), stacked, source="the final state of a recurrent layer")


def _together(labels: Sequence[Label], expected: int, dim: int) -> tuple[Label, ...]:
    """One label of several; none unless all are there."""
    if len(labels) < expected:
        return ()
    lost = next((label.lost for label in labels if label.lost is not None), None)
    return (Label(torch.cat([label.ids for label in labels], dim), lost),)


def _unsqueezed(value: Value) -> tuple[Label, ...]:
    return tuple(replace(label, ids=label.ids.unsqueeze(0)) for label in value.labels)


def _along_batch(call: Call, labels: Sequence[Label], dim: int) -> list[Label]:
    """Channels that were folded into the batch go on, but what a recurrence makes of zeros is not zero."""
    why = f"{call.name} of 0 is not 0{call.place}"
    return [Label(label.ids.view([-1 if at == dim else 1 for at in range(3)]), label.lost or why) for label in labels]


def _check_start(call: Call, groups: list[list[Value]]) -> None:
    """Units stay zero only if they start at zero."""
    nodes = [node for node in items(call.node.args[1]) if isinstance(node, fx.Node)]
    states = cast("Sequence[Value]", items(call.arg(1, "hx")))
    for node, state in zip(nodes, states, strict=True):
        for label in state.labels:
            call.block(label, "a recurrence starts from it")
        while node.op == "call_function" and operation(node) in _PASS and isinstance(node.args[0], fx.Node):
            node = node.args[0]
        width = state.shape[-1]
        if node.op != "call_function" or operation(node) not in _ZEROS:
            why = f"it starts from {state.source}, which need not be zero{call.place}"
        elif not _by_torch(node) and replace(call, node=node).literal(width):
            why = f"the length {width} is written in the code, where no attribute can change it{place(node)}"
        else:
            continue
        for value in (value for group in groups for value in group):
            for label in value.labels:
                call.atoms.block(label.ids, why)


def _by_torch(node: fx.Node) -> bool:
    """Whether a line of torch itself, such as of ``nn.LSTM``, made a node."""
    lines = frames(node)
    return bool(lines) and "/torch/" in lines[-1][0]


def _read(call: Call, x: Value, weight: Value) -> None:
    """Say which entries of the input a weight reads: those that are alive and meet a column that is."""
    if not call.atoms.weighed:
        return
    for label in weight.labels:
        if label.dims == (1,):
            call.atoms.read(label.ids, weight.living((1,)) & x.living((1,)))


def _select(call: Call) -> Result:
    """The final state of one layer and direction: what it leaves out is no channel, so no length is fixed."""
    node, dim, x = call.node.args[0], call.arg(1, "dim"), call.operands[0]
    while isinstance(node, fx.Node) and node.target is torch.ops.aten.squeeze.dim and node.args[1] == 1:
        node = node.args[0]
    final = isinstance(node, fx.Node) and node.target is getitem and node.args[1] in (1, 2)
    layer = node.args[0] if final and isinstance(node, fx.Node) else None
    if dim % len(x.shape) == 0 and isinstance(layer, fx.Node) and operation(layer) in GATES:
        target: Any = call.node.target
        return moved(x, lambda ids: target(ids, *call.args[1:], **call.kwargs))
    return movement.RULES["select"](call)


RULES: dict[str, Rule] = {**dict.fromkeys(GATES, _recurrent), "select": _select}
