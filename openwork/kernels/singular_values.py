"""Singular values moved towards zero."""

from typing import NamedTuple

import torch
from torch import Tensor

from openwork.kernels.group_norm import Scalar

# Threshold in units of the largest singular value from which single precision is enough for the Gram matrix, and the
# steps to estimate that value by.
ROUGH = 0.1
POWER_STEPS = 8


class SingularValues(NamedTuple):
    """A matrix after its singular values were moved.

    Args:
        x: The matrix, shape (..., m, n).
        values: Its singular values, largest first, shape (..., min(m, n)); exact zeros where they vanished.
    """

    x: Tensor
    values: Tensor


def shrink_singular_values(x: Tensor, threshold: Scalar) -> SingularValues:
    """Singular value thresholding: move every singular value by ``threshold`` towards zero, at most to it.

    In single precision it costs one eigendecomposition of the smaller Gram matrix. Squaring loses half of the digits,
    so the squares are formed in double precision, which is still faster than an SVD in single precision, and more
    accurate. Only where the threshold is large against the largest singular value can what survives do without.
    Double precision takes the SVD.

    Args:
        x: Matrices of shape (..., m, n), floating, finite.
        threshold: >= 0, a number or of shape (...).

    Returns:
        The matrices and their new singular values.

    Raises:
        ValueError: If ``x`` is not finite, as when a training diverged.

    References:
        Cai, Candès & Shen, A singular value thresholding algorithm (2010), theorem 2.1.
    """
    if x.shape[-2] < x.shape[-1]:
        moved = shrink_singular_values(x.mT, threshold)
        return SingularValues(moved.x.mT, moved.values)
    if isinstance(threshold, Tensor):
        threshold = threshold.to(torch.float64).unsqueeze(-1)
    decompose, otherwise = (_svd, _gram) if x.dtype == torch.float64 else (_gram, _svd)
    # Decompositions wait for the device anyway, so that asking it costs nothing more, except in compiled code.
    wait = not torch.compiler.is_compiling()
    # The relative error of the result is about eps (sigma_1 / threshold)^2 / 2.
    rough = x.dtype == torch.float32 and wait and bool((threshold > ROUGH * _largest(x)).all())
    wide = x if rough else x.double()
    try:
        basis, values = decompose(wide)
    except RuntimeError:  # torch.linalg.LinAlgError: the iteration failed, and the other one need not
        basis, values = otherwise(x.double().nan_to_num())
    if wait and not bool(values.isfinite().all() & x.isfinite().all()):
        raise ValueError(
            f"a weight of shape {tuple(x.shape)} has numbers that are not finite, so it has no singular values: the "
            "training has diverged; lower lr, or clip the gradient"
        )
    shrunk = (values - threshold).clamp_min(0.0)
    factors = torch.where(shrunk > 0, shrunk / torch.where(shrunk > 0, values, 1.0), 0.0).to(x.dtype)
    if wait:
        rank = int((shrunk > 0).sum(-1).max()) if shrunk.numel() else 0
        basis, factors = basis[..., :rank], factors[..., :rank]
    basis = basis.to(x.dtype)
    # x V f(S) V' = U S f(S) V', without the left singular vectors.
    point = x @ (basis * factors.unsqueeze(-2)) @ basis.mT
    return SingularValues(point, shrunk.to(x.dtype))


def singular_values(x: Tensor) -> Tensor:
    """Singular values of matrices of shape (..., m, n), largest first."""
    return torch.linalg.svdvals(x)  # pyright: ignore


def _largest(x: Tensor) -> Tensor:
    """The largest singular value within a few percent, by power iteration, shape (..., 1)."""
    v, value = x.new_ones(*x.shape[:-2], x.shape[-1], 1), x.new_ones(*x.shape[:-2], 1, 1)
    for _ in range(POWER_STEPS):
        v = x.mT @ (x @ (v / value.clamp_min(torch.finfo(x.dtype).tiny)))
        value = v.square().sum(-2, keepdim=True).sqrt()
    return value.squeeze(-1).sqrt()


# torch declares its decompositions without types.


def _svd(x: Tensor) -> tuple[Tensor, Tensor]:
    """Right singular vectors as columns, and singular values."""
    _, values, basis = torch.linalg.svd(x, full_matrices=False)  # pyright: ignore
    return basis.mT, values  # pyright: ignore


def _gram(x: Tensor) -> tuple[Tensor, Tensor]:
    """The same for matrices with at least as many rows as columns, from ``x'x``, to half of the digits."""
    squares, basis = torch.linalg.eigh(x.mT @ x)  # pyright: ignore
    return basis.flip(-1), squares.flip(-1).clamp_min(0.0).sqrt()  # pyright: ignore
