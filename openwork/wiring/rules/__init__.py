"""What each ATen operation does to channels: a table from operations to small functions."""

from torch import fx

from openwork.wiring.flow import Call, Result, Rule, names, operation
from openwork.wiring.rules import contraction, elementwise, movement, normalization, recurrent, reduction
from openwork.wiring.values import Value

# By name, without the overload: what an overload changes is which arguments there are, and rules look those up.
RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **movement.RULES,
    **contraction.RULES,
    **normalization.RULES,
    **reduction.RULES,
    **recurrent.RULES,
}

# These read shapes and types, not entries.
_READ_NOTHING = names(
    """
    _assert_tensor_metadata empty_like full_like new_empty new_full new_ones new_zeros ones_like rand_like randn_like
    sym_size zeros_like
    """
)


def apply(call: Call) -> Result:
    """The result of one operation; what nobody knows blocks the channels that touch it, and nothing else.

    Args:
        call: The operation.

    Returns:
        One value, or one for each tensor of the result.
    """
    if call.name in _READ_NOTHING or not any(operand.labels for operand in call.operands):
        return call.dense()
    rule = None if call.ragged else RULES.get(call.name)
    result = call.unknown() if rule is None else rule(call)
    if call.name.endswith("_") and not call.name.startswith("__"):
        _write_through(call, result)
    return result


def _write_through(call: Call, result: Result) -> None:
    """Block channels of a view into which an operation writes what need not be zero: its base changes too."""
    target = call.node.args[0]
    views = isinstance(target, fx.Node) and operation(target) in movement.RULES
    if views and isinstance(result, Value) and any(label.lost for label in result.labels):
        for operand in call.operands:
            for label in operand.labels:
                call.block(label, f"{call.name} writes into a part of a tensor")


__all__ = ["RULES", "apply"]
