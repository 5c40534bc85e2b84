"""What a method does with entries, in Triton, and the whole step of entries that stand for themselves.

Numbers that change from step to step are read from memory, so that nobody waits for them and a captured step sees the
new ones.
"""

# Triton's types are not those of the arguments that kernels are called with.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportGeneralTypeIssues=false

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from openwork.kernels import device_tables

REALS = {torch.float32: tl.float32, torch.float64: tl.float64}
RUN = tl.constexpr(len(device_tables.Run._fields))
ENTRIES = tl.constexpr(device_tables.ENTRIES)
# Addresses of a tensor in all lists of a step: weight, gradient, and three of state.
LISTS = tl.constexpr(5)
# Numbers: gate, sign, decay, weight of the penalty, averaging; then those of the method.
GATE, SIGN, DECAY, PENALTY, AVERAGING, OWN = (tl.constexpr(i) for i in range(6))


@triton.jit
def cube_root(x, real: tl.constexpr):
    """``x^(1/3)`` for ``x >= 0``; of a single-precision number below 1e-38 only the right size."""
    # x^(-1/3) within 4 %, from a third of the exponent.
    if real == tl.float32:
        y = (1419902976.0 - x.to(tl.int32, bitcast=True).to(tl.float32) * (1 / 3)).to(tl.int32)
        y = y.to(tl.float32, bitcast=True)
        # x^(1/3) = x y^2 (1 - e)^(-2/3), whose last factor is a polynomial to 1e-8.
        root = x * (y * y)
        e = 1.0 - root * y
        low = 1.000000014378097 + 0.6666666373063422 * e
        high = 0.5555307637249752 + 0.4938237614326937 * e
        higher = 0.4589898803401329 + 0.4266784011435936 * e
        square = e * e
        root = root * (low + square * (high + square * higher))
    else:
        y = (6142611920468694934.0 - x.to(tl.int64, bitcast=True).to(tl.float64) * (1 / 3)).to(tl.int64)
        y = y.to(tl.float64, bitcast=True)
        for _ in tl.static_range(3):
            e = 1.0 - x * y * y * y
            y = y + y * e * (1 / 3 + 2 / 9 * e)
        root = x * y * y
    return root


@triton.jit
def own_numbers(numbers, method: tl.constexpr, real: tl.constexpr):
    """Numbers of the method, as many as the one that has most."""
    first, second = tl.load(numbers + OWN).to(real), tl.load(numbers + OWN + 1).to(real)
    if method == "prox_adamw":
        third, fourth = tl.load(numbers + OWN + 2).to(real), tl.load(numbers + OWN + 3).to(real)
        fifth, sixth = tl.load(numbers + OWN + 4).to(real), tl.load(numbers + OWN + 5).to(real)
        return first, second, third, fourth, fifth, sixth
    return first, second, first, first, first, first


@triton.jit
def pointers(addresses, tensor, base, real: tl.constexpr):
    """Where an entry of a tensor lies in all lists: weight, gradient, and three of state."""
    found = addresses + tensor * LISTS
    weight, gradient = tl.load(found), tl.load(found + 1)
    one, two, three = tl.load(found + 2), tl.load(found + 3), tl.load(found + 4)
    return (
        weight.to(tl.pointer_type(real)) + base,
        gradient.to(tl.pointer_type(real)) + base,
        one.to(tl.pointer_type(real)) + base,
        two.to(tl.pointer_type(real)) + base,
        three.to(tl.pointer_type(real)) + base,
    )


@triton.jit
def stepped(at, where, mask, sign, decay, k, method: tl.constexpr):
    """Entries of weight and state after the gradient, which this writes; the weight only where it is needed."""
    needed = mask
    if method != "prox_adamw":
        needed = tl.where(mask, decay, 0.0) != 0.0
    weight = tl.load(at[0] + where, mask=needed, other=0.0)
    gradient = sign * tl.load(at[1] + where, mask=mask, other=0.0) + decay * weight
    one, two = tl.load(at[2] + where, mask=mask, other=0.0), tl.load(at[3] + where, mask=mask, other=0.0)
    three = two
    if method == "ramda":
        step = k[0] * gradient
        two = two + step
        three = tl.load(at[4] + where, mask=mask, other=0.0) + step * gradient
        tl.store(at[4] + where, three, mask=mask)
    elif method == "rmda":
        two = two + k[0] * gradient
    else:
        one = one + k[0] * (gradient - one)
        two = two + k[1] * (gradient * gradient - two)
        tl.store(at[2] + where, one, mask=mask)
    tl.store(at[3] + where, two, mask=mask)
    return weight, one, two, three


@triton.jit
def read(at, where, mask, method: tl.constexpr):
    """Entries of weight and state as they are; the weight only where the subproblem needs it."""
    one, two = tl.load(at[2] + where, mask=mask, other=0.0), tl.load(at[3] + where, mask=mask, other=0.0)
    weight, three = one, two
    if method == "prox_adamw":
        weight = tl.load(at[0] + where, mask=mask, other=0.0)
    elif method == "ramda":
        three = tl.load(at[4] + where, mask=mask, other=0.0)
    return weight, one, two, three


@triton.jit
def subproblem(weight, one, two, three, threshold, k, method: tl.constexpr, real: tl.constexpr):
    """Dual, past the lasso, and metric."""
    metric = tl.full(one.shape, 1.0, real)
    if method == "ramda":
        metric = cube_root(three, real) + k[1]
        dual = metric * one - two
    elif method == "rmda":
        dual = one - two * k[1]
    else:
        square = two * k[2]
        metric = (tl.sqrt_rn(square) if real == tl.float32 else tl.sqrt(square)) + k[3]
        dual = metric * (weight * k[4]) - one * k[5]
    return dual - tl.minimum(tl.maximum(dual, -threshold), threshold), metric


@triton.jit
def moved(weight, x, averaging):
    """The average of weight and prox point."""
    move = x - weight
    # At averaging 1 the weight becomes the point bit for bit.
    return tl.where(averaging < 0.5, weight + averaging * move, x - (1.0 - averaging) * move)


@triton.jit
def quotient(dual, metric, real: tl.constexpr):
    """``dual / metric``, and 0 where there is no metric."""
    some = tl.where(metric > 0.0, metric, 1.0)
    # What is fast in single precision loses numbers at the ends of the range.
    found = tl.div_rn(dual, some) if real == tl.float32 else dual / some
    return tl.where(metric > 0.0, found, 0.0)


@triton.jit
def strengths_of(term, strengths, numbers):
    """Thresholds of the lasso and of the norm, and the latter for equations, which are harmless where it is 0."""
    penalty = tl.load(numbers + PENALTY)
    lasso, kappa = penalty * tl.load(strengths + 2 * term), penalty * tl.load(strengths + 2 * term + 1)
    return lasso, kappa, tl.where(kappa == 0.0, 1.0, kappa)


@triton.jit
def entries(
    runs, addresses, numbers, strengths, kept, method: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    """The whole step of entries, each of which stands for itself."""
    if tl.load(numbers + GATE) == 0.0:
        return
    run = runs + tl.program_id(0).to(tl.int64) * RUN
    term, tensor, base, length, told = (
        tl.load(run), tl.load(run + 1), tl.load(run + 2), tl.load(run + 3), tl.load(run + 4),
    )  # fmt: skip
    lasso, _, _ = strengths_of(term, strengths, numbers)
    threshold, averaging = lasso.to(real), tl.load(numbers + AVERAGING).to(real)
    at, k = pointers(addresses, tensor, base, real), own_numbers(numbers, method, real)
    sign, decay = tl.load(numbers + SIGN).to(real), tl.load(numbers + DECAY).to(real)
    where = tl.arange(0, ENTRIES)
    mask = where < length
    weight, one, two, three = stepped(at, where, mask, sign, decay, k, method)
    x, metric = subproblem(weight, one, two, three, threshold, k, method, real)
    x = quotient(x, metric, real)
    tl.store(kept + told + where, (x != 0.0).to(tl.uint8), mask=tl.where(mask, told, -1) >= 0)
    if method != "prox_adamw":
        weight = tl.load(at[0] + where, mask=mask, other=0.0)
        x = moved(weight, x, averaging)
    tl.store(at[0] + where, x, mask=mask)
