"""Operations that treat every entry alone."""

from dataclasses import replace
from math import inf

from openwork.wiring.flow import Call, Result, Rule, Zero, elementwise, moved, names
from openwork.wiring.values import Value


def _keeps_zero(call: Call) -> Result:
    """``f(0) = 0``."""
    return replace(call.operands[0], shape=call.shape)


def _loses_zero(call: Call) -> Result:
    """``f(0)`` is not 0."""
    return lose(call.operands[0], f"{call.name} of 0 is not 0{call.place}")


def lose(value: Value, why: str) -> Value:
    """The same channels, whose entries need not be zero any more."""
    return replace(value, labels=tuple(label.lose(why) for label in value.labels))


def _clamp(call: Call) -> Result:
    low = None if call.name == "clamp_max" else call.arg(1, "min")
    high = call.arg(1, "max") if call.name == "clamp_max" else call.arg(2, "max")
    bounds = [-inf if low is None else low, inf if high is None else high]
    if any(isinstance(bound, Value) for bound in bounds):
        return elementwise(call, call.operands, "all")
    return _keeps_zero(call) if bounds[0] <= 0 <= bounds[1] else _loses_zero(call)


def _power(call: Call) -> Result:
    exponent = call.arg(1, "exponent")
    if isinstance(exponent, (int, float)) and isinstance(call.args[0], Value):
        return _keeps_zero(call) if exponent > 0 else _loses_zero(call)
    return lose(elementwise(call, call.operands, "all"), f"{call.name} of 0 is not 0{call.place}")


def _sum(call: Call) -> Result:
    """``a + alpha b``, where either may be a number."""
    if len(call.operands) == 1:
        number = next((arg for arg in call.args if not isinstance(arg, Value)), 0)
        return _keeps_zero(call) if number == 0 else _loses_zero(call)
    return elementwise(call, call.operands, "all")


def _product(call: Call) -> Result:
    return _keeps_zero(call) if len(call.operands) == 1 else elementwise(call, call.operands, "any")


def _quotient(call: Call) -> Result:
    if len(call.operands) == 1:
        return _keeps_zero(call) if isinstance(call.args[0], Value) else _loses_zero(call)
    quotient, divisor = elementwise(call, call.operands, "first"), call.operands[1]
    if any(label.lost is None for label in divisor.labels):
        return lose(quotient, f"{call.name} of 0 by 0 is not 0{call.place}")
    return quotient


def _choice(zero: Zero) -> Rule:
    def rule(call: Call) -> Result:
        return elementwise(call, call.operands, zero)

    return rule


def _comparison(call: Call) -> Result:
    return lose(elementwise(call, call.operands, "all"), f"{call.name} of 0 is not 0{call.place}")


def _masked_fill(call: Call) -> Result:
    filled = elementwise(call, call.operands[:2], "first")
    return filled if call.arg(2, "value") == 0 else lose(filled, f"masked_fill puts other values there{call.place}")


def _glu(call: Call) -> Result:
    """``a * sigmoid(b)`` of the two halves."""
    x, dim = call.operands[0], call.arg(1, "dim", -1)
    a, b = (moved(x, lambda ids, half=half: ids.chunk(2, dim)[half]) for half in range(2))
    return elementwise(call, [a, lose(b, f"sigmoid of 0 is not 0{call.place}")], "any")


def _prelu(call: Call) -> Result:
    """``weight`` has one entry per index of dimension 1, or one in all."""
    x, weight = call.operands
    if weight.shape == (1,):
        return _keeps_zero(call)
    shape = [1] * len(x.shape)
    shape[1 if len(x.shape) > 1 else 0] = weight.shape[0]
    # max(0, x) + weight min(0, x) is zero where x is.
    return elementwise(call, [x, along(weight, tuple(shape))], "first")


def along(weight: Value, shape: tuple[int, ...]) -> Value:
    """A parameter with one entry per channel, in a shape that broadcasts with a tensor of these channels."""
    labels = tuple(replace(label, ids=label.ids.expand(weight.shape).reshape(shape)) for label in weight.labels)
    return replace(weight, shape=shape, labels=labels)


_KEEP = names(
    """
    abs alias alpha_dropout arctan asinh asin atan celu clone contiguous detach dropout dropout_ elu elu_ erf expm1
    feature_dropout gelu hardshrink hardswish hardswish_ leaky_relu leaky_relu_ lift_fresh_copy log1p mish mish_
    native_dropout neg negative positive relu relu_ relu6 relu6_ round rrelu selu selu_ sgn sign silu silu_ sin sinh
    softshrink sqrt square tan tanh tanh_ tanhshrink to _to_copy trunc type_as
    """
)
_LOSE = names(
    """
    acos acosh bitwise_not cos cosh erfc exp exp2 hardsigmoid hardsigmoid_ isfinite isinf isnan log log10 log2
    log_sigmoid logical_not reciprocal rsqrt sigmoid sigmoid_ softplus
    """
)
_COMPARE = names("__and__ __or__ bitwise_and bitwise_or eq ge gt le logical_and logical_or lt ne")

RULES: dict[str, Rule] = {
    **dict.fromkeys(_KEEP, _keeps_zero),
    **dict.fromkeys(_LOSE, _loses_zero),
    **dict.fromkeys(_COMPARE, _comparison),
    **dict.fromkeys(("add", "add_", "sub", "sub_", "rsub"), _sum),
    **dict.fromkeys(("mul", "mul_"), _product),
    **dict.fromkeys(("div", "div_"), _quotient),
    **dict.fromkeys(("maximum", "minimum", "where"), _choice("all")),
    **dict.fromkeys(("clamp", "clamp_", "clamp_min", "clamp_max", "hardtanh", "hardtanh_"), _clamp),
    "glu": _glu,
    "masked_fill": _masked_fill,
    "pow": _power,
    "prelu": _prelu,
}
