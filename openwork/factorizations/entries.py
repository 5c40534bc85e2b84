"""Entry by entry: every weight is a product of D numbers of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from typing_extensions import override

from openwork.factorizations.factorization import Factorization
from openwork.factorizations.forms import Form, Planned, Request
from openwork.factorizations.initializations import Initialization, Sampled, Split
from openwork.factorizations.products import product


class Hadamard(Factorization):
    """``w = w_1 * ... * w_D``, entry by entry; L2 on the factors is ``lam * sum |w|^(2/D)`` on the product.

    References:
        Kolb, Weber, Bischl & Rügamer, Deep Weight Factorization (ICLR 2025), arXiv:2502.02496, theorem 1.
    """

    @override
    def forward(self, *factors: Tensor) -> Tensor:
        # Under autocast too, the product is in the precision of the factors, and only the result in that of the layer.
        return product(*factors).to(self.dtype)

    @override
    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        return tuple(Split().factors(weight, self.depth))

    @override
    def squares(self, factors: Sequence[Tensor]) -> list[Tensor]:
        return [factor.square() for factor in factors]

    @override
    def shared(self, factors: Sequence[Tensor]) -> list[Tensor]:
        return []

    @override
    def mass(self, factors: Sequence[Tensor]) -> Tensor:
        return product(*factors).abs()

    @override
    def counts(self, factors: Sequence[Tensor]) -> Tensor:
        return torch.ones_like(factors[0])

    @override
    def zero_(self, factors: Sequence[Tensor], small: Tensor) -> None:
        for factor in factors:
            factor.masked_fill_(small, 0.0)


@dataclass(frozen=True)
class Entries(Form):
    """Every weight on its own: deep weight factorization.

    Args:
        init: Where the factors start.
    """

    init: Initialization = field(default_factory=Sampled)

    @override
    def plan(self, model: nn.Module, request: Request) -> list[Planned]:
        return [
            Planned(
                parts={name: Hadamard(request.depth_of(name), request.lam_of(name), parameter.dtype)},
                starts={name: self.init.factors(parameter, request.depth_of(name), request.generator)},
            )
            for name, parameter in request.chosen.items()
        ]


__all__ = ["Entries", "Hadamard"]
