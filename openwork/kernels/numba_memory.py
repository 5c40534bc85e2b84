"""Memory as fused loops see it: addresses, and names for what never overlaps, so that loops become vector code."""

# numba has no types.
# pyright: basic

from typing import Any

from llvmlite import ir
from numba import extending, types

# What it makes of a function takes other arguments than that.
intrinsic: Any = extending.intrinsic

NAMES = ("weight", "grad", "one", "two", "three", "b", "d", "r", "n", "q", "m", "s", "table", "groups", "roots", "kept")


def _named(builder, access, name):
    """Mark a read or write as one of memory of one name, and not of any other; gives it back."""
    module = builder.module
    domain = module.add_metadata(["openwork"])
    scopes = {known: module.add_metadata([f"openwork.{known}", domain]) for known in NAMES}
    others = [scope for known, scope in scopes.items() if known != name]
    access.set_metadata("alias.scope", module.add_metadata([scopes[name]]))
    access.set_metadata("noalias", module.add_metadata(others))
    return access


def _element(context, builder, pointer, index, kind):
    pointee = context.get_value_type(kind)
    return builder.gep(builder.bitcast(pointer, pointee.as_pointer()), [index], inbounds=True)


def _size(kind):
    return 1 if kind is types.uint8 else kind.bitwidth // 8


@intrinsic(prefer_literal=True)
def get(typingctx, pointer, index, name):
    """Read ``pointer[index]`` of memory of one name."""
    if not isinstance(name, types.StringLiteral):
        return None
    kind = pointer.dtype

    def generate(context, builder, signature, args):
        place = _element(context, builder, args[0], args[1], kind)
        return _named(builder, builder.load(place, align=_size(kind)), name.literal_value)

    return kind(pointer, types.int64, name), generate


@intrinsic(prefer_literal=True)
def put(typingctx, pointer, index, value, name):
    """Write ``pointer[index] = value`` in memory of one name."""
    if not isinstance(name, types.StringLiteral):
        return None
    kind = pointer.dtype

    def generate(context, builder, signature, args):
        place = _element(context, builder, args[0], args[1], kind)
        _named(builder, builder.store(args[2], place, align=_size(kind)), name.literal_value)
        return context.get_dummy_value()

    return types.void(pointer, types.int64, kind, name), generate


@intrinsic(prefer_literal=True)
def bump(typingctx, pointer, index, value, name):
    """Add to ``pointer[index]`` in memory of one name, in its precision; fast, as the loops are."""
    if not isinstance(name, types.StringLiteral):
        return None
    kind = pointer.dtype

    def generate(context, builder, signature, args):
        place = _element(context, builder, args[0], args[1], kind)
        before = _named(builder, builder.load(place, align=_size(kind)), name.literal_value)
        after = builder.fadd(before, args[2], flags=("contract", "nsz"))
        _named(builder, builder.store(after, place, align=_size(kind)), name.literal_value)
        return context.get_dummy_value()

    return types.void(pointer, types.int64, kind, name), generate


@intrinsic(prefer_literal=True)
def fields(typingctx, table, row, count):
    """All numbers of one row of a table."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    found = types.UniTuple(types.int64, count.literal_value)

    def generate(context, builder, signature, args):
        first = builder.mul(args[1], ir.Constant(args[1].type, count.literal_value))
        numbers = []
        for i in range(count.literal_value):
            index = builder.add(first, ir.Constant(args[1].type, i))
            place = _element(context, builder, args[0], index, types.int64)
            numbers.append(_named(builder, builder.load(place, align=8), "table"))
        return context.make_tuple(builder, found, numbers)

    return found(table, types.int64, count), generate


@intrinsic
def entry_of(typingctx, table, tensor, offset, kind):
    """A pointer to an entry of a tensor, whose address is in a table."""
    found = types.CPointer(kind.instance_type)

    def generate(context, builder, signature, args):
        place = _element(context, builder, args[0], args[1], types.int64)
        address = _named(builder, builder.load(place, align=8), "table")
        first = builder.inttoptr(address, context.get_value_type(found))
        return builder.bitcast(_element(context, builder, first, args[2], found.dtype), first.type)

    return found(types.CPointer(types.int64), types.int64, types.int64, kind), generate


@intrinsic
def at(typingctx, pointer, offset):
    """The pointer ``offset`` entries further."""
    kind = pointer.dtype

    def generate(context, builder, signature, args):
        return builder.bitcast(_element(context, builder, args[0], args[1], kind), args[0].type)

    return pointer(pointer, types.int64), generate


@intrinsic
def pointer(typingctx, address, kind):
    """An address as a pointer to numbers of a kind."""
    found = types.CPointer(kind.instance_type)

    def generate(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(found))

    return found(types.int64, kind), generate


@intrinsic
def bits(typingctx, x):
    """The bits of a number, as a whole one."""
    kind = types.int32 if x is types.float32 else types.int64

    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(kind))

    return kind(x), generate


@intrinsic
def from_bits(typingctx, i):
    """The number with these bits."""
    kind = types.float32 if i is types.int32 else types.float64

    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(kind))

    return kind(i), generate
