"""Two units for one training run: with kept entries multiplied by 1 / p, or as they are."""

from torch import Tensor

Scalar = float | Tensor


def scaled_point(x: Tensor, v: Tensor, p: Scalar) -> Tensor:
    """``z = v + p (x - v)``: weights for masks that multiply by 1 / p, from those for masks that do not.

    ``v + M (x - v)`` without the scale equals ``v + (M / p) (z - v)`` with it, so that z is also the dense model of a
    run without scale: weight scaling at test time.

    Args:
        x: Weights trained without scale.
        v: Shift.
        p: Probability that an entry is kept, in (0, 1]; a number, or one for each entry.
    """
    return v + p * (x - v)


def unscaled_point(z: Tensor, v: Tensor, p: Scalar) -> Tensor:
    """``x = v + (z - v) / p``, the way back from ``scaled_point``.

    Args:
        z: Weights trained with scale.
        v: Shift.
        p: Probability that an entry is kept, in (0, 1]; a number, or one for each entry.
    """
    return v + (z - v) / p


__all__ = ["scaled_point", "unscaled_point"]
