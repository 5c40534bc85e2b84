"""The step of SGD on factors, in Triton: one pass over gradients, factors and momentums."""

# Triton's types are not those of the arguments that kernels are called with.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportGeneralTypeIssues=false

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from openwork.kernels import device_tables

RUN = tl.constexpr(len(device_tables.Run._fields))
ENTRIES = tl.constexpr(device_tables.ENTRIES)


@triton.jit
def in_list(addresses, place, number: tl.constexpr, real: tl.constexpr):
    """Where an entry of a tensor of one list lies, given where the addresses of its tensor do and its place."""
    return tl.load(addresses + number).to(tl.pointer_type(real)) + place


@triton.jit
def moved_factor(own, slope, pointer, lr, decay, momentum, mask, moving: tl.constexpr, nesterov: tl.constexpr):
    """A factor after its step, given its gradient without decay; writes its momentum."""
    direction = slope + decay * own
    if moving:
        speed = momentum * tl.load(pointer, mask=mask, other=0.0) + direction
        tl.store(pointer, speed, mask=mask)
        direction = speed
        if nesterov:
            direction = slope + decay * own + momentum * speed
    return own - lr * direction


@triton.jit
def factors(
    runs, addresses, numbers, depth: tl.constexpr, moving: tl.constexpr, nesterov: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    """The step of 2 to 4 factors and of their product."""
    if tl.load(numbers) == 0.0:
        return
    run = runs + tl.program_id(0).to(tl.int64) * RUN
    tensor, base, length = tl.load(run + 1), tl.load(run + 2), tl.load(run + 3)
    sign, lr = tl.load(numbers + 1).to(real), tl.load(numbers + 2).to(real)
    decay, momentum = tl.load(numbers + 3).to(real), tl.load(numbers + 4).to(real)
    # Weight, gradient, factors, momentums; without these, the last factor stands for what is not read.
    lists: tl.constexpr = 2 + (2 * depth if moving else depth)
    speeds: tl.constexpr = 2 + depth if moving else 1 + depth
    later: tl.constexpr = 1 if moving else 0
    entries, own = tl.arange(0, ENTRIES), addresses + tensor * lists
    mask, at = entries < length, base + entries
    slope = sign * tl.load(in_list(own, at, 1, real), mask=mask, other=0.0)
    to_a, to_b = in_list(own, at, 2, real), in_list(own, at, 3, real)
    a, b = tl.load(to_a, mask=mask, other=0.0), tl.load(to_b, mask=mask, other=0.0)
    c = tl.full([ENTRIES], 1.0, real)
    d = c
    if depth > 2:
        to_c = in_list(own, at, 4, real)
        c = tl.load(to_c, mask=mask, other=0.0)
    if depth > 3:
        to_d = in_list(own, at, 5, real)
        d = tl.load(to_d, mask=mask, other=0.0)
    ab, cd = a * b, c * d
    for_a, for_b, for_c, for_d = slope * (b * cd), slope * (a * cd), slope * (ab * d), slope * (ab * c)
    speed = in_list(own, at, speeds, real)
    a = moved_factor(a, for_a, speed, lr, decay, momentum, mask, moving, nesterov)
    speed = in_list(own, at, speeds + later, real)
    b = moved_factor(b, for_b, speed, lr, decay, momentum, mask, moving, nesterov)
    tl.store(to_a, a, mask=mask)
    tl.store(to_b, b, mask=mask)
    # In this order, so that it has the bits that torch gives it.
    weight = a * b
    if depth > 2:
        speed = in_list(own, at, speeds + 2 * later, real)
        c = moved_factor(c, for_c, speed, lr, decay, momentum, mask, moving, nesterov)
        tl.store(to_c, c, mask=mask)
        weight = weight * c
    if depth > 3:
        speed = in_list(own, at, speeds + 3 * later, real)
        d = moved_factor(d, for_d, speed, lr, decay, momentum, mask, moving, nesterov)
        tl.store(to_d, d, mask=mask)
        weight = weight * d
    tl.store(in_list(own, at, 0, real), weight, mask=mask)
