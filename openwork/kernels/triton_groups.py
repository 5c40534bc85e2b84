"""The loops over groups of fused steps, in Triton; ``cuda`` says in which order they run, ``device_tables`` over what.

The first pass over the tiles reads gradients and state, writes the sums that the method keeps, and sums up, in double
precision, what a step of Newton's method needs where the last solve ended. Further passes form dual and metric anew
from the state, in tiles whose groups still move. The last one writes the weights. Numbers that change from step to step
are read from memory, so that nobody waits for them and a captured step sees the new ones.
"""

# Triton's types are not those of the arguments that kernels are called with.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportOperatorIssue=false
# pyright: reportGeneralTypeIssues=false

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from openwork.kernels import device_tables
from openwork.kernels.triton_entries import (
    AVERAGING,
    DECAY,
    GATE,
    SIGN,
    moved,
    own_numbers,
    pointers,
    quotient,
    read,
    stepped,
    strengths_of,
    subproblem,
)

COLUMNS = tl.constexpr(device_tables.COLUMNS)
GROUPS = tl.constexpr(device_tables.GROUPS)
TILE = tl.constexpr(len(device_tables.Tile._fields))
BLOCK = tl.constexpr(len(device_tables.Block._fields))
PLACE = tl.constexpr(len(device_tables.Place._fields))
# Rows of a tile, members of groups, and rows of slots that a program takes at a time.
STEP, MEMBERS, SLOTS = tl.constexpr(8), tl.constexpr(16), tl.constexpr(16)
# Sums of a slot: |b|^2, q, m, s; the last pass has one, in the first place, and RMDA has no other.
SUMS = tl.constexpr(4)
# Whether a group moves: its root is found, it is not yet, or its sums left the range of double precision.
DONE, MOVES, HARD = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
# Turns of Newton's method for groups that are left to it alone.
TURNS = tl.constexpr(64)
# Sums of squares of which nothing was lost, neither small terms nor large ones.
LEAST, MOST = tl.constexpr(1e-200), tl.constexpr(1e200)


# Tiles.


@triton.jit
def opened(tile, addresses, numbers, strengths, method: tl.constexpr, real: tl.constexpr):
    """Where a tile lies in all lists, its limit and stride of rows, numbers of the method, lasso, norm, and kappa."""
    lasso, norm, kappa = strengths_of(tl.load(tile), strengths, numbers)
    at = pointers(addresses, tl.load(tile + 1), tl.load(tile + 2), real)
    k = own_numbers(numbers, method, real)
    return at, tl.load(tile + 4), tl.load(tile + 5), k, lasso.to(real), norm, kappa


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
def slots_at(sums, slots, method: tl.constexpr):
    """Where the sums of slots are."""
    if method == "rmda":
        return sums + slots
    return sums + slots * SUMS


@triton.jit
def put(tile, sums, which: tl.constexpr, values, within, method: tl.constexpr):
    """Write the sums of columns, or of the one group of a tile, to their slots."""
    columns = tl.arange(0, COLUMNS)
    whole = tl.where(within, tl.load(tile + 6), 0) == COLUMNS
    by_columns = tl.sum(values, 0)
    found = tl.where(whole, tl.sum(by_columns, 0), by_columns)
    slots = slots_at(sums, tl.load(tile + 11) + columns, method)
    tl.store(slots + which, found, mask=within & ((columns == 0) | (whole == 0)))


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
    at, limit, stride, k, threshold, _, kappa = opened(tile, addresses, numbers, strengths, method, real)
    offsets, owners, within = columns_of(tile)
    root = tl.zeros([COLUMNS], tl.float64)
    if method != "rmda":
        start = tl.load(starts + tl.load(tile)).to(tl.pointer_type(real)) + tl.load(tile + 9)
        root = tl.load(start + owners, mask=within, other=0.0).to(tl.float64)
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
    put(tile, sums, 0, n, within, method)
    if method != "rmda":
        put(tile, sums, 1, q, within, method)
        put(tile, sums, 2, m, within, method)
        put(tile, sums, 3, s, within, method)


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
    at, limit, stride, k, threshold, _, kappa = opened(tile, addresses, numbers, strengths, method, real)
    root = tl.load(roots + number, mask=within, other=0.0)
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
    put(tile, sums, 1, q, within, method)
    put(tile, sums, 2, m, within, method)
    put(tile, sums, 3, s, within, method)


@triton.jit
def last_pass(
    tiles, addresses, numbers, strengths, sums, roots, method: tl.constexpr, real: tl.constexpr,
):  # fmt: skip
    """Write the weights of a tile, and sum up q; or count what is not zero, where there is nothing to solve."""
    if tl.load(numbers + GATE) == 0.0:
        return
    tile = tiles + tl.program_id(0).to(tl.int64) * TILE
    at, limit, stride, k, threshold, norm, kappa = opened(tile, addresses, numbers, strengths, method, real)
    averaging = tl.load(numbers + AVERAGING).to(real)
    offsets, owners, within = columns_of(tile)
    root = tl.load(roots + tl.load(tile + 10) + owners, mask=within, other=0.0)[None, :]
    found = tl.zeros([STEP, COLUMNS], tl.float64)
    for row in range(0, tl.cdiv(limit, COLUMNS), STEP):
        where, mask = rows_of(row, limit, stride, offsets, within)
        weight, one, two, three = read(at, where, mask, method)
        if method != "prox_adamw":
            weight = tl.load(at[0] + where, mask=mask, other=0.0)
        dual, metric = subproblem(weight, one, two, three, threshold, k, method, real)
        dual = tl.where(mask, dual, 0.0)
        if norm == 0.0:
            x = quotient(dual, metric, real)
            found += (x != 0.0).to(tl.float64)
        else:
            u = dual.to(tl.float64) / (root * metric.to(tl.float64) + kappa)
            found += u * u
            x = tl.where(root > 0.0, u * root, 0.0).to(real)
        if method != "prox_adamw":
            x = moved(weight, x, averaging)
        tl.store(at[0] + where, x, mask=mask)
    put(tile, sums, 0, found, within, method)


# Groups.


@triton.jit
def gathered(
    sums, places, begin, end, group, within, first: tl.constexpr, last: tl.constexpr, method: tl.constexpr,
):  # fmt: skip
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
                slots = slot + rows[:, None] * width + (group * inner + column)[None, :]
                where = slots_at(sums, slots, method)
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
        n, q, m, s = gathered(sums, places, begin, end, group, within, 0, 0, method)
    elif first:
        n, q, m, s = gathered(sums, places, begin, end, group, within, 0, 3, method)
    else:
        n, q, m, s = gathered(sums, places, begin, end, group, within, 1, 3, method)
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
    found, _, _, _ = gathered(sums, places, begin, end, group, within, 0, 0, method)
    solved = tl.where(within, strength, 0.0) != 0.0
    alive = tl.where(solved, root > 0.0, found > 0.0)
    tl.store(kept + tl.load(block + 6) + tl.arange(0, GROUPS), alive.to(tl.uint8), mask=within)
    if method != "rmda":
        start = tl.load(starts + term).to(tl.pointer_type(real))
        tl.store(start + group, root.to(real), mask=solved)
        residual = tl.where(solved & alive, kappa * (tl.sqrt(found) - 1.0), 0.0)
        tl.store(squares + tl.program_id(0), tl.sum(residual * residual, 0))
