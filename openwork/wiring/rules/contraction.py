"""Operations that sum products over a feature axis: what they read is consumed, what they write is produced."""

from dataclasses import replace

from torch import Tensor

from openwork.wiring.flow import NEVER_ZERO, Call, Result, Rule, contract, elementwise, meet, moved, product
from openwork.wiring.rules.elementwise import along, lose
from openwork.wiring.values import Label, Value, compress, reshaped


def _transposed(value: Value) -> Value:
    return moved(value, lambda ids: ids.transpose(-1, -2))


def _shifted(call: Call, result: Value, bias: Value | None) -> Value:
    return result if bias is None else elementwise(call, [result, bias], "all")


def _linear(call: Call) -> Result:
    """``x W' + b``."""
    x, weight, bias = call.value(0, "input"), call.value(1, "weight"), call.arg(2, "bias")
    if len(x.shape) == 1:
        result = reshaped(product(call, reshaped(x, (1, *x.shape)), weight), call.shape)
    else:
        result = product(call, x, weight)
    return _shifted(call, result, bias)


def _matmul(call: Call) -> Result:
    """``A B``, in batches, or with a vector on either side."""
    a, b = call.operands[-2:]
    left = reshaped(a, (1, *a.shape)) if len(a.shape) == 1 else a
    right = reshaped(b, (1, *b.shape)) if len(b.shape) == 1 else _transposed(b)
    return reshaped(product(call, left, right), call.shape)


def _addmm(call: Call) -> Result:
    """``C + A B``."""
    c, a, b = call.operands[:3]
    return _shifted(call, product(call, a, _transposed(b)), c)


def _convolution(call: Call) -> Result:
    """A product over channels; kernels and positions do not matter."""
    transposed = call.name.startswith("conv_transpose")
    x, weight, bias = call.value(0, "input"), call.value(1, "weight"), call.arg(2, "bias")
    groups: int = call.arg(6, "groups", 1)
    spatial = len(weight.shape) - 2
    channel_dim = len(x.shape) - spatial - 1
    x, weight = _one_position(call, x, channel_dim), _one_kernel_entry(weight)
    if transposed:
        weight = _rows_first(call, weight, groups)
    out, per_group = weight.shape
    rows = tuple(replace(label, ids=label.ids[:, 0]) for label in weight.labels if 0 in label.dims)
    if per_group == 1 and groups > 1:
        # Depthwise: each output reads one input, and has the same channel.
        repeated = moved(x, lambda ids: ids.repeat_interleave(out // groups))
        result = elementwise(call, [repeated, replace(weight, shape=(out,), labels=rows)], "any")
    else:
        # The groups lose the same channels, so that one of them shows what all read.
        for label in (*x.labels, *rows):
            _keep_equal(call, label.ids, groups)
        if call.atoms.weighed:
            reads = weight.living((0, 1)).expand(weight.shape).reshape(groups, -1, per_group).any(dim=1).flatten()
            for label in x.labels:
                call.atoms.read(label.ids, x.living((0,)) & reads)
        first = moved(x, lambda ids: ids[:per_group])
        result = reshaped(product(call, reshaped(first, (1, per_group)), weight), (out,))
    result = _shifted(call, result, bias)
    return replace(along(result, _at(len(call.shape), channel_dim, out)), shape=call.shape)


def _one_position(call: Call, x: Value, channel_dim: int) -> Value:
    """The channels of a convolution's input, shape ``(channels,)``."""
    labels: list[Label] = []
    for label in x.labels:
        if label.dims == (channel_dim,):
            labels.append(Label(label.ids.flatten(), label.lost))
        elif label.dims:
            call.block(label, "the convolution slides over it")
    return replace(
        x,
        shape=(x.shape[channel_dim],),
        labels=tuple(labels),
        live=_flat(x.living((channel_dim,)), x.shape[channel_dim]),
    )


def _one_kernel_entry(weight: Value) -> Value:
    """The channels of a kernel, shape of its first two dimensions."""
    labels = tuple(
        replace(label, ids=label.ids.flatten(2)[..., 0]) for label in weight.labels if set(label.dims) <= {0, 1}
    )
    live = weight.living((0, 1))
    return replace(weight, shape=weight.shape[:2], labels=labels, live=live.view(live.shape[:2]))


def _flat(live: Tensor, size: int) -> Tensor:
    return live.flatten().expand(size)


def _rows_first(call: Call, weight: Value, groups: int) -> Value:
    """The weight of a transposed convolution as that of an ordinary one: (inputs, outputs of a group) turned around."""
    inputs, per_group = weight.shape
    labels: list[Label] = []
    for label in weight.labels:
        if inputs == groups:
            # Depthwise: an input goes with all outputs of its own, which stay as many.
            if 0 in label.dims:
                labels.append(replace(label, ids=label.ids.repeat_interleave(per_group, dim=0)))
        elif 0 not in label.dims:
            labels.append(replace(label, ids=label.ids.view(-1).repeat(groups).unsqueeze(1)))
        else:
            call.atoms.mark(label.ids, "consumer")
            _keep_equal(call, label.ids.flatten(), groups)
            labels.append(replace(label, ids=label.ids[: inputs // groups].transpose(0, 1)))
    live = weight.living((0, 1)).expand(weight.shape).reshape(groups, inputs // groups, per_group).transpose(1, 2)
    shape = (groups * per_group, inputs // groups)
    return replace(weight, shape=shape, labels=tuple(labels), live=live.reshape(shape))


def _keep_equal(call: Call, ids: Tensor, groups: int) -> None:
    if groups > 1:
        call.atoms.rigid(ids.view(groups, -1), 0, f"it is cut into {groups} equal groups{call.place}")


def _at(ndim: int, dim: int, size: int) -> tuple[int, ...]:
    return tuple(size if at == dim else 1 for at in range(ndim))


def _embedding(call: Call) -> Result:
    """One row of the weight per index: columns are channels."""
    weight, index = call.value(0, "weight"), call.value(1, "indices")
    call.produce(replace(weight, labels=tuple(label for label in weight.labels if 0 not in label.dims)))
    call.block_index(index)
    leading = (1,) * len(index.shape)
    labels: list[Label] = []
    for label in weight.labels:
        if 0 in label.dims:
            call.block(label, "its entries are looked up by index")
        else:
            labels.append(Label(label.ids[0].view(*leading, -1), label.lost))
    return Value((*index.shape, weight.shape[1]), tuple(labels), source="an embedding")


def _attention(call: Call) -> Result:
    """``softmax(Q K' + mask) V``; what lies along a dimension beside ``(tokens, entries)`` is a head."""
    query, key, value = call.value(0, "query"), call.value(1, "key"), call.value(2, "value")
    heads = query.shape[-3] if len(query.shape) > 2 else 1
    key, value = _per_query_head(key, heads), _per_query_head(value, heads)
    for label in query.labels:
        if label.dims == (len(query.shape) - 1,) and call.arg(6, "scale") is None:
            call.block(label, "the default scale divides by the root of its width, so pass a scale of your own")
    scores = product(call, query, key)
    mask = call.arg(3, "attn_mask")
    if isinstance(mask, Value):
        scores = elementwise(call, [scores, mask], "all")
    return product(call, softmax(call, scores, -1), _transposed(value))


def _per_query_head(value: Value, heads: int) -> Value:
    """Grouped queries: each head of keys and values serves several heads of queries."""
    if len(value.shape) < 3 or value.shape[-3] in (1, heads):
        return value
    times = heads // value.shape[-3]

    def repeat(ids: Tensor) -> Tensor:
        return compress(ids.repeat_interleave(times, dim=-3))

    return moved(value, repeat)


def softmax(call: Call, x: Value, dim: int) -> Value:
    """Softmax normalizes over a dimension, to which a zero contributes too, and leaves no zero."""
    dim %= len(x.shape)
    kept: list[Label] = []
    for label in x.labels:
        if dim in label.dims:
            call.block(label, "softmax runs over it, and a zero contributes to its sum")
        else:
            kept.append(label)
    return lose(replace(x, labels=tuple(kept)), f"softmax of 0 is not 0{call.place}")


def _softmax(call: Call) -> Result:
    return softmax(call, call.operands[0], call.arg(1, "dim"))


def _einsum(call: Call) -> Result:
    """Any sum of products, written with letters."""
    equation: str = call.args[0].replace(" ", "")
    inputs, arrow, output = equation.partition("->")
    terms = inputs.split(",")
    operands = call.operands
    letters = output + "".join(sorted(set(inputs) - set(output) - {","}))
    if not arrow or "." in equation or any(len(set(term)) < len(term) for term in terms):
        return call.unknown()
    owned = all(operand.owned for operand in operands)
    sides: list[Value] = []
    for term, operand in zip(terms, operands, strict=True):
        summed = {at for at, letter in enumerate(term) if letter not in output}
        marked = operand.owned and not owned
        labels: list[Label] = []
        for label in operand.labels:
            consumes = bool(summed & set(label.dims))
            if marked:
                call.atoms.mark(label.ids, "consumer" if consumes else "producer")
            labels.append(Label(_spread(label.ids, term, letters), NEVER_ZERO if marked and consumes else label.lost))
        sizes = tuple(operand.shape[term.index(letter)] if letter in term else 1 for letter in letters)
        live = None if operand.live is None else _spread(operand.live.expand(operand.shape), term, letters)
        sides.append(replace(operand, shape=sizes, labels=tuple(labels), live=live))
    joint = [max(side.shape[at] for side in sides) for at in range(len(letters))]
    met = meet(call, sides, joint, "any")
    remaining = contract(call, met, range(len(output), len(letters)), "sums over", sides)
    shape = tuple(joint[: len(output)])
    return Value(shape, tuple(Label(x.ids.view(x.ids.shape[: len(output)]), x.lost) for x in remaining), owned)


def _spread(ids: Tensor, term: str, letters: str) -> Tensor:
    """Dimensions in the order of all letters, of length 1 for those that are not in the term."""
    order = [term.index(letter) for letter in letters if letter in term]
    sizes = iter(ids.permute(order).shape)
    return ids.permute(order).reshape([next(sizes) if letter in term else 1 for letter in letters])


RULES: dict[str, Rule] = {
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot"), _matmul),
    **dict.fromkeys(("addmm", "baddbmm"), _addmm),
    **dict.fromkeys(
        ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _convolution
    ),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax"), _softmax),
    "einsum": _einsum,
    "embedding": _embedding,
    "linear": _linear,
    "scaled_dot_product_attention": _attention,
}
