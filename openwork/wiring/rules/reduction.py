"""Operations that reduce or resample dimensions: sums, extremes, pooling, interpolation."""

from collections.abc import Sequence
from dataclasses import replace

from openwork.wiring.coupling import Remark
from openwork.wiring.flow import Call, Result, Rule, contract
from openwork.wiring.rules.elementwise import lose
from openwork.wiring.values import Label, Value


def _dims(call: Call) -> list[int]:
    ndim = len(call.operands[0].shape)
    # A norm has its order first.
    dims = call.arg(2 if call.name == "linalg_vector_norm" else 1, "dim")
    if dims is None or dims == []:
        return list(range(ndim))
    return [dims % ndim] if isinstance(dims, int) else [dim % ndim for dim in dims]


def _reduced(call: Call, labels: Sequence[Label], dims: Sequence[int]) -> Value:
    """The labels without the reduced dimensions, unless those are kept with length 1."""
    x = call.operands[0]
    if len(call.shape) < len(x.shape):
        kept = [dim for dim in range(len(x.shape)) if dim not in dims]
        labels = [replace(label, ids=label.ids.view([label.ids.shape[dim] for dim in kept])) for label in labels]
    return Value(call.shape, tuple(labels), x.owned, x.source)


def _sum(call: Call) -> Result:
    """A sum does not notice zeros; a mean counts them, which whoever removes them makes up for."""
    x, dims = call.operands[0], _dims(call)
    if call.name == "linalg_vector_norm" and call.arg(1, "ord", 2) <= 0:
        return _extreme(call)
    if call.name == "mean":
        for label in x.labels:
            if set(label.dims) & set(dims):
                call.atoms.remark(label.ids, Remark("mean", f"a mean divides by its width{call.place}", call.module))
    return _reduced(call, contract(call, x.labels, dims, "sums over", [x]), dims)


def _extreme(call: Call) -> Result:
    """What a zero can change."""
    x, dims = call.operands[0], _dims(call)
    kept: list[Label] = []
    for label in x.labels:
        if set(label.dims) & set(dims):
            call.block(label, f"{call.name} runs over it, and a zero can change the result")
        else:
            kept.append(label)
    result = _reduced(call, kept, dims)
    return lose(result, f"{call.name} of 0 is not 0{call.place}") if call.name == "logsumexp" else result


def _along(call: Call) -> Result:
    """A running sum: harmless unless it runs over channels."""
    x = call.operands[0]
    dim = call.arg(1, "dim") % len(x.shape)
    for label in x.labels:
        if dim in label.dims:
            call.block(label, f"{call.name} runs over it")
    return lose(x, f"{call.name} of 0 is not 0{call.place}") if call.name == "logcumsumexp" else x


def _resample(call: Call) -> Result:
    """Pooling and interpolation: positions change and channels do not."""
    x = call.operands[0]
    kept: list[Label] = []
    for label in x.labels:
        if any(call.shape[dim] != x.shape[dim] or dim >= len(x.shape) - _spatial(call) for dim in label.dims):
            call.block(label, f"{call.name} runs over it")
        else:
            kept.append(label)
    value = replace(x, shape=call.shape, labels=tuple(kept))
    if call.several:
        # The second is where the maximum was.
        return [value, lose(replace(value), f"{call.name} gives positions{call.place}")]
    return value


def _spatial(call: Call) -> int:
    """How many trailing dimensions an operation resamples: its name says so."""
    return next(n for n in (1, 2, 3) if f"{n}d" in call.name)


_POOLS = [
    f"{kind}{n}d{suffix}"
    for kind in ("avg_pool", "max_pool", "adaptive_avg_pool", "adaptive_max_pool", "_adaptive_avg_pool",
                 "upsample_nearest", "_upsample_nearest_exact", "upsample_linear", "upsample_bilinear",
                 "upsample_bicubic", "upsample_trilinear", "reflection_pad", "replication_pad")
    for n in (1, 2, 3)
    for suffix in ("", "_with_indices")
]  # fmt: skip

RULES: dict[str, Rule] = {
    **dict.fromkeys(("sum", "mean", "linalg_vector_norm"), _sum),
    **dict.fromkeys(("amax", "amin", "argmax", "argmin", "std", "var", "prod", "any", "all", "logsumexp"), _extreme),
    **dict.fromkeys(("cumsum", "cumprod", "logcumsumexp"), _along),
    **dict.fromkeys(_POOLS, _resample),
}
