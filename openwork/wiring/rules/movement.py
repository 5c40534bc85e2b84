"""Operations that only move entries: the atoms are moved by the same operation."""

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from openwork.wiring.atoms import broadcast
from openwork.wiring.flow import Call, Result, Rule, elementwise, moved, names, shapes_of
from openwork.wiring.values import Label, Value, compress, reshaped


def _move(call: Call) -> Result:
    """Run the operation on the atoms; where another tensor says how to move, nobody knows."""
    x = call.operands[0]
    if len(call.operands) > 1:
        return call.unknown()
    return moved(x, lambda ids: _run(call, ids))


def _run(call: Call, ids: Tensor) -> Any:
    target: Any = call.node.target
    return target(ids, *call.args[1:], **call.kwargs)


def _reshape(call: Call) -> Result:
    """Move, and note that an axis that was split stays a full grid, with the lengths that are written in the code."""
    result = reshaped(call.operands[0], call.shape)
    sizes = call.arg(2, "sizes") if call.name == "unflatten" else call.arg(1, "size")
    offset = call.arg(1, "dim", 0) % (len(result.shape) - len(sizes) + 1) if call.name == "unflatten" else 0
    for label in result.labels:
        call.atoms.split(label.ids)
        for at, size in enumerate(sizes or ()):
            if offset + at in label.dims and size > 1 and call.literal(size):
                why = f"the length {size} is written in the code, where no attribute can change it{call.place}"
                call.atoms.rigid(label.ids, offset + at, why)
            elif offset + at in label.dims and size not in (0, 1):
                call.atoms.size(label.ids, offset + at, call.module, derived=size < 0)
    return result


def _expand(call: Call) -> Result:
    result = cast("Value", _move(call))
    for label in result.labels:
        for at, size in enumerate(call.arg(1, "size")):
            if at in label.dims and size > 1:
                call.atoms.size(label.ids, at, call.module)
    return result


def _expand_as(call: Call) -> Result:
    return moved(call.operands[0], lambda ids: ids.expand(call.shape))


def _select(call: Call) -> Result:
    """One index along a dimension, which is therefore always there."""
    dim = call.arg(1, "dim") % len(call.operands[0].shape)
    _fix(call, dim, "one index of it is taken out by number")
    return _move(call)


def _slice(call: Call) -> Result:
    """A range along a dimension; the numbers are derived from its length unless they are written in the code."""
    dim, start = call.arg(1, "dim", 0), call.arg(2, "start", 0)
    end = call.arg(3, "length" if call.name == "narrow" else "end")
    x = call.operands[0]
    dim %= len(x.shape)
    if any(number not in (0, None) and call.literal(number) for number in (start, end)):
        _fix(call, dim, "a range of it is taken out by number")
    if call.arg(4, "step", 1) != 1:
        _fix(call, dim, "entries of it are left out by number")
    result = cast("Value", _move(call))
    for label in result.labels:
        if dim in label.dims and result.shape[dim] < x.shape[dim]:
            call.atoms.size(label.ids, dim, call.module)
    return result


def _fix(call: Call, dim: int, why: str) -> None:
    for label in call.operands[0].labels:
        if dim in label.dims:
            call.atoms.rigid(label.ids, dim, f"{why}{call.place}")


def _roll(call: Call) -> Result:
    """Entries move by a number of places, and round the end."""
    ndim = len(call.operands[0].shape)
    dims: list[int] = call.arg(2, "dims") or list(range(ndim))
    for dim in dims:
        _fix(call, dim % ndim, "it is rolled by a number of places")
    return _move(call)


def _windows(call: Call) -> Result:
    """Windows along a dimension, as wide and as far apart as numbers say."""
    _fix(call, call.arg(1, "dimension") % len(call.operands[0].shape), "windows of it are taken by number")
    return _move(call)


def _shuffle(call: Call) -> Result:
    """As many groups of channels as before take turns, so all lose the same ones."""
    groups: int = call.arg(1, "groups")
    for label in call.operands[0].labels:
        if 1 in label.dims:
            parts = label.ids.reshape(*label.ids.shape[:1], groups, -1, *label.ids.shape[2:])
            call.atoms.rigid(parts, 1, f"it is cut into {groups} groups{call.place}")
    return _move(call)


def _parts(call: Call) -> Result:
    """Several tensors; where they are equally long, each loses the same units."""
    x = call.operands[0]
    dim: int = call.arg(1 if call.name == "unbind" else 2, "dim", 0) % len(x.shape)
    shapes = shapes_of(call.node)
    equal = call.name in ("split", "chunk") and x.shape[dim] == len(shapes) * shapes[0][dim]
    for label in x.labels:
        if dim not in label.dims:
            continue
        if call.name == "unbind":
            call.atoms.rigid(label.ids, dim, f"it is unbound into {len(shapes)} tensors{call.place}")
        elif equal:
            sizes = [*label.ids.shape[:dim], len(shapes), -1, *label.ids.shape[dim + 1 :]]
            parts = label.ids.reshape(sizes)
            call.atoms.rigid(parts, dim, f"it is cut into {len(shapes)} equal parts{call.place}")
    parts = [moved(x, lambda ids, at=at: _run(call, ids)[at]) for at in range(len(shapes))]
    if call.name in ("split", "split_with_sizes"):
        for part in parts:
            for label in part.labels:
                if dim in label.dims:
                    call.atoms.size(label.ids, dim, call.module)
    return parts


def _concatenate(call: Call) -> Result:
    """Channels side by side along ``dim``; along other dimensions the tensors are one another's partners."""
    parts: list[Value] = [part for part in call.arg(0, "tensors") if isinstance(part, Value)]
    shape = call.shape
    dim = call.arg(1, "dim", 0) % len(shape)
    if call.name == "stack":
        parts = [moved(part, lambda ids: ids.unsqueeze(dim)) for part in parts]
    parts = [part for part in parts if len(part.shape) == len(shape)]
    owned = all(part.owned for part in parts)
    across = [
        replace(p, labels=tuple(x for x in p.labels if dim not in x.dims), shape=_one(p.shape, dim)) for p in parts
    ]
    labels = list(elementwise(call, across, "all").labels)
    if any(dim in label.dims for part in parts for label in part.labels):
        if not owned:
            for part in parts:
                call.produce(part)
        labels.append(_side_by_side(call, parts, dim))
    return Value(shape, tuple(labels), owned, parts[0].source)


def _one(shape: tuple[int, ...], dim: int) -> tuple[int, ...]:
    return (*shape[:dim], 1, *shape[dim + 1 :])


def _side_by_side(call: Call, parts: list[Value], dim: int) -> Label:
    columns: list[Tensor] = []
    lost: str | None = None
    for part in parts:
        along = [label for label in part.labels if dim in label.dims]
        for extra in along[1:]:
            call.block(extra, "several feature axes are concatenated at once")
        if along:
            size = list(along[0].ids.shape)
            size[dim] = part.shape[dim]
            columns.append(along[0].ids.expand(size))
            lost = lost or along[0].lost
        else:
            columns.append(torch.full(_one((1,) * len(part.shape), dim), -1).expand(_at(part.shape, dim)))
    others = broadcast(*(_one(tuple(c.shape), dim) for c in columns))
    full = [column.expand((*others[:dim], column.shape[dim], *others[dim + 1 :])) for column in columns]
    return Label(compress(torch.cat(full, dim)), lost)


def _at(shape: tuple[int, ...], dim: int) -> list[int]:
    return [size if at == dim else 1 for at, size in enumerate(shape)]


def _index(call: Call) -> Result:
    """Entries at given places along some dimensions, whose channels must all stay."""
    x: Value = call.value(0, "self")
    indices = call.arg(1, "indices")
    for dim, index in enumerate(indices):
        if isinstance(index, Value):
            call.block_index(index)
            _look_up(call, dim)
    places = [None if i is None else torch.zeros(i.shape, dtype=torch.int64) for i in indices]
    target: Any = call.node.target
    return moved(x, lambda ids: target(ids, places))


def _look_up(call: Call, dim: int) -> None:
    _fix(call, dim, "its entries are looked up by index")
    for label in call.operands[0].labels:
        if dim in label.dims and call.atoms.weighed:
            call.atoms.read(label.ids, torch.ones((), dtype=torch.bool))


def _index_select(call: Call) -> Result:
    x, dim = call.value(0, "self"), call.arg(1, "dim")
    call.block_index(call.value(2, "index"))
    _look_up(call, dim % len(x.shape))
    places = torch.zeros(call.value(2, "index").shape, dtype=torch.int64)
    return moved(x, lambda ids: ids.index_select(dim, places))


def _pad(call: Call) -> Result:
    """Padding beside the channels leaves them alone; padding with other values than 0 fills them."""
    x = call.operands[0]
    padding = list(call.arg(1, "pad"))
    value = call.arg(3 if call.name == "pad" else 2, "value", 0) or 0
    constant = call.name == "constant_pad_nd" or call.arg(2, "mode", "constant") == "constant"
    shape = call.shape
    labels: list[Label] = []
    for label in x.labels:
        padded = [len(shape) - 1 - at // 2 for at, n in enumerate(padding) if n]
        if any(dim in label.dims for dim in padded):
            call.block(label, "it is padded")
            continue
        labels.append(label.lose(f"it is padded with {value}{call.place}" if constant and value != 0 else None))
    return replace(x, shape=shape, labels=tuple(labels))


RULES: dict[str, Rule] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "unflatten"), _reshape),
    **dict.fromkeys(
        names(
            """
            flatten permute transpose t numpy_T matrix_H mT squeeze unsqueeze flip repeat movedim moveaxis swapaxes
            swapdims repeat_interleave pixel_shuffle pixel_unshuffle
            """
        ),
        _move,
    ),
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "unbind", "tensor_split"), _parts),
    **dict.fromkeys(("cat", "concat", "concatenate", "stack"), _concatenate),
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    "expand": _expand,
    "expand_as": _expand_as,
    "channel_shuffle": _shuffle,
    "index": _index,
    "index_select": _index_select,
    "narrow": _slice,
    "roll": _roll,
    "select": _select,
    "slice": _slice,
    "unfold": _windows,
}
