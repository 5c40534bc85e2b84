"""The loop of SGD on factors, compiled by numba: one pass over gradients, factors and momentums."""

# numba has no types.
# pyright: basic

from typing import Any

import numpy as np
from numba import float32, float64, int64, njit

from openwork.kernels.numba_memory import entry_of, fields, get, pointer, put
from openwork.kernels.tables import PANEL, TILE

FAST = {"contract", "reassoc", "nsz", "arcp"}


def factor_loops(precision: str, depth: int) -> tuple[Any, Any]:
    """The step on 2 to 4 factors: a function over tables and addresses, and its numba signature.

    Args:
        precision: ``"float32"`` or ``"float64"``.
        depth: Number of factors.

    Returns:
        The function, for ``njit``, and the types of its arguments.
    """
    real: Any = float32 if precision == "float32" else float64
    number: Any = np.float32 if precision == "float32" else np.float64
    one = number(1)
    options: Any = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    inlined: Any = njit(forceinline=True, fastmath=FAST, **options)

    @njit(forceinline=True, fastmath=False, **options)
    def product(a, b, c, d):
        # In this order, so that it has the bits that torch gives it; without saying so, callers say how fast to be.
        x = a * b
        if depth > 2:
            x = x * c
        if depth > 3:
            x = x * d
        return x

    @inlined
    def velocity(speed, slope, momentum, nesterov):
        """The new momentum, and the direction to descend along."""
        moved = momentum * speed + slope
        return moved, slope + momentum * moved if nesterov else moved

    @inlined
    def run(length, weight, grad, f0, f1, f2, f3, m0, m1, m2, m3, sign, lr, decay, momentum, moves, nesterov):
        for i in range(length):
            slope = sign * get(grad, i, "grad")
            a, b, c, d = get(f0, i, "one"), get(f1, i, "two"), one, one
            if depth > 2:
                c = get(f2, i, "three")
            if depth > 3:
                d = get(f3, i, "b")
            ab, cd = a * b, c * d
            to_a, to_b = slope * (b * cd) + decay * a, slope * (a * cd) + decay * b
            to_c, to_d = slope * (ab * d) + decay * c, slope * (ab * c) + decay * d
            if moves:
                speed, to_a = velocity(get(m0, i, "r"), to_a, momentum, nesterov)
                put(m0, i, speed, "r")
                speed, to_b = velocity(get(m1, i, "n"), to_b, momentum, nesterov)
                put(m1, i, speed, "n")
                if depth > 2:
                    speed, to_c = velocity(get(m2, i, "q"), to_c, momentum, nesterov)
                    put(m2, i, speed, "q")
                if depth > 3:
                    speed, to_d = velocity(get(m3, i, "m"), to_d, momentum, nesterov)
                    put(m3, i, speed, "m")
            a, b = a - lr * to_a, b - lr * to_b
            put(f0, i, a, "one")
            put(f1, i, b, "two")
            if depth > 2:
                c = c - lr * to_c
                put(f2, i, c, "three")
            if depth > 3:
                d = d - lr * to_d
                put(f3, i, d, "b")
            put(weight, i, product(a, b, c, d), "weight")

    def step(begin, end, tiles, panels, tensors, count, moves, nesterov, sign, lr, decay, momentum):
        tiles, panels, tensors = pointer(tiles, int64), pointer(panels, int64), pointer(tensors, int64)
        for t in range(begin, end):
            _, _, first, _, _, length = fields(tiles, t, TILE)
            tensor, base, _, _, _, _, _, _ = fields(panels, first, PANEL)
            # Addresses that are not needed are those of factors that are there.
            factors, speeds = 2 * count + tensor, (2 + depth if moves else 2) * count + tensor
            last, third = (depth - 1) * count, 2 * count if depth > 2 else count
            run(
                length, entry_of(tensors, tensor, base, real), entry_of(tensors, count + tensor, base, real),
                entry_of(tensors, factors, base, real), entry_of(tensors, factors + count, base, real),
                entry_of(tensors, factors + third, base, real), entry_of(tensors, factors + last, base, real),
                entry_of(tensors, speeds, base, real), entry_of(tensors, speeds + count, base, real),
                entry_of(tensors, speeds + third, base, real), entry_of(tensors, speeds + last, base, real),
                number(sign), number(lr), number(decay), number(momentum), moves != 0, nesterov != 0,
            )  # fmt: skip

    return step, (int64,) * 8 + (float64,) * 4
