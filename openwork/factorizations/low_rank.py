"""Weights of low rank: a product of two matrices."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from openwork.factorizations.factorization import Factorization
from openwork.factorizations.forms import Form, Planned, Request
from openwork.factorizations.two_layers import svd
from openwork.wiring import role_of


class Ranks(Factorization):
    """``W = B diag(gamma_1 * ... * gamma_{D-2}) A``, where W is ``(outputs, inputs * kernel)``; no gates for ``D = 2``.

    The least ``lam / D`` times L2 on the factors of a matrix is ``lam`` times the sum of its singular values to the
    power ``2 / D``: the nuclear norm for ``D = 2``. A group is one singular value, largest first, and not one column of
    B with its row of A: for ``D = 2`` the factors ``B Q`` and ``Q' A`` are as good for any rotation Q, so that at a low
    rank columns need not be zero.

    The factors are B of shape ``(outputs, rank)``, A of shape ``(rank, inputs * kernel)`` and the gates.

    Args:
        depth: Number D of factors, >= 2.
        lam: Strength.
        dtype: Of the tensor.
        shape: Of the tensor.
        rank: Largest rank.
        transposed: Whether the tensor is ``(inputs, outputs, *kernel)``, not ``(outputs, inputs, *kernel)``.

    References:
        Srebro, Rennie & Jaakkola, Maximum-Margin Matrix Factorization (NeurIPS 2004), lemma 1: the nuclear norm.
        Shang et al., Unified Scalable Equivalent Formulations for Schatten Quasi-Norms (2020), arXiv:1606.00668.
    """

    def __init__(
        self, depth: int, lam: float, dtype: torch.dtype, shape: Sequence[int], rank: int, *, transposed: bool
    ) -> None:
        super().__init__(depth, lam, dtype)
        self.shape = tuple(shape)
        self.rank = rank
        self.transposed = transposed

    @override
    def forward(self, *factors: Tensor) -> Tensor:
        b, a, *gates = factors
        for gate in gates:
            b = b * gate
        # The product is in the precision of the factors, under autocast too.
        with torch.autocast(a.device.type, enabled=False):
            matrix = b @ a
        if not self.transposed:
            return matrix.view(self.shape).to(self.dtype)
        first, second, *kernel = self.shape
        return matrix.view(second, first, *kernel).transpose(0, 1).contiguous().to(self.dtype)

    @override
    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The best approximation at the rank, with factors of least L2.

        Args:
            weight: Like the tensor.
        """
        exact = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
        matrix = (exact.transpose(0, 1) if self.transposed else exact).flatten(1)
        u, s, vh = svd(matrix)
        found = self._balanced(u[:, : self.rank], s[: self.rank], vh[: self.rank])
        return tuple(factor.to(exact.dtype).contiguous() for factor in found)

    def _balanced(self, u: Tensor, s: Tensor, vh: Tensor) -> tuple[Tensor, ...]:
        """The factors of least L2 of ``U S V'``."""
        root = s ** (1 / self.depth)
        return u * root, root[:, None] * vh, *(root.clone() for _ in range(self.depth - 2))

    @override
    def squares(self, factors: Sequence[Tensor]) -> list[Tensor]:
        b, a, *gates = factors
        return [b.square().sum(dim=0), a.square().sum(dim=1), *(gate.square() for gate in gates)]

    @override
    def shared(self, factors: Sequence[Tensor]) -> list[Tensor]:
        return []

    @override
    def mass(self, factors: Sequence[Tensor]) -> Tensor:
        _, values, _ = _svd(factors)
        return values.to(factors[0].dtype)

    @override
    def counts(self, factors: Sequence[Tensor]) -> Tensor:
        """An equal share of all entries for each rank.

        Args:
            factors: As ``right_inverse`` gives them.
        """
        b, a, *_ = factors
        return b.new_full((self.rank,), b.shape[0] * a.shape[1] / self.rank)

    @override
    def low_rank(self, factors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        b, a, *gates = factors
        for gate in gates:
            b = b * gate
        alive = b.any(dim=0) & a.any(dim=1)
        return b[:, alive].to(self.dtype), a[alive].to(self.dtype)

    @override
    def zero_(self, factors: Sequence[Tensor], small: Tensor) -> None:
        """Drop singular values; what stays gets the factors of least L2.

        Args:
            factors: Written, if any singular value is to go.
            small: Which ones.
        """
        if bool(small.any()):
            u, s, vh = _svd(factors)
            new = self._balanced(u, torch.where(small, 0.0, s), vh)
            for factor, value in zip(factors, new, strict=True):
                factor.copy_(value)


def _svd(factors: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The singular value decomposition of the product, in float64, without the product itself."""
    b, a, *gates = (factor.detach().double() for factor in factors)
    for gate in gates:
        b = b * gate
    (q, r), (p, s) = _qr(b), _qr(a.t())
    u, values, vh = svd(r @ s.t())
    return q @ u, values, vh @ p.t()


def _qr(matrix: Tensor) -> tuple[Tensor, Tensor]:
    return cast("tuple[Tensor, Tensor]", torch.linalg.qr(matrix))  # pyright: ignore


@dataclass(frozen=True)
class LowRank(Form):
    """Weights are products ``W = B A`` of two matrices, whose L2 is the nuclear norm of W (``depth=2``).

    With a larger depth D every rank has ``D - 2`` gates, and the penalty is ``lam`` times the sum of singular values to
    the power ``2 / D``. Training starts at the best approximation of the present weight, which is the weight if the
    rank is not less than its own; a singular value of zero stays zero for good. ``collapse`` puts two layers in the
    place of one where that saves parameters and multiplications, and else a plain weight of that rank.

    Convolutions are matrices ``(outputs, inputs * kernel)``; those in groups stay as they are, and so does what has
    fewer than two dimensions.

    Args:
        rank: Largest rank: a number, >= 1, of which smaller matrices take as much as they can have; or a fraction of
            the full rank, in (0, 1]; None for the full rank.

    Raises:
        TypeError: If ``rank`` is neither.
        ValueError: If ``rank`` is out of range.

    References:
        Khodak et al., Initialization and Regularization of Factorized Neural Layers (ICLR 2021), arXiv:2105.01029.
    """

    rank: int | float | None = None

    def __post_init__(self) -> None:
        rank = self.rank
        if isinstance(rank, bool) or not isinstance(rank, int | float | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"LowRank: rank must be a whole number, a fraction or None, got {rank!r}")
        if (isinstance(rank, int) and rank < 1) or (isinstance(rank, float) and not 0 < rank <= 1):
            raise ValueError(
                f"LowRank: rank must be a whole number of at least 1 or a fraction above 0 and at most 1, got {rank}; "
                "None is the full rank"
            )

    @override
    def plan(self, model: nn.Module, request: Request) -> list[Planned]:
        found: list[Planned] = []
        reasons: list[str] = []
        for name, parameter in request.chosen.items():
            transposed, why = _orientation(model, name, parameter)
            if why:
                if request.selected.insists(request.names[parameter]):
                    raise ValueError(f"LowRank: include names {name!r}, which is no matrix: {why}; take it out")
                reasons.append(f"{name} ({why})")
                continue
            rows = parameter.shape[1 if transposed else 0]
            full = min(rows, parameter.numel() // rows)
            rank = full if self.rank is None else self.rank
            rank = max(1, ceil(rank * full)) if isinstance(rank, float) else min(rank, full)
            made = Ranks(
                request.depth_of(name),
                request.lam_of(name),
                parameter.dtype,
                parameter.shape,
                rank,
                transposed=transposed,
            )
            found.append(Planned(parts={name: made}, starts={name: made.right_inverse(parameter)}))
        if not found:
            raise ValueError(
                f"LowRank: {type(model).__name__} has no matrix left to factorize: {', '.join(reasons[:4])}"
                f"{', ...' if len(reasons) > 4 else ''}; include a linear layer or a convolution without groups"
            )
        return found


def _orientation(model: nn.Module, name: str, parameter: nn.Parameter) -> tuple[bool, str]:
    """Whether inputs come first, and why a parameter is no matrix, if so."""
    path, _, local = name.rpartition(".")
    role = role_of(model.get_submodule(path), local)
    if parameter.ndim < 2:
        return False, "it has one dimension"
    if role is not None and role.conv_groups > 1:
        return False, f"{role.conv_groups} convolutions side by side, each with a rank of its own"
    # Of a table each row is an output of nothing: it is a matrix as it is.
    return role is not None and role.kind == "weight" and role.output == 1, ""


__all__ = ["LowRank", "Ranks"]
