"""Nuclear norm."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Scalar, shrink_singular_values, singular_values
from openwork.penalties.base import DiagonalProx, Solution, check_strength, metric_quotient
from openwork.structure import Rank, Structure

MATRIX = (-2, -1)


@dataclass(frozen=True)
class NuclearNorm(DiagonalProx):
    """Sum of singular values, ``f(x) = lam * sum_i sigma_i(x)``, which lowers the rank.

    A weight with more than two axes, such as that of a convolution, is taken as the matrix (first axis, all others).

    There is no closed form under a diagonal metric. With ``metric="scalar"`` the optimizer is asked (by ``metrics``) to
    replace the diagonal of each matrix by its largest entry, which makes the solution exact, by one decomposition. Then
    no entry takes a longer step than under the diagonal; with the mean, those with large gradients do, and RAMDA
    diverged at the papers' settings. With ``metric="full"`` the diagonal stays, and accelerated proximal gradient
    steps, a decomposition each, solve the subproblem to a tolerance.

    Args:
        lam: Strength, >= 0, against a loss averaged over samples.
        metric: The largest entry of the metric in each matrix, or all of it.
        tolerance: Full metric: norm of the subproblem's subgradient at which to stop, as a fraction of the penalty's
            weight, > 0.
        max_iterations: Full metric: decompositions at most, >= 1.
        batch_axes: Number of leading axes that count separate matrices, such as experts.

    Raises:
        ValueError: If a number is out of range.

    References:
        Prox: Cai, Candès & Shen (2010), theorem 2.1. Acceleration: Beck & Teboulle, FISTA (2009), with the gradient
        restart of O'Donoghue & Candès (2015), section 3.2.
    """

    lam: float
    metric: Literal["scalar", "full"] = "scalar"
    tolerance: float = 1e-6
    max_iterations: int = 500
    batch_axes: int = 0

    def __post_init__(self) -> None:
        check_strength(self, lam=self.lam)
        if self.metric not in ("scalar", "full"):
            raise ValueError(f"NuclearNorm: metric must be 'scalar' or 'full', got {self.metric!r}")
        if not self.tolerance > 0:
            raise ValueError(f"NuclearNorm: tolerance must be > 0, got {self.tolerance}")
        if self.max_iterations < 1:
            raise ValueError(f"NuclearNorm: max_iterations must be >= 1, got {self.max_iterations}")
        if self.batch_axes < 0:
            raise ValueError(f"NuclearNorm: batch_axes must be >= 0, got {self.batch_axes}")

    @override
    def check(self, x: Tensor) -> None:
        if x.ndim < self.batch_axes + 2:
            raise ValueError(
                f"{self!r} needs a weight with at least {self.batch_axes + 2} axes, got shape {tuple(x.shape)}; "
                "leave this weight out"
            )

    def _matrices(self, x: Tensor) -> Tensor:
        return x.flatten(self.batch_axes + 1)

    @override
    def value(self, x: Tensor) -> Tensor:
        return self.lam * singular_values(self._matrices(x)).sum()

    @override
    def structure(self, x: Tensor) -> Structure:
        """The numerical rank of a bare weight: a solution knows its own exactly, a weight has been rounded.

        Args:
            x: A weight.

        Returns:
            Which singular values exceed ``max(m, n) * eps * sigma_1``, as ``torch.linalg.matrix_rank`` counts.
        """
        matrices = self._matrices(x.detach())
        values = singular_values(matrices.double())
        relative = max(matrices.shape[-2:]) * torch.finfo(x.dtype).eps
        return Rank(values > relative * values[..., :1])

    @override
    def _prox_solution(self, x: Tensor, step: Scalar) -> Solution:
        return self._solution(*shrink_singular_values(self._matrices(x), self.lam * step), like=x)

    def _solution(self, x: Tensor, values: Tensor, residual: Tensor | None = None, *, like: Tensor) -> Solution:
        residual = like.new_zeros(()) if residual is None else residual
        return Solution(x.reshape(like.shape), values > 0, residual)

    @override
    def metrics(self, d: list[Tensor]) -> list[Tensor]:
        return d if self.metric == "full" else [self._largest(x).view_as(x) for x in d]

    def _largest(self, d: Tensor) -> Tensor:
        """The largest entry of each matrix, at each of its entries."""
        matrices = self._matrices(d)
        return matrices.amax(MATRIX, keepdim=True).expand_as(matrices).reshape(d.shape)

    @override
    def solve(self, b: Tensor, d: Tensor, weight: Scalar, start: Tensor | None = None) -> Solution:
        """Solve the subproblem of one weight.

        Args:
            b: Any shape that the penalty fits.
            d: Diagonal of the metric, >= 0. With ``metric="scalar"`` its largest entry takes its place.
            weight: Factor of the penalty, >= 0.
            start: A point whose objective the solution does not exceed.

        Returns:
            The solution; its residual is 0 for the scalar metric, and that of the last step for the full one.
        """
        if b.numel() == 0:
            return Solution(b, singular_values(self._matrices(b)) > 0, b.new_zeros(()))
        if self.metric == "full":
            return self._accelerate(b, d, weight, start)
        largest = self._matrices(d).amax(MATRIX)
        strength = metric_quotient(torch.as_tensor(weight * self.lam, dtype=d.dtype, device=d.device), largest)
        quotient = metric_quotient(self._matrices(b), largest[..., None, None])
        return self._solution(*shrink_singular_values(quotient, strength), like=b)

    def _accelerate(self, b: Tensor, d: Tensor, weight: Scalar, start: Tensor | None) -> Solution:
        like, kappa = b, weight * self.lam
        if start is None:
            start = replace(self, metric="scalar").solve(b, d, weight).x
        b, d, start = (self._matrices(x) for x in (b, d, start))
        theta = 1 / d.amax(MATRIX, keepdim=True).clamp_min(torch.finfo(d.dtype).tiny)

        def forward_backward(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """A proximal gradient step from y, its singular values, and the norm of a subgradient there."""
            x, values = shrink_singular_values(y - theta * (d * y - b), kappa * theta[..., 0, 0])
            return x, values, _norm((1 / theta - d) * (y - x))

        def objective(x: Tensor, values: Tensor) -> Tensor:
            return ((0.5 * d * x - b) * x).sum(MATRIX) + kappa * values.sum(-1)

        enough = self.tolerance * kappa + 4 * torch.finfo(b.dtype).eps * _norm(b)
        before, y, momentum = start, start, torch.ones_like(theta)
        x, values, residual = forward_backward(y)
        for _ in range(self.max_iterations - 1):
            if bool((residual <= enough).all()):
                break
            uphill = ((y - x) * (x - before)).sum(MATRIX, keepdim=True) > 0
            following = torch.where(uphill, 1.0, (1 + (1 + 4 * momentum.square()).sqrt()) / 2)
            y = x + torch.where(uphill, 0.0, (momentum - 1) / following) * (x - before)
            before, momentum = x, following
            x, values, residual = forward_backward(y)
        # Acceleration may rise; a plain step from the start does not.
        worse = objective(x, values) > objective(start, singular_values(start))
        if worse.any():
            plain = forward_backward(start)
            x = torch.where(worse[..., None, None], plain[0], x)
            values = torch.where(worse[..., None], plain[1], values)
            residual = torch.where(worse, plain[2], residual)
        return self._solution(x, values, residual, like=like)

    @override
    def stacked(self) -> DiagonalProx | None:
        return replace(self, batch_axes=self.batch_axes + 1)


def _norm(x: Tensor) -> Tensor:
    return x.square().sum(MATRIX).sqrt()
