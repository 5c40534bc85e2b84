"""Booleans as text, for a JSON file."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def pack_bits(kept: Tensor) -> str:
    """Booleans as hexadecimal digits, the first one in the highest bit of the first digit.

    Args:
        kept: Booleans of any shape, read in row-major order.

    Returns:
        Two digits per eight booleans; the last byte is filled up with zero bits.
    """
    return np.packbits(kept.detach().flatten().cpu().numpy()).tobytes().hex()


def unpack_bits(text: str, count: int) -> NDArray[np.bool_]:
    """The booleans that ``pack_bits`` wrote.

    Args:
        text: Hexadecimal digits.
        count: Number of booleans.

    Returns:
        Array of shape ``(count,)``.

    Raises:
        ValueError: If ``text`` is not hexadecimal, or not of the length that ``count`` booleans need.
    """
    try:
        packed = bytes.fromhex(text)
    except ValueError:
        packed = None
    if packed is None or len(packed) != -(-count // 8):
        raise ValueError(
            f"unpack_bits: {count} booleans need {-(-count // 8) * 2} hexadecimal digits, "
            f"got {len(text)} characters {text[:16]!r}; the text was cut short or is not from pack_bits"
        )
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=count).astype(bool)
