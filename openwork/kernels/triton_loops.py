"""The loops of fused steps on a device, in Triton; ``cuda`` says in which order they run, ``device_tables`` over what.

The first pass over the tiles reads gradients and state, writes the sums that the method keeps, and sums up, in double
precision, what a step of Newton's method needs where the last solve ended. Further passes form dual and metric anew
from the state, in tiles whose groups still move. The last one writes the weights. Numbers that change from step to step
are read from memory, so that nobody waits for them and a captured step sees the new ones.
"""

# Triton's types are not those of the arguments that kernels are called with.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportGeneralTypeIssues=false

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from openwork.kernels import device_tables

REALS = {torch.float32: tl.float32, torch.float64: tl.float64}
COLUMNS = tl.constexpr(device_tables.COLUMNS)
GROUPS = tl.constexpr(device_tables.GROUPS)
TILE = tl.constexpr(len(device_tables.Tile._fields))
BLOCK = tl.constexpr(len(device_tables.Block._fields))
PLACE = tl.constexpr(len(device_tables.Place._fields))
RUN = tl.constexpr(len(device_tables.Run._fields))
# Addresses of a tensor in all lists of a step: weight, gradient, and three of state.
LISTS = tl.constexpr(5)
ENTRIES = tl.constexpr(device_tables.ENTRIES)
# Rows of a tile, members of groups, and rows of slots that a program takes at a time.
STEP, MEMBERS, SLOTS = tl.constexpr(8), tl.constexpr(16), tl.constexpr(16)
# Sums of a slot: |b|^2, q, m, s; the last pass has one, in the first place.
SUMS = tl.constexpr(4)
# Numbers: gate, sign, decay, weight of the penalty, averaging; then those of the method.
GATE, SIGN, DECAY, PENALTY, AVERAGING, OWN = (tl.constexpr(i) for i in range(6))
# Whether a group moves: its root is found, it is not yet, or its sums left the range of double precision.
DONE, MOVES, HARD = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
# Turns of Newton's method for groups that are left to it alone.
TURNS = tl.constexpr(64)
# Sums of squares of which nothing was lost, neither small terms nor large ones.
LEAST, MOST = tl.constexpr(1e-200), tl.constexpr(1e200)


# What a method does with entries.


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


# Tiles.


@triton.jit
def strengths_of(term, strengths, numbers):
    """Thresholds of the lasso and of the norm, and the latter for equations, which are harmless where it is 0."""
    penalty = tl.load(numbers + PENALTY)
    lasso, kappa = penalty * tl.load(strengths + 2 * term), penalty * tl.load(strengths + 2 * term + 1)
    return lasso, kappa, tl.where(kappa == 0.0, 1.0, kappa)


@triton.jit
def columns_of(tile):
    """Where the columns of a tile lie, their groups, and which there are."""
    columns, inner = tl.arange(0, COLUMNS), tl.load(tile + 6)
    owners = columns // inner
    offsets = owners * tl.load(tile + 7) + (columns - owners * inner) * tl.load(tile + 8)
    return offsets, owners, columns < tl.load(tile + 3)


@triton.jit
def rows_of(start, limit, stride, offsets, within):
    """Where some rows of a tile lie, and which entries there are."""
    rows = start + tl.arange(0, STEP)
    there = rows[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :] < limit
    return rows[:, None] * stride + offsets[None, :], there & within[None, :]


@triton.jit
def put(tile, sums, which: tl.constexpr, values, within):
    """Write the sums of columns, or of the one group of a tile, to their slots."""
    columns = tl.arange(0, COLUMNS)
    whole = tl.where(within, tl.load(tile + 6), 0) == COLUMNS
    by_columns = tl.sum(values, 0)
    found = tl.where(whole, tl.sum(by_columns, 0), by_columns)
    slots = sums + (tl.load(tile + 11) + columns) * SUMS + which
    tl.store(slots, found, mask=within & ((columns == 0) | (whole == 0)))


@triton.jit
def terms_of(dual, metric, root, kappa):
    """What an entry adds to q, m and s, in double precision."""
    b, d = dual.to(tl.float64), metric.to(tl.float64)
    inverse = 1.0 / (root * d + kappa)
    u, y = b * inverse, d * inverse
    q = u * u
    m = q * y
    return q, m, m * y


@triton.jit
def first_pass(
    tiles, addresses, starts, numbers, strengths, sums, method: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    """Let the state of a tile take its step, and sum up what the first step of Newton's method needs."""
    if tl.load(numbers + GATE) == 0.0:
        return
    tile = tiles + tl.program_id(0).to(tl.int64) * TILE
    term, tensor, base = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2)
    limit, stride = tl.load(tile + 4), tl.load(tile + 5)
    lasso, _, kappa = strengths_of(term, strengths, numbers)
    threshold = lasso.to(real)
    offsets, owners, within = columns_of(tile)
    root = tl.zeros([COLUMNS], tl.float64)
    if method != "rmda":
        start = tl.load(starts + term).to(tl.pointer_type(real)) + tl.load(tile + 9)
        root = tl.load(start + owners, mask=within, other=0.0).to(tl.float64)
    at, k = pointers(addresses, tensor, base, real), own_numbers(numbers, method, real)
    sign, decay = tl.load(numbers + SIGN).to(real), tl.load(numbers + DECAY).to(real)
    n = tl.zeros([STEP, COLUMNS], tl.float64)
    q, m, s = n, n, n
    for row in range(0, tl.cdiv(limit, COLUMNS), STEP):
        where, mask = rows_of(row, limit, stride, offsets, within)
        weight, one, two, three = stepped(at, where, mask, sign, decay, k, method)
        dual, metric = subproblem(weight, one, two, three, threshold, k, method, real)
        dual = tl.where(mask, dual, 0.0)
        n += dual.to(tl.float64) * dual.to(tl.float64)
        if method != "rmda":
            more_q, more_m, more_s = terms_of(dual, metric, root[None, :], kappa)
            q += more_q
            m += more_m
            s += more_s
    put(tile, sums, 0, n, within)
    if method != "rmda":
        put(tile, sums, 1, q, within)
        put(tile, sums, 2, m, within)
        put(tile, sums, 3, s, within)


@triton.jit
def next_pass(
    tiles, addresses, numbers, strengths, sums, roots, moves, method: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    """Sum up what the next step of Newton's method needs, over groups that move."""
    if tl.load(numbers + GATE) == 0.0:
        return
    tile = tiles + tl.program_id(0).to(tl.int64) * TILE
    offsets, owners, within = columns_of(tile)
    number = tl.load(tile + 10) + owners
    # The other columns of a tile are not even read.
    within = tl.load(moves + number, mask=within, other=DONE) == MOVES
    if tl.max(within.to(tl.int32), 0) == 0:
        return
    term, tensor, base = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2)
    limit, stride = tl.load(tile + 4), tl.load(tile + 5)
    lasso, _, kappa = strengths_of(term, strengths, numbers)
    threshold = lasso.to(real)
    root = tl.load(roots + number, mask=within, other=0.0)
    at, k = pointers(addresses, tensor, base, real), own_numbers(numbers, method, real)
    q = tl.zeros([STEP, COLUMNS], tl.float64)
    m, s = q, q
    for row in range(0, tl.cdiv(limit, COLUMNS), STEP):
        where, mask = rows_of(row, limit, stride, offsets, within)
        weight, one, two, three = read(at, where, mask, method)
        dual, metric = subproblem(weight, one, two, three, threshold, k, method, real)
        more_q, more_m, more_s = terms_of(tl.where(mask, dual, 0.0), metric, root[None, :], kappa)
        q += more_q
        m += more_m
        s += more_s
    put(tile, sums, 1, q, within)
    put(tile, sums, 2, m, within)
    put(tile, sums, 3, s, within)


@triton.jit
def last_pass(
    tiles, addresses, numbers, strengths, sums, roots, method: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    """Write the weights of a tile, and sum up q; or count what is not zero, where there is nothing to solve."""
    if tl.load(numbers + GATE) == 0.0:
        return
    tile = tiles + tl.program_id(0).to(tl.int64) * TILE
    term, tensor, base = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2)
    limit, stride = tl.load(tile + 4), tl.load(tile + 5)
    lasso, strength, kappa = strengths_of(term, strengths, numbers)
    threshold, averaging = lasso.to(real), tl.load(numbers + AVERAGING).to(real)
    offsets, owners, within = columns_of(tile)
    root = tl.load(roots + tl.load(tile + 10) + owners, mask=within, other=0.0)[None, :]
    at, k = pointers(addresses, tensor, base, real), own_numbers(numbers, method, real)
    found = tl.zeros([STEP, COLUMNS], tl.float64)
    for row in range(0, tl.cdiv(limit, COLUMNS), STEP):
        where, mask = rows_of(row, limit, stride, offsets, within)
        weight, one, two, three = read(at, where, mask, method)
        if method != "prox_adamw":
            weight = tl.load(at[0] + where, mask=mask, other=0.0)
        dual, metric = subproblem(weight, one, two, three, threshold, k, method, real)
        dual = tl.where(mask, dual, 0.0)
        if strength == 0.0:
            x = quotient(dual, metric, real)
            found += (x != 0.0).to(tl.float64)
        else:
            u = dual.to(tl.float64) / (root * metric.to(tl.float64) + kappa)
            found += u * u
            x = tl.where(root > 0.0, u * root, 0.0).to(real)
        if method != "prox_adamw":
            x = moved(weight, x, averaging)
        tl.store(at[0] + where, x, mask=mask)
    put(tile, sums, 0, found, within)


# Groups.


@triton.jit
def gathered(sums, places, begin, end, group, within, first: tl.constexpr, last: tl.constexpr):
    """Sums of groups over their slots, in order; those that are not asked for are 0."""
    n = tl.zeros([GROUPS], tl.float64)
    q, m, s = n, n, n
    for p in range(begin, end):
        place = places + p * PLACE
        slot, chunks, width = tl.load(place + 7), tl.load(place + 8), tl.load(place + 9)
        inner = tl.load(place + 10)
        for chunk in range(0, chunks, SLOTS):
            rows = chunk + tl.arange(0, SLOTS)
            mask = (rows < chunks)[:, None] & within[None, :]
            for column in range(0, inner):
                where = sums + (slot + rows[:, None] * width + (group * inner + column)[None, :]) * SUMS
                if first == 0:
                    n += tl.sum(tl.load(where, mask=mask, other=0.0), 0)
                if last == 3:
                    q += tl.sum(tl.load(where + 1, mask=mask, other=0.0), 0)
                    m += tl.sum(tl.load(where + 2, mask=mask, other=0.0), 0)
                    s += tl.sum(tl.load(where + 3, mask=mask, other=0.0), 0)
    return n, q, m, s


@triton.jit
def solve(
    blocks, places, starts, numbers, strengths, sums, roots, moves, first: tl.constexpr, method: tl.constexpr,
    real: tl.constexpr,
):  # fmt: skip
    """Move the roots of a block of groups by one step of Newton's method, given the sums where they are."""
    if tl.load(numbers + GATE) == 0.0:
        return
    block = blocks + tl.program_id(0).to(tl.int64) * BLOCK
    term, begin, end = tl.load(block), tl.load(block + 4), tl.load(block + 5)
    group = tl.load(block + 1) + tl.arange(0, GROUPS)
    number = tl.load(block + 2) + tl.arange(0, GROUPS)
    within = tl.arange(0, GROUPS) < tl.load(block + 3)
    _, strength, kappa = strengths_of(term, strengths, numbers)
    if first:
        moving = tl.where(within, strength, 0.0) != 0.0
        root = tl.zeros([GROUPS], tl.float64)
        if method != "rmda":
            start = tl.load(starts + term).to(tl.pointer_type(real))
            root = tl.load(start + group, mask=within, other=0.0).to(tl.float64)
    else:
        moving = tl.load(moves + number, mask=within, other=DONE) == MOVES
        if tl.max(moving.to(tl.int32), 0) == 0:
            return
        root = tl.load(roots + number, mask=within, other=0.0)
    hard = within & (within == 0)
    if method == "rmda":
        n, q, m, s = gathered(sums, places, begin, end, group, within, 0, 0)
    elif first:
        n, q, m, s = gathered(sums, places, begin, end, group, within, 0, 3)
    else:
        n, q, m, s = gathered(sums, places, begin, end, group, within, 1, 3)
    if first:
        if real == tl.float64:
            # Squares of numbers in single precision always have room here.
            clear = tl.where(within, kappa * kappa, 0.0) > 4.0 * LEAST
            fits = ((n > LEAST) & (n < MOST)) | ((n <= LEAST) & clear)
            hard = moving & (fits == 0)
        surplus = tl.sqrt(n) - kappa
        if method == "rmda":
            root = tl.where(moving, tl.maximum(surplus, 0.0), root)
            moving = hard
        else:
            dead = moving & (surplus <= 0.0) & (hard == 0)
            root = tl.where(dead, 0.0, root)
            moving = moving & (dead == 0)
    if method != "rmda":
        accuracy: tl.constexpr = 2.0**-23 if real == tl.float32 else 2.0**-52
        some = moving & (m > 0.0)
        q, m, s = tl.where(some, q, 1.0), tl.where(some, m, 1.0), tl.where(some, s, 1.0)
        gap = tl.sqrt(q) - 1.0
        # Half of the curvature over the slope, in units of the gap; by Cauchy-Schwarz it has a sign.
        bend = 1.5 * tl.maximum((s / m) * (q / m) - 1.0, 0.0)
        step, turn, left = q / m * gap, gap * bend, bend * gap * gap
        # Where that is safe, a step of third order (Halley's).
        third = tl.abs(turn) < 0.5
        step = tl.where(third, step / tl.where(third, 1.0 - turn, 1.0), step)
        left = tl.where(third, (1.0 + bend) * tl.abs(gap) * left, left)
        following = tl.maximum(root + step, 0.0)
        fine = some & (left < 1e300) & (following < MOST)
        hard = hard | (moving & (fine == 0))
        root = tl.where(moving & (hard == 0), following, root)
        moving = moving & (left > accuracy) & (tl.abs(gap) > 2.0 * accuracy)
    tl.store(roots + number, root, mask=within)
    tl.store(moves + number, tl.where(hard, HARD, tl.where(moving, MOVES, DONE)), mask=within)


@triton.jit
def swept(
    addresses, places, begin, end, group, within, threshold, k, scale, top, root, kappa, method: tl.constexpr,
    real: tl.constexpr,
):  # fmt: skip
    """One pass over all entries of groups, normalized: the largest dual and metric, |b|^2, q and m."""
    largest = tl.zeros([GROUPS], tl.float64)
    widest, n, q, m = largest, largest, largest, largest
    for p in range(begin, end):
        place = places + p * PLACE
        tensor, offset, inner = tl.load(place), tl.load(place + 1), tl.load(place + 3)
        outer_stride, group_stride, inner_stride = tl.load(place + 4), tl.load(place + 5), tl.load(place + 6)
        members = tl.load(place + 2) * inner
        at = pointers(addresses, tensor, offset, real)
        for start in range(0, members, MEMBERS):
            member = start + tl.arange(0, MEMBERS)
            outer = member // inner
            where = outer * outer_stride + (member - outer * inner) * inner_stride
            where = where[:, None] + (group * group_stride)[None, :]
            mask = (member < members)[:, None] & within[None, :]
            weight, one, two, three = read(at, where, mask, method)
            dual, metric = subproblem(weight, one, two, three, threshold, k, method, real)
            b, d = tl.where(mask, dual, 0.0).to(tl.float64), tl.where(mask, metric, 0.0).to(tl.float64)
            largest, widest = tl.maximum(largest, tl.max(tl.abs(b), 0)), tl.maximum(widest, tl.max(d, 0))
            b, d = b / scale[None, :], d / top[None, :]
            n += tl.sum(b * b, 0)
            more_q, more_m, _ = terms_of(b, d, root[None, :], kappa[None, :])
            q += tl.sum(more_q, 0)
            m += tl.sum(more_m, 0)
    return largest, widest, n, q, m


@triton.jit
def solve_alone(
    blocks, places, addresses, numbers, strengths, roots, moves, method: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    """Solve the groups that still move to the end, normalized, for numbers of any size."""
    if tl.load(numbers + GATE) == 0.0:
        return
    block = blocks + tl.program_id(0).to(tl.int64) * BLOCK
    number = tl.load(block + 2) + tl.arange(0, GROUPS)
    within = tl.arange(0, GROUPS) < tl.load(block + 3)
    going = tl.load(moves + number, mask=within, other=DONE)
    if tl.max(going, 0) == 0:
        return
    term, begin, end = tl.load(block), tl.load(block + 4), tl.load(block + 5)
    group = tl.load(block + 1) + tl.arange(0, GROUPS)
    lasso, _, strength = strengths_of(term, strengths, numbers)
    threshold, k = lasso.to(real), own_numbers(numbers, method, real)
    accuracy: tl.constexpr = 2.0**-25 if real == tl.float32 else 2.0**-54
    before = tl.load(roots + number, mask=within, other=0.0)
    changing, within = within & (going > 0), within & (going > 0)
    scale = tl.full([GROUPS], 1.0, tl.float64)
    top, kappa = scale, scale
    root = tl.zeros([GROUPS], tl.float64)
    turn = 0
    while (turn < TURNS) & (tl.max(changing.to(tl.int32), 0) > 0):
        largest, widest, n, q, m = swept(
            addresses, places, begin, end, group, within, threshold, k, scale, top, root, kappa, method, real
        )
        if turn == 0:
            changing = changing & (largest > 0.0) & (widest > 0.0)
            scale, top = tl.where(changing, largest, 1.0), tl.where(changing, widest, 1.0)
            # Below this it makes no difference, and above it the sums have room.
            kappa = tl.where(changing, tl.maximum(strength / scale, 1e-90), 1.0)
        elif turn == 1:
            changing = changing & (tl.sqrt(n) > kappa)
            kappa = tl.where(changing, kappa, 1.0)
            start = tl.where((going == MOVES) & (before < MOST), before, 0.0) / scale * top
            root = tl.where(changing & (start < MOST), start, 0.0)
        else:
            following = root + q / tl.where(m > 0.0, m, 1.0) * (tl.sqrt(q) - 1.0)
            # From any start, one step of Newton's method leads below the root, and further ones rise to it.
            rises = following > root * (1.0 + accuracy)
            changing = changing & (rises | (turn == 2))
            root = tl.where(changing, tl.maximum(following, 0.0), root)
        turn += 1
    tl.store(roots + number, root * (scale / top), mask=within)


@triton.jit
def certify(
    blocks, places, starts, numbers, strengths, sums, roots, kept, squares, method: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    """Write which groups of a block are kept, where the next solve starts, and the sum of squared residuals."""
    if tl.load(numbers + GATE) == 0.0:
        return
    block = blocks + tl.program_id(0).to(tl.int64) * BLOCK
    term, begin, end = tl.load(block), tl.load(block + 4), tl.load(block + 5)
    group = tl.load(block + 1) + tl.arange(0, GROUPS)
    number = tl.load(block + 2) + tl.arange(0, GROUPS)
    within = tl.arange(0, GROUPS) < tl.load(block + 3)
    _, strength, kappa = strengths_of(term, strengths, numbers)
    root = tl.load(roots + number, mask=within, other=0.0)
    found, _, _, _ = gathered(sums, places, begin, end, group, within, 0, 0)
    solved = tl.where(within, strength, 0.0) != 0.0
    alive = tl.where(solved, root > 0.0, found > 0.0)
    tl.store(kept + tl.load(block + 6) + tl.arange(0, GROUPS), alive.to(tl.uint8), mask=within)
    if method != "rmda":
        start = tl.load(starts + term).to(tl.pointer_type(real))
        tl.store(start + group, root.to(real), mask=solved)
        residual = tl.where(solved & alive, kappa * (tl.sqrt(found) - 1.0), 0.0)
        tl.store(squares + tl.program_id(0), tl.sum(residual * residual, 0))


# Entries without a group.


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


# Factors.


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
    if tl.load(numbers + GATE) == 0.0:
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


@triton.jit
def nothing(there):
    """Write one number: whether kernels can be compiled and run."""
    tl.store(there, 1)
