"""The 8 x 8 digits that scikit-learn carries along: real data on any machine."""

from collections.abc import Callable
from importlib import import_module
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from openwork.data.splits import Data, Split, split_off_test


def digits(valid: float = 0.1, *, seed: int = 0) -> Data:
    """Handwritten digits, 1797 grey images of 8 x 8 pixels, 10 classes.

    There is no official split in scikit-learn's copy: 20 % (359) are for testing, a random draw that no seed changes,
    and of the other 1438 the fraction ``valid`` is for validation.

    Args:
        valid: Training samples to hold out, a fraction or a whole number.
        seed: Of that draw.

    Returns:
        Inputs ``(N, 64)`` float32 in [0, 1], row by row; targets ``(N,)`` int64.

    Raises:
        ValueError: If ``valid`` leaves nothing to train on.

    References:
        Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI (1998), doi:10.24432/C50P49; the test part.
    """
    # Imported here: scikit-learn takes longer to import than an epoch of these takes to train.
    load = cast(
        "Callable[..., tuple[NDArray[np.float64], NDArray[np.int64]]]", import_module("sklearn.datasets").load_digits
    )
    pixels, labels = load(return_X_y=True)
    samples = Split(torch.as_tensor(pixels).float() / 16, torch.as_tensor(labels).long())
    return split_off_test("digits", samples, classes=10, fraction=0.2).hold_out(valid, seed)
