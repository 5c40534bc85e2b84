"""The loop that looks for numbers that are not finite, for numba."""

# numba has no types.
# pyright: basic

import math
from typing import Any

import numpy as np
from numba import float32, float64, int64, njit

from openwork.kernels.numba_memory import fields, get, pointer, put


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
    def count(numbers, length):
        """Numbers that are not finite; to compare them is not something that a compiler takes for granted."""
        total = zero
        for i in range(length):
            total += zero if math.fabs(get(numbers, i, "grad")) <= largest else one
        return total

    def step(begin, end, pieces, found):
        pieces, found = pointer(pieces, int64), pointer(found, float64)
        for piece in range(begin, end):
            address, length = fields(pieces, piece, 2)
            put(found, piece, float64(count(pointer(address, real), length)), "groups")

    return step, (int64,) * 4
