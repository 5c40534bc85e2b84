"""The loops of fused steps, compiled by numba: tiles of groups that stay in the caches, each tensor read once.

A tile is a range of groups of one term, as panels: rows of consecutive entries. The first pass over a tile reads the
tensors, writes the sums that the method keeps, and forms dual and metric in scratch memory; it also sums up what a step
of Newton's method needs. Further passes read scratch memory only. The last one writes the weights.
"""

# numba has no types.
# pyright: basic

import math
from typing import Any

import numpy as np
from numba import float32, float64, int64, njit, uint8

from openwork.kernels.numba_memory import at, bits, bump, entry_of, fields, from_bits, get, pointer, put
from openwork.kernels.tables import BLOCK, GROUP, PANEL, TILE, WIDEST

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
    # The bits of x^(-1/3) are about this less a third of those of x.
    magic = number(0x54A20000 if single else 0x553EF0FF289DD796)
    c0, c1, c2 = number(1.000000014378097), number(0.6666666373063422), number(0.5555307637249752)
    c3, c4, c5 = number(0.4938237614326937), number(0.4589898803401329), number(0.4266784011435936)

    options: Any = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    inlined: Any = njit(forceinline=True, fastmath=FAST, **options)
    helper: Any = njit(fastmath=FAST, **options)
    # Without saying so, a function would be as its callers are.
    exact: Any = njit(fastmath=False, **options)

    @inlined
    def cube_root(x):
        # x^(-1/3) within 4 %, from a third of the exponent.
        y = from_bits(whole(magic - number(bits(x)) * third))
        if single:
            # x^(1/3) = x y^2 (1 - e)^(-2/3), whose last factor is a polynomial to 1e-8. Of a number without an exponent
            # (below 1e-38) it is only the right size.
            root = x * (y * y)
            e = one - root * y
            square = e * e
            low = c0 + c1 * e
            return root * (low + square * ((c2 + c3 * e) + square * (c4 + c5 * e)))
        for _ in range(3):
            e = one - x * y * y * y
            y = y + y * e * (third + two_ninths * e)
        return x * y * y

    # What a method does with an entry: it updates its sums, and gives dual and metric.

    @inlined
    def ramda(c, weight, grad, one_, two, three, k):
        gradient = get(grad, c, "grad")
        step = k[0] * gradient
        total = get(two, c, "two") + step
        squares = get(three, c, "three") + step * gradient
        put(two, c, total, "two")
        put(three, c, squares, "three")
        d = cube_root(squares) + k[1]
        return d * get(one_, c, "one") - total, d

    @inlined
    def rmda(c, weight, grad, one_, two, three, k):
        total = get(two, c, "two") + k[0] * get(grad, c, "grad")
        put(two, c, total, "two")
        return get(one_, c, "one") - total * k[1], one

    @inlined
    def prox_adamw(c, weight, grad, one_, two, three, k):
        gradient = get(grad, c, "grad")
        momentum, square = get(one_, c, "one"), get(two, c, "two")
        momentum = momentum + k[0] * (gradient - momentum)
        square = square + k[1] * (gradient * gradient - square)
        put(one_, c, momentum, "one")
        put(two, c, square, "two")
        d = math.sqrt(square * k[2]) + k[3]
        return d * (get(weight, c, "weight") * k[4]) - momentum * k[5], d

    entry: Any = {"ramda": ramda, "rmda": rmda, "prox_adamw": prox_adamw}[method]
    averages = method != "prox_adamw"
    adaptive = method != "rmda"

    @inlined
    def soften(b, threshold):
        return b - min(max(b, -threshold), threshold)

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

    # Rows of a panel.

    @inlined
    def first_row(columns, weight, grad, one_, two, three, b, d, r, acc, kappa, threshold, k):
        n, q, m, s = acc, at(acc, WIDEST), at(acc, 2 * WIDEST), at(acc, 3 * WIDEST)
        for c in range(columns):
            dual, metric = entry(c, weight, grad, one_, two, three, k)
            dual = soften(dual, threshold)
            put(b, c, dual, "b")
            bump(n, c, dual * dual, "n")
            if adaptive:
                put(d, c, metric, "d")
                inverse = one / (get(r, c, "r") * metric + kappa)
                u = dual * inverse
                y = metric * inverse
                t = u * u
                bump(q, c, t, "q")
                t = t * y
                bump(m, c, t, "m")
                bump(s, c, t * y, "s")

    @inlined
    def next_row(columns, b, d, r, acc, kappa):
        q, m, s = at(acc, WIDEST), at(acc, 2 * WIDEST), at(acc, 3 * WIDEST)
        for c in range(columns):
            metric = get(d, c, "d")
            inverse = one / (get(r, c, "r") * metric + kappa)
            u = get(b, c, "b") * inverse
            y = metric * inverse
            t = u * u
            bump(q, c, t, "q")
            t = t * y
            bump(m, c, t, "m")
            bump(s, c, t * y, "s")

    @inlined
    def last_row(columns, weight, b, d, r, acc, kappa, averaging):
        q = at(acc, WIDEST)
        for c in range(columns):
            root = get(r, c, "r")
            if adaptive:
                u = get(b, c, "b") / (root * get(d, c, "d") + kappa)
                bump(q, c, u * u, "q")
                write(c, weight, u * root, averaging)
            else:
                write(c, weight, get(b, c, "b") * root, averaging)

    @inlined
    def quotient(b, d):
        return b / d if d > zero else zero

    @inlined
    def free_row(columns, weight, b, d, acc, averaging):
        n = acc
        for c in range(columns):
            x = get(b, c, "b")
            if adaptive:
                x = quotient(x, get(d, c, "d"))
            bump(n, c, (one if x != zero else zero), "n")
            write(c, weight, x, averaging)

    @inlined
    def flush(columns, inner, acc, first, groups):
        """Add the sums of columns to those of their groups, and begin anew."""
        n, q, m, s = acc, at(acc, WIDEST), at(acc, 2 * WIDEST), at(acc, 3 * WIDEST)
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
    def alone(panels, begin, end, group, b, d, kappa):
        """Newton's method for one group in double precision and normalized, for numbers of any size; 0 if zero."""
        scale, top, total, k, r = 0.0, 0.0, 0.0, 0.0, 0.0
        for turn in range(62):
            q, m, offset = 0.0, 0.0, 0
            for p in range(begin, end):
                _, _, rows, columns, _, inner, first = fields(panels, p, PANEL)
                start = (group - first) * inner
                for row in range(rows if 0 <= start < columns else 0):
                    for place in range(offset + row * columns + start, offset + row * columns + start + inner):
                        dual, metric = float64(get(b, place, "b")), 1.0
                        if adaptive:
                            metric = float64(get(d, place, "d"))
                        if turn == 0:
                            scale, top = max(scale, abs(dual)), max(top, metric)
                        elif turn == 1:
                            u = dual / scale
                            total += u * u
                        else:
                            metric = metric / top
                            inverse = 1.0 / (r * metric + k)
                            u = dual / scale * inverse
                            q += u * u
                            m += u * u * metric * inverse
                offset += rows * columns
            if turn == 0:
                if scale == 0.0 or top == 0.0:
                    return 0.0
                k = kappa / scale
            elif turn == 1:
                if math.sqrt(total) <= k:
                    return 0.0
            else:
                following = r + q * (math.sqrt(q) - 1.0) / m
                if not following > r * (1.0 + accuracy / 4):
                    break
                r = following
        return r * (scale / top)

    @exact
    def improve(panels, begin, end, count, groups, passes, b, d, kappa):
        """Move the roots of all groups by one step; whether another pass is needed.

        Of a group there are sums n = |b|^2, q, m, s over its entries, its root, and whether it still moves.
        """
        more = False
        for j in range(count):
            own = at(groups, j * GROUP)
            n, q, m, s = get(own, 0, "groups"), get(own, 1, "groups"), get(own, 2, "groups"), get(own, 3, "groups")
            root, moves = get(own, 4, "groups"), get(own, 5, "groups")
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
                root, moves = alone(panels, begin, end, j, b, d, kappa), 0.0
            put(own, 4, root, "groups")
            put(own, 5, moves, "groups")
            for field in range(4):
                put(own, field, 0.0, "groups")
        return more

    @helper
    def tile(panels, begin, end, groups, tensors, count, scratch, room, own, roots, kept, kappa, threshold, k, c):
        """One tile of groups; gives the sum of its squared residuals."""
        sign, decay, averaging = c
        plain = sign == one and decay == zero
        acc, r = scratch, at(scratch, 4 * WIDEST)
        temporary, b = at(scratch, 5 * WIDEST), at(scratch, 6 * WIDEST)
        d = at(b, room)
        # A harmless equation where there is nothing to solve.
        some = one if kappa == zero else kappa
        for j in range(groups):
            for field in range(4):
                put(own, j * GROUP + field, 0.0, "groups")
            put(own, j * GROUP + 4, float64(get(roots, j, "roots")) if adaptive else 0.0, "groups")
            put(own, j * GROUP + 5, 1.0, "groups")
        for column in range(WIDEST):
            put(acc, column, zero, "n")
            put(at(acc, WIDEST), column, zero, "q")
            put(at(acc, 2 * WIDEST), column, zero, "m")
            put(at(acc, 3 * WIDEST), column, zero, "s")
        passes, phase = 0, 0
        while True:
            offset = 0
            for p in range(begin, end):
                tensor, base, rows, columns, stride, inner, first = fields(panels, p, PANEL)
                weight = entry_of(tensors, tensor, base, real)
                grad = entry_of(tensors, count + tensor, base, real)
                one_ = entry_of(tensors, 2 * count + tensor, base, real)
                two = entry_of(tensors, 3 * count + tensor, base, real)
                three = entry_of(tensors, 4 * count + tensor, base, real)
                spread(columns, inner, r, first, own)
                for row in range(rows):
                    there, here = row * stride, offset + row * columns
                    w, bs, ds = at(weight, there), at(b, here), at(d, here)
                    if phase == 0:
                        source = at(grad, there)
                        if not plain:
                            descend(columns, w, source, temporary, sign, decay)
                            source = temporary
                        first_row(
                            columns,
                            w,
                            source,
                            at(one_, there),
                            at(two, there),
                            at(three, there),
                            bs,
                            ds,
                            r,
                            acc,
                            some,
                            threshold,
                            k,
                        )
                    elif phase == 1:
                        next_row(columns, bs, ds, r, acc, some)
                    elif phase == 2:
                        last_row(columns, w, bs, ds, r, acc, some, averaging)
                    else:
                        free_row(columns, w, bs, ds, acc, averaging)
                    if row % BLOCK == BLOCK - 1 or row == rows - 1:
                        flush(columns, inner, acc, first, own)
                offset += rows * columns
            if phase >= 2:
                break
            phase = 3
            if kappa != zero:
                phase = 1 if improve(panels, begin, end, groups, own, passes, b, d, float64(kappa)) else 2
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
    def entries(length, weight, grad, one_, two, three, temporary, kept, tells, threshold, k, c):
        """Entries without a group, which need one pass."""
        sign, decay, averaging = c
        plain = sign == one and decay == zero
        for done in range(0, length, WIDEST):
            some = min(length - done, WIDEST)
            w, source = at(weight, done), at(grad, done)
            first, second, third_, bools = at(one_, done), at(two, done), at(three, done), at(kept, done)
            if not plain:
                descend(some, w, source, temporary, sign, decay)
                source = temporary
            for column in range(some):
                x, metric = entry(column, w, source, first, second, third_, k)
                x = soften(x, threshold)
                if adaptive:
                    x = quotient(x, metric)
                if tells:
                    put(bools, column, uint8(1) if x != zero else uint8(0), "kept")
                write(column, w, x, averaging)

    def step(
        begin, end, tiles, panels, strengths, tensors, count, roots, kept, residuals, scratch, room, penalty_weight,
        averaging, sign, decay, k0, k1, k2, k3, k4, k5,
    ):  # fmt: skip
        tiles, panels, tensors = pointer(tiles, int64), pointer(panels, int64), pointer(tensors, int64)
        strengths, residuals, own = pointer(strengths, float64), pointer(residuals, float64), pointer(scratch, float64)
        roots, kept = pointer(roots, int64), pointer(kept, int64)
        memory = pointer(scratch + WIDEST * GROUP * 8, real)
        k = (number(k0), number(k1), number(k2), number(k3), number(k4), number(k5))
        c = (number(sign), number(decay), number(averaging))
        for t in range(begin, end):
            term, kind, first, last, start, length = fields(tiles, t, TILE)
            threshold = number(penalty_weight * get(strengths, 2 * term, "groups"))
            kappa = number(penalty_weight * get(strengths, 2 * term + 1, "groups"))
            bools = entry_of(kept, term, start, uint8)
            squares = 0.0
            if kind == 0:
                squares = tile(
                    panels, first, last, length, tensors, count, memory, room, own, entry_of(roots, term, start, real),
                    bools, kappa, threshold, k, c,
                )  # fmt: skip
            else:
                tensor, base, _, _, _, _, _ = fields(panels, first, PANEL)
                entries(
                    length, entry_of(tensors, tensor, base, real), entry_of(tensors, count + tensor, base, real),
                    entry_of(tensors, 2 * count + tensor, base, real),
                    entry_of(tensors, 3 * count + tensor, base, real),
                    entry_of(tensors, 4 * count + tensor, base, real), at(memory, 5 * WIDEST), bools, kind == 1,
                    threshold, k, c,
                )  # fmt: skip
            put(residuals, t, squares, "groups")

    return step, (int64,) * 12 + (float64,) * 10
