"""The loop that looks for numbers that are not finite, for numba."""

# numba has no types.
# pyright: basic

import math
from typing import Any

import numpy as np
from numba import float32, float64, int64, njit

from openwork.kernels.numba_memory import at, fields, get, pointer, put


def finite_loop(precision: str) -> tuple[Any, Any]:
    """A function over pieces of memory, each an address and a length, and its numba signature.

    It writes for each piece how many numbers are not finite.

    Args:
        precision: ``"float32"`` or ``"float64"``.

    Returns:
        The function, for ``njit``, and the types of its arguments.
    """
    real: Any = float32 if precision == "float32" else float64
    number: Any = np.float32 if precision == "float32" else np.float64
    zero = number(0)

    options: Any = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    inlined: Any = njit(forceinline=True, fastmath={"reassoc", "nsz"}, **options)
    one, largest = number(1), number(np.finfo(number).max)

    @inlined
    def failing(x):
        # To compare is not something that a compiler takes for granted.
        return zero if math.fabs(x) <= largest else one

    @inlined
    def count(numbers, length):
        """Numbers that are not finite, from four places at once: memory is faster when it is asked for more."""
        total, quarter = zero, length // 4
        second, third, fourth = at(numbers, quarter), at(numbers, 2 * quarter), at(numbers, 3 * quarter)
        for i in range(quarter):
            total += failing(get(numbers, i, "grad")) + failing(get(second, i, "grad"))
            total += failing(get(third, i, "grad")) + failing(get(fourth, i, "grad"))
        for i in range(4 * quarter, length):
            total += failing(get(numbers, i, "grad"))
        return total

    def step(begin, end, pieces, found):
        pieces, found = pointer(pieces, int64), pointer(found, float64)
        for piece in range(begin, end):
            address, length = fields(pieces, piece, 2)
            put(found, piece, float64(count(pointer(address, real), length)), "groups")

    return step, (int64,) * 4
