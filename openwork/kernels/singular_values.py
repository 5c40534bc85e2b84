"""Singular values moved towards zero."""

from typing import NamedTuple

import torch
from torch import Tensor

from openwork.kernels.group_norm import Scalar


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

    In single precision it costs one eigendecomposition of the smaller Gram matrix, in double precision: squaring the
    singular values of a matrix loses half of the digits, and double has twice as many as single, so that this is both
    faster than an SVD in single precision and more accurate. Double precision takes the SVD.

    Args:
        x: Matrices of shape (..., m, n), floating, finite.
        threshold: >= 0, a number or of shape (...).

    Returns:
        The matrices and their new singular values.

    References:
        Cai, Candès & Shen, A singular value thresholding algorithm (2010), theorem 2.1.
    """
    if x.shape[-2] < x.shape[-1]:
        moved = shrink_singular_values(x.mT, threshold)
        return SingularValues(moved.x.mT, moved.values)
    if isinstance(threshold, Tensor):
        threshold = threshold.to(torch.float64).unsqueeze(-1)
    wide = x.double()
    decompose, otherwise = (_svd, _gram) if x.dtype == torch.float64 else (_gram, _svd)
    try:
        basis, values = decompose(wide)
    except RuntimeError:  # torch.linalg.LinAlgError: the iteration failed, and the other one need not
        basis, values = otherwise(wide)
    shrunk = (values - threshold).clamp_min(0.0)
    factors = torch.where(shrunk > 0, shrunk / torch.where(shrunk > 0, values, 1.0), 0.0).to(x.dtype)
    if not torch.compiler.is_compiling():
        # Decompositions have waited for the device already, so that asking for the rank costs nothing more.
        rank = int((shrunk > 0).sum(-1).max()) if shrunk.numel() else 0
        basis, factors = basis[..., :rank], factors[..., :rank]
    basis = basis.to(x.dtype)
    # x V f(S) V' = U S f(S) V', without the left singular vectors.
    point = x @ (basis * factors.unsqueeze(-2)) @ basis.mT
    return SingularValues(point, shrunk.to(x.dtype))


def singular_values(x: Tensor) -> Tensor:
    """Singular values of matrices of shape (..., m, n), largest first."""
    return torch.linalg.svdvals(x)  # pyright: ignore


# torch declares its decompositions without types.


def _svd(x: Tensor) -> tuple[Tensor, Tensor]:
    """Right singular vectors as columns, and singular values."""
    _, values, basis = torch.linalg.svd(x, full_matrices=False)  # pyright: ignore
    return basis.mT, values  # pyright: ignore


def _gram(x: Tensor) -> tuple[Tensor, Tensor]:
    """The same for matrices with at least as many rows as columns, from ``x'x``, to half of the digits."""
    squares, basis = torch.linalg.eigh(x.mT @ x)  # pyright: ignore
    return basis.flip(-1), squares.flip(-1).clamp_min(0.0).sqrt()  # pyright: ignore
