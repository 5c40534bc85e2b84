"""What the blocks W and b of a linear layer need of the samples: sums, counted in chunk by chunk."""

from typing import Self

import torch
from torch import Tensor


class Sums:
    """Sums over samples of ``a a'``, ``r a'``, ``a`` and ``r``, with the residuals ``r = W a + b - z``.

    A chunk's products are formed in the precision of the samples and added up in double precision, so that sums of many
    chunks are as good as those of one. Residuals take the place of ``z``: the gradient is their sum, and not the small
    difference of two large ones.

    Args:
        weight: Of the layer.
        inputs: Sums over the same inputs, where they are known already; None to form them.
    """

    def __init__(self, weight: Tensor, inputs: Self | None = None) -> None:
        outputs, width = weight.shape
        self._inputs = inputs
        self.aa = weight.new_zeros((width, width), dtype=torch.float64) if inputs is None else inputs.aa
        self.a = weight.new_zeros(width, dtype=torch.float64) if inputs is None else inputs.a
        self.ra = weight.new_zeros((outputs, width), dtype=torch.float64)
        self.r = weight.new_zeros(outputs, dtype=torch.float64)
        self.count = 0

    def add(self, a: Tensor, r: Tensor) -> None:
        """Count a chunk in.

        Args:
            a: Inputs as the layer reads them, one row per sample.
            r: Residuals.
        """
        if self._inputs is None:
            self.aa += torch.mm(a.T, a)
            self.a += a.sum(0)
        self.ra += torch.mm(r.T, a)
        self.r += r.sum(0)
        self.count += len(a)

    def gradient(self, change: Tensor | None) -> Tensor:
        """The gradient of ``||R||^2 / 2`` in the weight, after it changed; a new tensor in double precision.

        Args:
            change: Of the weight since the residuals were formed; None for none.
        """
        return self.ra.clone() if change is None else torch.addmm(self.ra, change.to(torch.float64), self.aa)

    def length(self, change: Tensor) -> Tensor:
        """The norm of ``change a`` over all samples, 0-dim."""
        wide = change.to(torch.float64)
        return (torch.mm(wide, self.aa) * wide).sum().clamp(min=0).sqrt().to(change.dtype)

    def mean_residual(self, change: Tensor) -> Tensor:
        """The mean residual, after the weight changed; in the precision of ``change``."""
        moved = torch.mv(change.to(torch.float64), self.a)
        return (self.r + moved).div_(self.count).to(change.dtype)
