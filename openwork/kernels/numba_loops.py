"""The loops of fused steps, compiled by numba, over tiles of groups, which are gone through twice as a rule.

A tile is a range of groups of one term, as panels: rows of consecutive entries. The first pass over a tile writes the
sums that the method keeps, from which dual and metric follow; it also adds up what a step of Newton's method needs, at
the root of the last training step. As a rule that is enough, and the second pass writes the weights. Metrics, which
cost a root each, are kept from pass to pass. Duals are formed anew in each. Where groups are long runs of entries, such
as the rows of a matrix, a tile has so few that the second pass finds all in the caches. A tile of columns does not: to
keep duals would be more traffic, and tiles so narrow that they stay in the caches are read in pieces too short for
memory.
"""

# numba has no types.
# pyright: basic

import math
from typing import Any

import numpy as np
from numba import float32, float64, int64, njit, uint8

from openwork.kernels.numba_memory import at, bits, bump, entry_of, fields, from_bits, get, pointer, put
from openwork.kernels.tables import BLOCK, GAP, GROUP, LANE, PANEL, ROW, STRIP, TILE, WIDEST

# Sums may be ordered for speed and products fused; infinities and NaN stay what they are.
FAST = {"contract", "reassoc", "nsz", "arcp"}
# Passes over a tile before groups that Newton's method has not solved are solved alone.
MOST_PASSES = 12


def loops(precision: str, method: str) -> tuple[Any, Any]:
    """The step of a method in one precision: a function over tables and addresses, and its numba signature.

    Args:
        precision: ``"float32"`` or ``"float64"``.
        method: ``"ramda"``, ``"rmda"`` or ``"prox_adamw"``.

    Returns:
        The function, for ``njit``, and the types of its arguments; ``native`` says what these are.
    """
    single = precision == "float32"
    real: Any = float32 if single else float64
    number: Any = np.float32 if single else np.float64
    whole: Any = np.int32 if single else np.int64
    zero, one, third, two_ninths = number(0), number(1), number(1 / 3), number(2 / 9)
    half = number(0.5)
    # Sums of squares of which nothing was lost, neither small terms nor large ones.
    least, most = (1e-24, 1e30) if single else (1e-200, 1e200)
    accuracy = float(np.finfo(number).eps)
    # The bits of x^(-1/3) are about the second of these numbers less the first times those of x.
    magic = number(0x54A20000 if single else 0x553EF0FF289DD796)
    roots_of = third, magic, *(
        number(x)
        for x in (
            1.000000014378097, 0.6666666373063422, 0.5555307637249752,
            0.4938237614326937, 0.4589898803401329, 0.4266784011435936,
        )
    )  # fmt: skip

    options: Any = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    inlined: Any = njit(forceinline=True, fastmath=FAST, **options)
    helper: Any = njit(fastmath=FAST, **options)
    # Without saying so, a function would be as its callers are.
    exact: Any = njit(fastmath=False, **options)

    @inlined
    def cube_root(x, k):
        # x^(-1/3) within 4 %, from a third of the exponent.
        y = from_bits(whole(k[7] - number(bits(x)) * k[6]))
        if single:
            # x^(1/3) = x y^2 (1 - e)^(-2/3), whose last factor is a polynomial to 1e-8. Of a number without an exponent
            # (below 1e-38) it is only the right size.
            root = x * (y * y)
            e = one - root * y
            return root * (k[8] + e * (k[9] + e * (k[10] + e * (k[11] + e * (k[12] + e * k[13])))))
        for _ in range(3):
            e = one - x * y * y * y
            y = y + y * e * (third + two_ninths * e)
        return x * y * y

    # What a method does with an entry: it updates its sums, from which metric and dual follow.

    @inlined
    def update_ramda(c, grad, one_, two, three, k):
        gradient = get(grad, c, "grad")
        step = k[0] * gradient
        put(two, c, get(two, c, "two") + step, "two")
        put(three, c, get(three, c, "three") + step * gradient, "three")

    @inlined
    def metric_ramda(c, two, three, k):
        return cube_root(get(three, c, "three"), k) + k[1]

    @inlined
    def dual_ramda(c, metric, weight, one_, two, k):
        return metric * get(one_, c, "one") - get(two, c, "two")

    @inlined
    def update_rmda(c, grad, one_, two, three, k):
        put(two, c, get(two, c, "two") + k[0] * get(grad, c, "grad"), "two")

    @inlined
    def metric_rmda(c, two, three, k):
        return one

    @inlined
    def dual_rmda(c, metric, weight, one_, two, k):
        return get(one_, c, "one") - get(two, c, "two") * k[1]

    @inlined
    def update_prox_adamw(c, grad, one_, two, three, k):
        gradient = get(grad, c, "grad")
        momentum, square = get(one_, c, "one"), get(two, c, "two")
        put(one_, c, momentum + k[0] * (gradient - momentum), "one")
        put(two, c, square + k[1] * (gradient * gradient - square), "two")

    @inlined
    def metric_prox_adamw(c, two, three, k):
        return math.sqrt(get(two, c, "two") * k[2]) + k[3]

    @inlined
    def dual_prox_adamw(c, metric, weight, one_, two, k):
        return metric * (get(weight, c, "weight") * k[4]) - get(one_, c, "one") * k[5]

    update, metric_of, dual_of = {
        "ramda": (update_ramda, metric_ramda, dual_ramda),
        "rmda": (update_rmda, metric_rmda, dual_rmda),
        "prox_adamw": (update_prox_adamw, metric_prox_adamw, dual_prox_adamw),
    }[method]
    averages = method != "prox_adamw"
    adaptive = method != "rmda"

    @inlined
    def soften(b, threshold):
        # Loops are split by this, which does not change in them.
        return b - min(max(b, -threshold), threshold) if threshold > zero else b

    @inlined
    def quotient(b, d):
        return b / d if d > zero else zero

    @inlined
    def write(c, weight, x, averaging):
        if averages:
            before = get(weight, c, "weight")
            move = x - before
            # At averaging 1 the weight becomes the point bit for bit.
            x = before + averaging * move if averaging < half else x - (one - averaging) * move
        put(weight, c, x, "weight")

    @inlined
    def descend(columns, weight, grad, temporary, sign, decay):
        for c in range(columns):
            put(temporary, c, sign * get(grad, c, "grad") + decay * get(weight, c, "weight"), "grad")

    @inlined
    def entries_of(tensors, count, tensor, base):
        """Weight, gradient and state from an entry on."""
        weight, grad = entry_of(tensors, tensor, base, real), entry_of(tensors, count + tensor, base, real)
        one_, two = entry_of(tensors, 2 * count + tensor, base, real), entry_of(tensors, 3 * count + tensor, base, real)
        return weight, grad, one_, two, entry_of(tensors, 4 * count + tensor, base, real)

    @inlined
    def moved(cells, offset):
        """Weight, gradient and state some entries further."""
        weight, grad, one_, two, three = cells
        return at(weight, offset), at(grad, offset), at(one_, offset), at(two, offset), at(three, offset)

    # Strips of a few rows of a panel.

    @inlined
    def updates(columns, cells, b, d, threshold, k):
        """Update what the method keeps of a row; its metrics and duals."""
        weight, grad, one_, two, three = cells
        for c in range(columns):
            update(c, grad, one_, two, three, k)
            metric = one
            if adaptive:
                metric = metric_of(c, two, three, k)
                put(d, c, metric, "d")
            put(b, c, soften(dual_of(c, metric, weight, one_, two, k), threshold), "b")

    @inlined
    def metrics(columns, two, three, d, k):
        if adaptive:
            for c in range(columns):
                put(d, c, metric_of(c, two, three, k), "d")

    @inlined
    def metric_and_dual(c, weight, one_, two, d, threshold, k):
        metric = get(d, c, "d") if adaptive else one
        return metric, soften(dual_of(c, metric, weight, one_, two, k), threshold)

    @inlined
    def parts(c, b, d, root, kappa):
        """What an entry adds to the sums that a step of Newton's method needs."""
        dual = get(b, c, "b")
        if not adaptive:
            return dual * dual, zero, zero, zero
        metric = get(d, c, "d")
        inverse = one / (root * metric + kappa)
        u, y = dual * inverse, metric * inverse
        q = u * u
        m = q * y
        return dual * dual, q, m, m * y

    @inlined
    def moments(columns, b, d, r, acc, kappa):
        """Add four rows to the sums of their columns."""
        pitch = columns + GAP
        b1, b2, b3 = at(b, pitch), at(b, 2 * pitch), at(b, 3 * pitch)
        d1, d2, d3 = at(d, pitch), at(d, 2 * pitch), at(d, 3 * pitch)
        for c in range(columns):
            root = get(r, c, "r") if adaptive else zero
            n0, q0, m0, s0 = parts(c, b, d, root, kappa)
            n1, q1, m1, s1 = parts(c, b1, d1, root, kappa)
            n2, q2, m2, s2 = parts(c, b2, d2, root, kappa)
            n3, q3, m3, s3 = parts(c, b3, d3, root, kappa)
            bump(acc, c, (n0 + n1) + (n2 + n3), "n")
            if adaptive:
                bump(at(acc, LANE), c, (q0 + q1) + (q2 + q3), "q")
                bump(at(acc, 2 * LANE), c, (m0 + m1) + (m2 + m3), "m")
                bump(at(acc, 3 * LANE), c, (s0 + s1) + (s2 + s3), "s")

    @inlined
    def sum_up(first, known, columns, rows, stride, cells, b, d, changed, r, acc, kappa, threshold, k, c):
        """Add a strip to the sums of its columns; the first time, update what the method keeps.

        Metrics are in ``d`` then, and stay there if they are ``known`` from pass to pass.
        """
        sign, decay, _ = c
        plain = sign == one and decay == zero
        for row in range(rows):
            weight, grad, one_, two, three = moved(cells, row * stride)
            own_b, own_d = at(b, row * (columns + GAP)), at(d, row * (columns + GAP))
            if first:
                if not plain:
                    descend(columns, weight, grad, changed, sign, decay)
                    grad = changed
                updates(columns, (weight, grad, one_, two, three), own_b, own_d, threshold, k)
            else:
                if not known:
                    metrics(columns, two, three, own_d, k)
                for column in range(columns):
                    _, dual = metric_and_dual(column, weight, one_, two, own_d, threshold, k)
                    put(own_b, column, dual, "b")
        for row in range(rows, 4):
            for column in range(columns):
                put(at(b, row * (columns + GAP)), column, zero, "b")
                put(at(d, row * (columns + GAP)), column, one, "d")
        moments(columns, b, d, r, acc, kappa)

    @inlined
    def write_points(grouped, known, columns, rows, stride, cells, d, r, acc, kappa, threshold, k, c):
        """Write the weights of a strip, and add up what says how well its groups are solved, or what is not zero."""
        _, _, averaging = c
        for row in range(rows):
            weight, _, one_, two, three = moved(cells, row * stride)
            own_d = at(d, row * (columns + GAP))
            if not known:
                metrics(columns, two, three, own_d, k)
            if grouped:
                for column in range(columns):
                    metric, dual = metric_and_dual(column, weight, one_, two, own_d, threshold, k)
                    root = get(r, column, "r")
                    if adaptive:
                        u = dual / (root * metric + kappa)
                        bump(at(acc, LANE), column, u * u, "q")
                        write(column, weight, u * root, averaging)
                    else:
                        write(column, weight, dual * root, averaging)
            else:
                for column in range(columns):
                    metric, x = metric_and_dual(column, weight, one_, two, own_d, threshold, k)
                    if adaptive:
                        x = quotient(x, metric)
                    bump(acc, column, (one if x != zero else zero), "n")
                    write(column, weight, x, averaging)

    @inlined
    def flush(columns, inner, acc, first, groups):
        """Add the sums of columns to those of their groups, and begin anew."""
        n, q, m, s = acc, at(acc, LANE), at(acc, 2 * LANE), at(acc, 3 * LANE)
        for j in range(columns // inner):
            all_n, all_q, all_m, all_s = 0.0, 0.0, 0.0, 0.0
            for c in range(j * inner, (j + 1) * inner):
                all_n += get(n, c, "n")
                all_q += get(q, c, "q")
                all_m += get(m, c, "m")
                all_s += get(s, c, "s")
                put(n, c, zero, "n")
                put(q, c, zero, "q")
                put(m, c, zero, "m")
                put(s, c, zero, "s")
            own = at(groups, (first + j) * GROUP)
            bump(own, 0, all_n, "groups")
            bump(own, 1, all_q, "groups")
            bump(own, 2, all_m, "groups")
            bump(own, 3, all_s, "groups")

    @inlined
    def spread(columns, inner, r, first, groups):
        """Give the columns the number of their group."""
        for j in range(columns // inner):
            value = number(get(groups, (first + j) * GROUP + 4, "groups"))
            for c in range(j * inner, (j + 1) * inner):
                put(r, c, value, "r")

    # Groups.

    @exact
    def alone(panels, begin, end, group, tensors, count, kappa, threshold, k):
        """Newton's method for one group in double precision and normalized, for numbers of any size; 0 if zero."""
        scale, top, total, level, r = 0.0, 0.0, 0.0, 0.0, 0.0
        for turn in range(62):
            q, m = 0.0, 0.0
            for p in range(begin, end):
                tensor, base, rows, columns, stride, inner, first, _ = fields(panels, p, PANEL)
                start = (group - first) * inner
                weight, _, one_, two, three = entries_of(tensors, count, tensor, base + start)
                for row in range(rows if 0 <= start < columns else 0):
                    for place in range(row * stride, row * stride + inner):
                        short = metric_of(place, two, three, k)
                        dual = float64(soften(dual_of(place, short, weight, one_, two, k), threshold))
                        metric = float64(short)
                        if turn == 0:
                            scale, top = max(scale, abs(dual)), max(top, metric)
                        elif turn == 1:
                            u = dual / scale
                            total += u * u
                        else:
                            metric = metric / top
                            inverse = 1.0 / (r * metric + level)
                            u = dual / scale * inverse
                            q += u * u
                            m += u * u * metric * inverse
            if turn == 0:
                if scale == 0.0 or top == 0.0:
                    return 0.0
                level = kappa / scale
            elif turn == 1:
                if math.sqrt(total) <= level:
                    return 0.0
            else:
                following = r + q * (math.sqrt(q) - 1.0) / m
                if not following > r * (1.0 + accuracy / 4):
                    break
                r = following
        return r * (scale / top)

    @exact
    def improve(panels, begin, end, groups, own, passes, tensors, count, kappa, threshold, k):
        """Move the roots of all groups by one step; whether another pass is needed.

        Of a group there are sums n = |b|^2, q, m, s over its entries, its root, and whether it still moves.
        """
        more = False
        for j in range(groups):
            mine = at(own, j * GROUP)
            n, q, m, s = get(mine, 0, "groups"), get(mine, 1, "groups"), get(mine, 2, "groups"), get(mine, 3, "groups")
            root, moves = get(mine, 4, "groups"), get(mine, 5, "groups")
            hard = False
            if passes == 0:
                hard = not (least < n < most or (n <= least and kappa * kappa > 4.0 * least))
                surplus = math.sqrt(n) - kappa
                if not hard and (surplus <= 0.0 or not adaptive):
                    root, moves = max(surplus, 0.0), 0.0
            if moves != 0.0 and not hard:
                gap = math.sqrt(q) - 1.0
                # Half of the curvature over the slope, in units of the gap; by Cauchy-Schwarz it has a sign.
                bend = 1.5 * max(s * q / (m * m) - 1.0, 0.0)
                step, turn, left = q * gap / m, gap * bend, bend * gap * gap
                if abs(turn) < 0.5:
                    # A step of third order (Halley's).
                    step, left = step / (1.0 - turn), (1.0 + bend) * abs(gap) * left
                root = max(root + step, 0.0)
                hard = not (left < 1e300 and root < most) or passes == MOST_PASSES
                if left > accuracy and abs(gap) > 2.0 * accuracy:
                    more = True
                else:
                    moves = 0.0
            if hard:
                root, moves = alone(panels, begin, end, j, tensors, count, kappa, threshold, k), 0.0
            put(mine, 4, root, "groups")
            put(mine, 5, moves, "groups")
            for field in range(4):
                put(mine, field, 0.0, "groups")
        return more

    @helper
    def tile(panels, begin, end, groups, tensors, count, scratch, own, roots, kept, kappa, threshold, k, c):
        """One tile of groups; gives the sum of its squared residuals."""
        acc, r, b = scratch, at(scratch, 4 * LANE), at(scratch, 5 * LANE)
        d, changed = at(b, 4 * ROW), at(b, 8 * ROW)
        memory = at(b, 9 * ROW)
        # A harmless equation where there is nothing to solve.
        some = one if kappa == zero else kappa
        for j in range(groups):
            for field in range(4):
                put(own, j * GROUP + field, 0.0, "groups")
            put(own, j * GROUP + 4, float64(get(roots, j, "roots")) if adaptive else 0.0, "groups")
            put(own, j * GROUP + 5, 1.0, "groups")
        passes, phase = 0, 0
        while True:
            # Each pass goes back the way that the last one came, since what was read last is still in the caches.
            back = (passes & 1) == 1
            for turn in range(begin, end):
                p = begin + end - 1 - turn if back else turn
                tensor, base, rows, columns, stride, inner, first, keeps = fields(panels, p, PANEL)
                known = keeps >= 0
                spread(columns, inner, r, first, own)
                strips = (rows + 3) // 4
                for n in range(strips):
                    row = 4 * (strips - 1 - n if back else n)
                    here = min(4, rows - row)
                    for start in range(0, columns, STRIP):
                        width = min(STRIP, columns - start)
                        cells = entries_of(tensors, count, tensor, base + row * stride + start)
                        some_r, some_acc = at(r, start), at(acc, start)
                        # As the tables count them.
                        place = row * (columns + (columns + STRIP - 1) // STRIP * GAP)
                        place += 4 * (start + start // STRIP * GAP)
                        some_d = at(memory, keeps + place) if known else d
                        if phase < 2:
                            sum_up(
                                phase == 0, known, width, here, stride, cells, b, some_d, changed, some_r, some_acc,
                                some, threshold, k, c,
                            )  # fmt: skip
                        else:
                            write_points(
                                phase == 2, known, width, here, stride, cells, some_d, some_r, some_acc, some,
                                threshold, k, c,
                            )  # fmt: skip
                    if n % BLOCK == BLOCK - 1 or n == strips - 1:
                        flush(columns, inner, acc, first, own)
            if phase >= 2:
                break
            phase = 3
            if kappa != zero:
                more = improve(panels, begin, end, groups, own, passes, tensors, count, float64(kappa), threshold, k)
                phase = 1 if more else 2
            passes += 1
            if phase >= 2:
                for j in range(groups):
                    put(own, j * GROUP, 0.0, "groups")
                    if not adaptive:
                        # By how much a group is scaled.
                        root = get(own, j * GROUP + 4, "groups")
                        put(own, j * GROUP + 4, root / (root + float64(some)), "groups")
        squares = 0.0
        for j in range(groups):
            n, q, root = (
                get(own, j * GROUP, "groups"),
                get(own, j * GROUP + 1, "groups"),
                get(own, j * GROUP + 4, "groups"),
            )
            alive = n > 0.0 if phase == 3 else root > 0.0
            put(kept, j, uint8(1) if alive else uint8(0), "kept")
            if adaptive and phase == 2:
                put(roots, j, number(root), "roots")
                if alive:
                    residual = float64(kappa) * (math.sqrt(q) - 1.0)
                    squares += residual * residual
        return squares

    @helper
    def entries(length, weight, grad, one_, two, three, b, kept, tells, threshold, k, c):
        """Entries without a group, which need one pass."""
        sign, decay, averaging = c
        plain = sign == one and decay == zero
        d, temporary = at(b, ROW), at(b, 2 * ROW)
        for done in range(0, length, STRIP):
            some = min(length - done, STRIP)
            w, source = at(weight, done), at(grad, done)
            first, second, third_, bools = at(one_, done), at(two, done), at(three, done), at(kept, done)
            if not plain:
                descend(some, w, source, temporary, sign, decay)
                source = temporary
            updates(some, (w, source, first, second, third_), b, d, threshold, k)
            for column in range(some):
                x = get(b, column, "b")
                if adaptive:
                    x = quotient(x, get(d, column, "d"))
                if tells:
                    put(bools, column, uint8(1) if x != zero else uint8(0), "kept")
                write(column, w, x, averaging)

    def step(
        begin, end, tiles, panels, strengths, tensors, count, roots, kept, residuals, scratch, penalty_weight,
        averaging, sign, decay, k0, k1, k2, k3, k4, k5,
    ):  # fmt: skip
        tiles, panels, tensors = pointer(tiles, int64), pointer(panels, int64), pointer(tensors, int64)
        strengths, residuals, own = pointer(strengths, float64), pointer(residuals, float64), pointer(scratch, float64)
        roots, kept = pointer(roots, int64), pointer(kept, int64)
        memory = pointer(scratch + WIDEST * GROUP * 8, real)
        # Constants that come at run time stay in registers; others would be loaded for each entry anew.
        nil = number(sign) - number(sign)
        k = (
            number(k0), number(k1), number(k2), number(k3), number(k4), number(k5), roots_of[0] + nil,
            roots_of[1] + nil, roots_of[2] + nil, roots_of[3] + nil, roots_of[4] + nil, roots_of[5] + nil,
            roots_of[6] + nil, roots_of[7] + nil,
        )  # fmt: skip
        c = (number(sign), number(decay), number(averaging))
        # Sums over columns; a tile leaves them as it finds them.
        for column in range(4 * LANE):
            put(memory, column, zero, "n")
        for t in range(begin, end):
            term, kind, first, last, start, length = fields(tiles, t, TILE)
            threshold = number(penalty_weight * get(strengths, 2 * term, "groups"))
            kappa = number(penalty_weight * get(strengths, 2 * term + 1, "groups"))
            bools = entry_of(kept, term, start, uint8)
            squares = 0.0
            if kind == 0:
                squares = tile(
                    panels, first, last, length, tensors, count, memory, own, entry_of(roots, term, start, real),
                    bools, kappa, threshold, k, c,
                )  # fmt: skip
            else:
                tensor, base, _, _, _, _, _, _ = fields(panels, first, PANEL)
                weight, grad, one_, two, three = entries_of(tensors, count, tensor, base)
                entries(length, weight, grad, one_, two, three, at(memory, 5 * LANE), bools, kind == 1, threshold, k, c)
            put(residuals, t, squares, "groups")

    return step, (int64,) * 11 + (float64,) * 10
