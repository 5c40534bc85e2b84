"""What is known about the result of one operation, from what is known about its operands.

A known entry is a number, an unknown one is NaN; a tensor of which nothing is known, or whose type has no NaN, is None.
An unknown entry is taken to be finite when it runs, so 0 times it is 0.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx

from openwork.wiring.flow import items, names, operation
from openwork.wiring.memory import in_place
from openwork.wiring.recurrence import GATES, recurrent_known
from openwork.wiring.rules import elementwise

Known = Tensor | None
Knowledge = Mapping[fx.Node, Any]


class Operation:
    """Arguments of an operation, tensors with NaN where they are unknown."""

    def __init__(self, node: fx.Node, known: Mapping[fx.Node, Any], shift: Tensor | None) -> None:
        self.node, self.known, self.shift = node, known, shift
        self.target: Any = node.target

    def arg(self, index: int, name: str, default: Any = None) -> Any:
        """A plain argument."""
        return self.node.args[index] if index < len(self.node.args) else self.node.kwargs.get(name, default)

    def tensor(self, index: int, name: str) -> Tensor | None:
        """A tensor argument; None if there is none."""
        found = self.arg(index, name)
        if not isinstance(found, fx.Node):
            return None
        known = self.known[found]
        return unknown_like(found) if known is None else known

    def rest(self, start: int) -> tuple[Any, ...]:
        """Plain positional arguments from a place on."""
        return tuple(self.node.args[start:])


def unknown_like(node: fx.Node) -> Tensor:
    """A tensor of which nothing is known."""
    value = node.meta["val"]
    dtype = value.dtype if value.dtype.is_floating_point else torch.float32
    return torch.full((), torch.nan, dtype=dtype, device=value.device).expand(value.shape)


def is_unknown(x: Tensor) -> Tensor:
    """Which entries are unknown, booleans of the same shape."""
    return x.isnan() if x.is_floating_point() else torch.zeros_like(x, dtype=torch.bool)


def entrywise(node: fx.Node, known: Knowledge) -> Known:
    """An operation that treats every entry alone: a result is known where all operands are."""
    if not node.meta["val"].dtype.is_floating_point:
        return None
    masks: list[Tensor] = []

    def lookup(arg: Any) -> Any:
        if not isinstance(arg, fx.Node):
            return arg
        x = unknown_like(arg) if known[arg] is None else known[arg]
        masks.append(is_unknown(x))
        return torch.nan_to_num(x) if x.is_floating_point() else x

    args = [lookup(arg) for arg in node.args]
    kwargs = {key: lookup(arg) for key, arg in node.kwargs.items()}
    target: Any = node.target
    if in_place(operation(node)):
        args[0] = args[0].clone()
    result = target(*args, **kwargs)
    mask = masks[0]
    for other in masks[1:]:
        mask = mask | other
    return torch.where(mask.expand(result.shape), torch.nan, result)


def _product(call: Operation) -> Known:
    """Entry by entry, where a factor that is zero decides."""
    a, b = call.tensor(0, "self"), call.tensor(1, "other")
    if a is None or b is None or not (a.is_floating_point() and b.is_floating_point()):
        return entrywise(call.node, call.known)
    return torch.where((a == 0) | (b == 0), torch.zeros((), dtype=a.dtype, device=a.device), a * b)


def _sum_of_products(run: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """A bilinear operation: a result is unknown if any of its products is, which a zero factor prevents."""
    numbers = run(torch.nan_to_num(a), torch.nan_to_num(b))
    both = [(is_unknown(a), b != 0), (a != 0, is_unknown(b))]
    unknown = [run(left.to(a.dtype), right.to(a.dtype)) > 0 for left, right in both if _any(left) and _any(right)]
    for mask in unknown:
        numbers = torch.where(mask, torch.nan, numbers)
    return numbers


def _any(x: Tensor) -> bool:
    return bool(x.any())


def _plus(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x + bias


def _shifted(call: Operation, result: Tensor, channel_dim: int) -> Tensor:
    if call.shift is None:
        return result
    return result + call.shift.view([-1 if dim == channel_dim % result.ndim else 1 for dim in range(result.ndim)])


def _linear(call: Operation) -> Known:
    x, weight = call.tensor(0, "input"), call.tensor(1, "weight")
    assert x is not None
    assert weight is not None
    result = _sum_of_products(torch.nn.functional.linear, x, weight)
    return _shifted(call, _plus(result, call.tensor(2, "bias")), -1)


def _addmm(call: Operation) -> Known:
    bias, a, b = call.tensor(0, "self"), call.tensor(1, "mat1"), call.tensor(2, "mat2")
    assert a is not None
    assert b is not None
    if call.node.kwargs:
        return None
    return _shifted(call, _plus(_sum_of_products(torch.matmul, a, b), bias), -1)


def _matmul(call: Operation) -> Known:
    a, b = call.tensor(0, "self"), call.tensor(1, "other")
    assert a is not None
    assert b is not None
    return _sum_of_products(torch.matmul, a, b)


def _convolution(call: Operation) -> Known:
    x, weight, bias = call.tensor(0, "input"), call.tensor(1, "weight"), call.tensor(2, "bias")
    assert x is not None
    assert weight is not None
    rest = call.rest(3)
    result = _sum_of_products(lambda a, b: call.target(a, b, None, *rest, **call.node.kwargs), x, weight)
    channel_dim = x.ndim - (weight.ndim - 2) - 1
    if bias is not None:
        result = result + bias.view([-1 if dim == channel_dim else 1 for dim in range(result.ndim)])
    return _shifted(call, result, channel_dim)


def _embedding(call: Operation) -> Known:
    """Rows looked up by numbers that are not known: known are the columns in which all rows agree."""
    weight, index = call.tensor(0, "weight"), call.known[call.arg(1, "indices")]
    assert weight is not None
    return _agreed(weight, [0])[0].expand(call.node.meta["val"].shape) if index is None else None


def _agreed(x: Tensor, dims: Sequence[int]) -> Tensor:
    """Entries that are the same all along some dimensions, which keep length 1; NaN where they are not."""
    first = x
    for dim in dims:
        first = first.narrow(dim, 0, 1)
    return torch.where((x == first).all(dim=tuple(dims), keepdim=True), first, torch.nan) if dims else x


def _index(call: Operation) -> Known:
    """Entries at places that are not known: known are those that are the same at all places."""
    x, indices = call.tensor(0, "self"), call.arg(1, "indices")
    if x is None or not x.is_floating_point():
        return None
    places: list[Tensor | None] = []
    for index in indices:
        value = None if index is None else index.meta["val"]
        if value is not None and value.dtype == torch.bool:
            return None
        places.append(None if value is None else torch.zeros(value.shape, dtype=torch.int64, device=x.device))
    return call.target(_agreed(x, [dim for dim, place in enumerate(places) if place is not None]), places)


def _index_select(call: Operation) -> Known:
    x, dim, index = call.tensor(0, "self"), call.arg(1, "dim"), call.arg(2, "index")
    if x is None or not x.is_floating_point():
        return None
    shape = list(x.shape)
    shape[dim] = index.meta["val"].numel()
    return _agreed(x, [dim]).expand(shape)


def _attention(call: Operation) -> Known:
    """A mean of values: known where all values of an entry agree."""
    value = call.tensor(2, "value")
    assert value is not None
    row = _agreed(value, [-2])
    if call.arg(4, "dropout_p", 0.0):
        # Weights that are dropped no longer add up to 1, which a zero does not mind.
        row = torch.where(row == 0, row, torch.nan)
    shape = call.node.meta["val"].shape
    if row.ndim > 2 and row.shape[-3] not in (1, shape[-3]):
        row = row.repeat_interleave(shape[-3] // row.shape[-3], dim=-3)
    return row.expand(shape)


def _affine(result: Tensor, weight: Tensor | None, bias: Tensor | None, dim: int) -> Tensor:
    """Where a normalization's scale is zero, its shift is all that remains."""
    if weight is None:
        return result
    shape = list(weight.shape) if dim < 0 else [-1 if at == dim else 1 for at in range(result.ndim)]
    shift = torch.zeros_like(weight) if bias is None else bias
    return torch.where(weight.view(shape) == 0, shift.view(shape), result)


def _batch_norm(call: Operation) -> Known:
    x, weight, bias, mean, var = (call.tensor(at, "") for at in range(5))
    if x is None or call.arg(5, "training"):
        return None
    return _affine(call.target(x, weight, bias, mean, var, *call.rest(5)), weight, bias, 1)


def _layer_norm(call: Operation) -> Known:
    x, weight, bias = call.tensor(0, "input"), call.tensor(2, "weight"), call.tensor(3, "bias")
    if x is None or weight is None:
        return None
    result = torch.full((), torch.nan, dtype=x.dtype, device=x.device).expand(x.shape)
    return _affine(result, weight, bias, -1)


def _rms_norm(call: Operation) -> Known:
    """A zero stays zero, whatever it is divided by."""
    x, weight = call.tensor(0, "input"), call.tensor(2, "weight")
    if x is None:
        return None
    result = torch.where(x == 0, 0.0, torch.nan).to(x.dtype)
    return _affine(result, weight, None, -1)


def _per_channel_norm(call: Operation) -> Known:
    """Instance and group normalization: unknown but for channels without scale."""
    x = call.tensor(0, "input")
    at = 2 if operation(call.node) == "group_norm" else 1
    if x is None:
        return None
    result = torch.full((), torch.nan, dtype=x.dtype, device=x.device).expand(x.shape)
    return _affine(result, call.tensor(at, "weight"), call.tensor(at + 1, "bias"), 1)


def _recurrent(call: Operation) -> Any:
    x, start, params = call.tensor(0, "input"), call.arg(1, "hx"), call.arg(2, "params")
    if x is None or len(call.node.args) < 9:
        return None

    def numbers(node: fx.Node) -> Tensor:
        return unknown_like(node) if call.known[node] is None else call.known[node]

    starts, weights = [[numbers(cast("fx.Node", node)) for node in items(some)] for some in (start, params)]
    return recurrent_known(operation(call.node), x, starts, weights, *call.rest(3))


def _dropout(call: Operation) -> Known:
    """Dropout that is always on leaves zeros alone."""
    x = call.tensor(0, "input")
    if x is None or not call.arg(2, "train"):
        return x
    return torch.where(x == 0, x, torch.nan)


def _einsum(call: Operation) -> Known:
    equation, nodes = cast("tuple[str, list[fx.Node]]", call.node.args[:2])
    if len(nodes) != 2:
        return None
    a, b = (unknown_like(node) if call.known[node] is None else call.known[node] for node in nodes)
    return _sum_of_products(lambda left, right: call.target(equation, [left, right]), a, b)


def _where(call: Operation) -> Known:
    a, b = call.tensor(1, "self"), call.tensor(2, "other")
    if a is None or b is None:
        return None
    result = torch.where(a == b, a, torch.nan)
    return result.expand(call.node.meta["val"].shape)


def _masked_fill(call: Operation) -> Known:
    x, value = call.tensor(0, "self"), call.arg(2, "value")
    if x is None or isinstance(value, fx.Node):
        return None
    return torch.where(x == value, x, torch.nan)


def _shape_only(call: Operation) -> Known:
    """Operations that look at shapes and types of their operand only."""
    source = call.node.all_input_nodes[0]
    if call.node.meta["val"].device.type == "meta" or any(isinstance(arg, fx.Node) for arg in call.node.args[1:]):
        return None
    return call.target(unknown_like(source), *call.rest(1), **call.node.kwargs)


_NOT_ENTRYWISE = frozenset(names("mul mul_ where masked_fill glu type_as prelu dropout dropout_ native_dropout rrelu"))
ENTRYWISE = frozenset(elementwise.RULES) - _NOT_ENTRYWISE
SPECIAL: dict[str, Callable[[Operation], Any]] = {
    **dict.fromkeys(("mul", "mul_"), _product),
    **dict.fromkeys(("matmul", "mm", "bmm"), _matmul),
    **dict.fromkeys(
        ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _convolution
    ),
    **dict.fromkeys(("group_norm", "instance_norm"), _per_channel_norm),
    **dict.fromkeys(names("full_like new_full new_ones new_zeros ones_like zeros_like"), _shape_only),
    **dict.fromkeys(GATES, _recurrent),
    "addmm": _addmm,
    "batch_norm": _batch_norm,
    **dict.fromkeys(names("dropout dropout_ feature_dropout alpha_dropout"), _dropout),
    "einsum": _einsum,
    "embedding": _embedding,
    "index": _index,
    "index_select": _index_select,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "masked_fill": _masked_fill,
    "rms_norm": _rms_norm,
    "scaled_dot_product_attention": _attention,
    "where": _where,
}

__all__ = ["ENTRYWISE", "SPECIAL", "Knowledge", "Known", "Operation", "entrywise", "is_unknown", "unknown_like"]
