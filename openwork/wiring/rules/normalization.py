"""Normalizations: over the batch, one channel at a time; over channels; over groups of channels."""

from dataclasses import replace

from openwork.wiring.coupling import Remark
from openwork.wiring.flow import Call, Result, Rule, elementwise
from openwork.wiring.rules.elementwise import along, lose
from openwork.wiring.values import Value


def _batch_norm(call: Call) -> Result:
    """Each channel alone, with running statistics; a channel is zero where scale and shift are."""
    x, mean = call.value(0, "input"), call.arg(3, "running_mean")
    x = _statistics(call, x)
    if not call.arg(5, "training"):
        x = lose(x, f"{call.name} subtracts {mean.source}{call.place}")
    return _affine(call, x, _channels(x, call.arg(1, "weight")), _channels(x, call.arg(2, "bias")))


def _instance_norm(call: Call) -> Result:
    """Each channel of each sample alone: a channel that is zero stays zero but for the shift."""
    x, mean = call.value(0, "input"), call.arg(3, "running_mean")
    x = _statistics(call, x)
    if not call.arg(5, "use_input_stats"):
        x = lose(x, f"{call.name} subtracts {mean.source}{call.place}")
    return _affine(call, x, _channels(x, call.arg(1, "weight")), _channels(x, call.arg(2, "bias")))


def _statistics(call: Call, x: Value) -> Value:
    """Join running mean and variance with the channels."""
    for buffer in (call.arg(3, "running_mean"), call.arg(4, "running_var")):
        if buffer is not None:
            for label in buffer.statistics:
                call.atoms.mark(label.ids, "statistic")
            statistic = _per_channel(x, replace(buffer, labels=buffer.statistics, owned=False))
            x = elementwise(call, [x, statistic], "first")
    return x


def _layer_norm(call: Call) -> Result:
    """Mean and variance run over the last dimensions, and a zero counts in both."""
    x = call.value(0, "input")
    first = len(x.shape) - len(call.arg(1, "normalized_shape"))
    for label in x.labels:
        if any(dim >= first for dim in label.dims):
            call.block(label, "LayerNorm runs over it, and a channel that is zero still counts in mean and variance")
    return _affine(call, x, call.arg(2, "weight"), call.arg(3, "bias"))


def _rms_norm(call: Call) -> Result:
    """The mean square runs over the last dimensions; zeros add nothing to it, and only its divisor counts them."""
    x = call.value(0, "input")
    first = len(x.shape) - len(call.arg(1, "normalized_shape"))
    for label in x.labels:
        if any(dim >= first for dim in label.dims):
            call.atoms.remark(label.ids, Remark("mean", f"RMSNorm divides by its width{call.place}", call.module))
            if call.atoms.weighed:
                call.atoms.read(label.ids, x.living(label.dims))
    return _affine(call, x, call.arg(2, "weight"), None)


def _group_norm(call: Call) -> Result:
    """Each group of channels alone: groups go as a whole."""
    x, groups = call.value(0, "input"), call.arg(1, "num_groups")
    for label in x.labels:
        if label.dims == (1,):
            parts = label.ids.reshape(groups, -1)
            if groups > 1:
                call.atoms.merge(parts, 1)
                call.atoms.size(parts, 0, call.module)
            elif parts.shape[1] > 1:
                call.block(label, "GroupNorm runs over it as one group")
        elif label.dims:
            call.block(label, "GroupNorm runs over it")
    return _affine(call, x, _channels(x, call.arg(2, "weight")), _channels(x, call.arg(3, "bias")))


def _affine(call: Call, x: Value, scale: Value | None, shift: Value | None) -> Value:
    """Times the scale, plus the shift."""
    if scale is not None:
        x = elementwise(call, [x, scale], "any")
    return x if shift is None else elementwise(call, [x, shift], "all")


def _channels(x: Value, weight: Value | None) -> Value | None:
    """A parameter with one entry per index of dimension 1, where there is one."""
    return None if weight is None else _per_channel(x, weight)


def _per_channel(x: Value, weight: Value) -> Value:
    return along(weight, tuple(weight.shape[0] if dim == 1 else 1 for dim in range(len(x.shape))))


RULES: dict[str, Rule] = {
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
}
