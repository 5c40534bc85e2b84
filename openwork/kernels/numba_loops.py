"""The loops of fused steps, compiled by numba: tiles of groups that stay in the caches, each tensor read once.

A tile is a range of groups of one term, as panels: rows of consecutive entries. The first pass over a tile reads the
tensors, writes the sums that the method keeps, and forms dual and metric in scratch memory; it also sums up what a step
of Newton's method needs. Further passes read scratch memory only. The last one writes the weights.
"""

# pyright: basic, since numba has no types

import math
from typing import Any

import numpy as np
from numba import float32, float64, int64, njit, uint8

from openwork.kernels.numba_memory import at, bits, from_bits, get, pointer, put
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
    # The bits of x^(-1/3) are about this less a third of those of x; below tiny, x has no exponent to take a third of.
    magic = number(0x54A21D29 if single else 0x553EF0FF289DD796)
    tiny, lift, fall = number(np.finfo(number).tiny), number(2.0**72), number(2.0**-24)
    inlined = njit(forceinline=True, fastmath=FAST, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)

    @inlined
    def cube_root(x):
        small = x < tiny
        x = x * lift if small else x
        y = from_bits(whole(magic - number(bits(x)) * third))
        e = one - x * y * y * y
        y = y + y * e * (third + two_ninths * e)
        e = one - x * y * y * y
        if single:
            y = y + y * e * third
        else:
            y = y + y * e * (third + two_ninths * e)
            e = one - x * y * y * y
            y = y + y * e * (third + two_ninths * e)
        root = x * y * y
        return root * fall if small else root

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
            put(n, c, get(n, c, "n") + dual * dual, "n")
            if adaptive:
                put(d, c, metric, "d")
                inverse = one / (get(r, c, "r") * metric + kappa)
                u = dual * inverse
                y = metric * inverse
                t = u * u
                put(q, c, get(q, c, "q") + t, "q")
                t = t * y
                put(m, c, get(m, c, "m") + t, "m")
                put(s, c, get(s, c, "s") + t * y, "s")

    @inlined
    def next_row(columns, b, d, r, acc, kappa):
        q, m, s = at(acc, WIDEST), at(acc, 2 * WIDEST), at(acc, 3 * WIDEST)
        for c in range(columns):
            metric = get(d, c, "d")
            inverse = one / (get(r, c, "r") * metric + kappa)
            u = get(b, c, "b") * inverse
            y = metric * inverse
            t = u * u
            put(q, c, get(q, c, "q") + t, "q")
            t = t * y
            put(m, c, get(m, c, "m") + t, "m")
            put(s, c, get(s, c, "s") + t * y, "s")

    @inlined
    def last_row(columns, weight, b, d, r, acc, kappa, averaging):
        q = at(acc, WIDEST)
        for c in range(columns):
            root = get(r, c, "r")
            if adaptive:
                u = get(b, c, "b") / (root * get(d, c, "d") + kappa)
                put(q, c, get(q, c, "q") + u * u, "q")
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
            put(n, c, get(n, c, "n") + (one if x != zero else zero), "n")
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
            put(own, 0, get(own, 0, "groups") + all_n, "groups")
            put(own, 1, get(own, 1, "groups") + all_q, "groups")
            put(own, 2, get(own, 2, "groups") + all_m, "groups")
            put(own, 3, get(own, 3, "groups") + all_s, "groups")

    @inlined
    def spread(columns, inner, r, first, groups, field):
        """Give the columns the number of their group."""
        for j in range(columns // inner):
            value = number(get(groups, (first + j) * GROUP + field, "groups"))
            for c in range(j * inner, (j + 1) * inner):
                put(r, c, value, "r")

    # Groups.

    @njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
    def alone(panels, begin, end, group, b, d, kappa):
        """Newton's method for one group in double precision and normalized, for numbers of any size; 0 if it is zero."""
        scale, top, total, k, r = 0.0, 0.0, 0.0, 0.0, 0.0
        for turn in range(62):
            q, m, offset = 0.0, 0.0, 0
            for p in range(begin, end):
                panel = at(panels, p * PANEL)
                rows, columns, inner = get(panel, 2, "table"), get(panel, 3, "table"), get(panel, 5, "table")
                mine = group - get(panel, 6, "table")
                if 0 <= mine < columns // inner:
                    for row in range(rows):
                        for i in range(inner):
                            place = offset + row * columns + mine * inner + i
                            dual, metric = float64(get(b, place, "b")), 1.0
                            if adaptive:
                                metric = float64(get(d, place, "d"))
                            if turn == 0:
                                scale, top = max(scale, abs(dual)), max(top, metric)
                            elif turn == 1:
                                total += (dual / scale) ** 2
                            else:
                                inverse = 1 / (r * (metric / top) + k)
                                u = (dual / scale * inverse) ** 2
                                q += u
                                m += u * (metric / top) * inverse
                offset += rows * columns
            if turn == 0:
                if scale == 0.0 or top == 0.0:
                    return 0.0
                k = kappa / scale
            elif turn == 1:
                if math.sqrt(total) <= k:
                    return 0.0
            else:
                following = r + q * (math.sqrt(q) - 1) / m
                if not following > r * (1 + accuracy / 4):
                    break
                r = following
        return r * (scale / top)

    @njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
    def improve(panels, begin, end, count, groups, passes, b, d, kappa):
        """Move the roots of all groups by one step; whether another pass is needed.

        Of a group there are sums n = |b|^2, q, m, s over its entries, its root, and whether it still moves.
        """
        more = False
        for j in range(count):
            own = at(groups, j * GROUP)
            if passes == 0:
                n = get(own, 0, "groups")
                safe = least < n < most or (n <= least and kappa * kappa > 4 * least)
                if safe and not math.sqrt(n) > kappa:
                    put(own, 4, 0.0, "groups")
                    put(own, 5, 0.0, "groups")
                elif not safe:
                    put(own, 4, alone(panels, begin, end, j, b, d, kappa), "groups")
                    put(own, 5, 0.0, "groups")
                elif not adaptive:
                    put(own, 4, math.sqrt(n) - kappa, "groups")
                    put(own, 5, 0.0, "groups")
            if get(own, 5, "groups") != 0.0:
                root, q = get(own, 4, "groups"), get(own, 1, "groups")
                m, s = get(own, 2, "groups"), get(own, 3, "groups")
                gap = math.sqrt(q) - 1
                step = q * gap / m
                # Half of the curvature over the slope, in units of the gap; by Cauchy-Schwarz it has a sign.
                bend = 1.5 * max(s * q / (m * m) - 1, 0.0)
                turn = gap * bend
                left = bend * gap * gap
                if abs(turn) < 0.5:
                    # A step of third order (Halley's).
                    step, left = step / (1 - turn), bend * (1 + bend) * abs(gap * gap * gap)
                following = max(root + step, 0.0)
                if not (left < 1e300 and following < most) or passes == MOST_PASSES:
                    following, left = alone(panels, begin, end, j, b, d, kappa), 0.0
                put(own, 4, following, "groups")
                if left > accuracy and abs(gap) > 2 * accuracy:
                    more = True
                else:
                    put(own, 5, 0.0, "groups")
            for field in range(4):
                put(own, field, 0.0, "groups")
        return more

    @njit(fastmath=FAST, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
    def tile(
        panels,
        begin,
        end,
        count,
        weights,
        grads,
        ones,
        twos,
        threes,
        scratch,
        room,
        groups,
        roots,
        kept,
        kappa,
        threshold,
        k,
        plain,
        sign,
        decay,
        averaging,
    ):
        """One tile of groups; gives the sum of its squared residuals."""
        acc, r = scratch, at(scratch, 4 * WIDEST)
        temporary, b = at(scratch, 5 * WIDEST), at(scratch, 6 * WIDEST)
        d = at(b, room)
        flat = kappa == zero
        # A harmless equation where there is nothing to solve.
        some = one if flat else kappa
        for j in range(count):
            own = at(groups, j * GROUP)
            for field in range(4):
                put(own, field, 0.0, "groups")
            if adaptive:
                put(own, 4, float64(get(roots, j, "three")), "groups")
            put(own, 5, 1.0, "groups")
        for c in range(WIDEST):
            put(acc, c, zero, "n")
            put(at(acc, WIDEST), c, zero, "q")
            put(at(acc, 2 * WIDEST), c, zero, "m")
            put(at(acc, 3 * WIDEST), c, zero, "s")
        passes, last = 0, False
        while True:
            offset = 0
            for p in range(begin, end):
                panel = at(panels, p * PANEL)
                tensor, base = get(panel, 0, "table"), get(panel, 1, "table")
                rows, columns, stride = get(panel, 2, "table"), get(panel, 3, "table"), get(panel, 4, "table")
                inner, first = get(panel, 5, "table"), get(panel, 6, "table")
                spread(columns, inner, r, first, groups, 4)
                weight = at(pointer(get(weights, tensor, "table"), real), base)
                if passes == 0:
                    grad = at(pointer(get(grads, tensor, "table"), real), base)
                    one_ = at(pointer(get(ones, tensor, "table"), real), base)
                    two = at(pointer(get(twos, tensor, "table"), real), base)
                    three = at(pointer(get(threes, tensor, "table"), real), base)
                    for row in range(rows):
                        there, here = row * stride, offset + row * columns
                        source = at(grad, there)
                        if not plain:
                            descend(columns, at(weight, there), source, temporary, sign, decay)
                            source = temporary
                        first_row(
                            columns,
                            at(weight, there),
                            source,
                            at(one_, there),
                            at(two, there),
                            at(three, there),
                            at(b, here),
                            at(d, here),
                            r,
                            acc,
                            some,
                            threshold,
                            k,
                        )
                        if row % BLOCK == BLOCK - 1 or row == rows - 1:
                            flush(columns, inner, acc, first, groups)
                elif not last:
                    for row in range(rows):
                        here = offset + row * columns
                        next_row(columns, at(b, here), at(d, here), r, acc, some)
                        if row % BLOCK == BLOCK - 1 or row == rows - 1:
                            flush(columns, inner, acc, first, groups)
                elif flat:
                    for row in range(rows):
                        there, here = row * stride, offset + row * columns
                        free_row(columns, at(weight, there), at(b, here), at(d, here), acc, averaging)
                        if row % BLOCK == BLOCK - 1 or row == rows - 1:
                            flush(columns, inner, acc, first, groups)
                else:
                    for row in range(rows):
                        there, here = row * stride, offset + row * columns
                        last_row(columns, at(weight, there), at(b, here), at(d, here), r, acc, some, averaging)
                        if row % BLOCK == BLOCK - 1 or row == rows - 1:
                            flush(columns, inner, acc, first, groups)
                offset += rows * columns
            if last:
                break
            if flat:
                last = True
            else:
                last = not improve(panels, begin, end, count, groups, passes, b, d, float64(kappa))
            passes += 1
            if last and (flat or not adaptive):
                for j in range(count):
                    own = at(groups, j * GROUP)
                    for field in range(4):
                        put(own, field, 0.0, "groups")
                    if not flat:
                        # Of a group that is only scaled, by how much.
                        root = get(own, 4, "groups")
                        put(own, 4, root / (root + float64(kappa)), "groups")
        squares = 0.0
        for j in range(count):
            own = at(groups, j * GROUP)
            root = get(own, 4, "groups")
            alive = get(own, 0, "groups") > 0.0 if flat else root > 0.0
            put(kept, j, uint8(1 if alive else 0), "kept")
            if adaptive and not flat:
                put(roots, j, number(root), "three")
                if alive:
                    squares += (float64(kappa) * (math.sqrt(get(own, 1, "groups")) - 1)) ** 2
        return squares

    @njit(fastmath=FAST, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
    def entries(
        count, weight, grad, one_, two, three, temporary, kept, tells, threshold, k, plain, sign, decay, averaging
    ):
        """Entries without a group, which need one pass."""
        done = 0
        while done < count:
            some = min(count - done, WIDEST)
            source = at(grad, done)
            if not plain:
                descend(some, at(weight, done), source, temporary, sign, decay)
                source = temporary
            w, first, second, third_ = at(weight, done), at(one_, done), at(two, done), at(three, done)
            for c in range(some):
                x, metric = entry(c, w, source, first, second, third_, k)
                x = soften(x, threshold)
                if adaptive:
                    x = quotient(x, metric)
                if tells:
                    put(kept, done + c, uint8(1 if x != zero else 0), "kept")
                write(c, w, x, averaging)
            done += some

    def step(
        begin,
        end,
        tiles,
        panels,
        strengths,
        tensors,
        count,
        roots,
        kept,
        residuals,
        scratch,
        room,
        penalty_weight,
        averaging,
        sign,
        decay,
        k0,
        k1,
        k2,
        k3,
        k4,
        k5,
    ):
        tiles, panels = pointer(tiles, int64), pointer(panels, int64)
        strengths, residuals = pointer(strengths, float64), pointer(residuals, float64)
        tensors, roots, kept = pointer(tensors, int64), pointer(roots, int64), pointer(kept, int64)
        groups = pointer(scratch, float64)
        memory = at(pointer(scratch, real), WIDEST * GROUP * 8 // (4 if single else 8))
        k = (number(k0), number(k1), number(k2), number(k3), number(k4), number(k5))
        plain = sign == 1.0 and decay == 0.0
        weights, grads = tensors, at(tensors, count)
        ones, twos, threes = at(tensors, 2 * count), at(tensors, 3 * count), at(tensors, 4 * count)
        for t in range(begin, end):
            row = at(tiles, t * TILE)
            term, kind, first = get(row, 0, "table"), get(row, 1, "table"), get(row, 2, "table")
            last, start, length = get(row, 3, "table"), get(row, 4, "table"), get(row, 5, "table")
            threshold = number(penalty_weight * get(strengths, 2 * term, "groups"))
            kappa = number(penalty_weight * get(strengths, 2 * term + 1, "groups"))
            bools = at(pointer(get(kept, term, "table"), uint8), start)
            squares = 0.0
            if kind == 0:
                squares = tile(
                    panels,
                    first,
                    last,
                    length,
                    weights,
                    grads,
                    ones,
                    twos,
                    threes,
                    memory,
                    room,
                    groups,
                    at(pointer(get(roots, term, "table"), real), start),
                    bools,
                    kappa,
                    threshold,
                    k,
                    plain,
                    number(sign),
                    number(decay),
                    number(averaging),
                )
            else:
                panel = at(panels, first * PANEL)
                tensor, base = get(panel, 0, "table"), get(panel, 1, "table")
                entries(
                    length,
                    at(pointer(get(weights, tensor, "table"), real), base),
                    at(pointer(get(grads, tensor, "table"), real), base),
                    at(pointer(get(ones, tensor, "table"), real), base),
                    at(pointer(get(twos, tensor, "table"), real), base),
                    at(pointer(get(threes, tensor, "table"), real), base),
                    at(memory, 5 * WIDEST),
                    bools,
                    kind == 1,
                    threshold,
                    k,
                    plain,
                    number(sign),
                    number(decay),
                    number(averaging),
                )
            put(residuals, t, squares, "groups")

    return step, (int64,) * 12 + (float64,) * 10
