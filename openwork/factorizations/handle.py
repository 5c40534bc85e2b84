"""What one holds on to of a factorized model."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from openwork.factorizations.budget import THRESHOLD
from openwork.factorizations.collapsing import CollapseReport, collapse
from openwork.factorizations.diagnostics import Diagnostics, Factors, diagnose
from openwork.factorizations.entries import Hadamard
from openwork.factorizations.factorization import Block, blocks_of, parts_of
from openwork.factorizations.watching import DECOUPLED


class Handle:
    """The factors of a model.

    Args:
        model: Factorized.

    Raises:
        ValueError: If nothing in it is.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.blocks: tuple[Block, ...] = tuple(blocks_of(model))
        if not self.blocks:
            raise ValueError(f"Handle: nothing in this {type(model).__name__} is factorized; call factorize first")

    def param_groups(self, *, decoupled: bool = False) -> list[dict[str, Any]]:
        """Param groups for an optimizer: factors with the weight decay that is their L2, and the rest without.

        Args:
            decoupled: Let optimizers use them whose weight decay is not in the gradient (AdamW). This is another
                penalty: the strength of a weight follows the size of its gradients.

        Returns:
            One group for each weight decay ``2 lam / depth``, and one of what is not factorized; each with
            ``"params"``, ``"names"`` and ``"weight_decay"``.
        """
        decays: dict[int, float] = {}
        for part in parts_of(self.model):
            decays |= {id(factor): part.factorization.decay for factor in part.penalized}
        members: dict[float | None, dict[str, Any]] = {}
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad:
                continue
            decay = decays.get(id(parameter))
            group = members.setdefault(decay, {"params": [], "names": [], "weight_decay": decay or 0.0})
            group["params"].append(parameter)
            group["names"].append(name)
            if decoupled and decay is not None:
                group[DECOUPLED] = True
        return [members[key] for key in sorted(members, key=lambda key: key is None)]

    @torch.no_grad()
    def measured(self) -> Iterator[Factors]:
        """The factors of everything that is factorized as diagnostics see them.

        Yields:
            One for each block.
        """
        for block in self.blocks:
            first = block.parts[0]
            signed = first.value.detach() if isinstance(first.factorization, Hadamard) else None
            squares = [square.detach() for square in block.squares()]
            yield Factors(block.name, squares, block.magnitudes().detach(), block.lam, block.depth, signed)

    def diagnostics(self) -> Diagnostics:
        """How far the training has come: balance of the factors, groups near zero; a few passes over the weights."""
        return Diagnostics({factors.name: diagnose(factors) for factors in self.measured()})

    def collapse(self, threshold: float = THRESHOLD, example_inputs: object = None) -> CollapseReport:
        """Make the model plain again; see ``openwork.factorizations.collapse``."""
        return collapse(self.model, threshold, example_inputs)


def factorization_of(model: nn.Module) -> Handle | None:
    """A handle on the factors of a model; None if nothing in it is factorized.

    Args:
        model: Any module.
    """
    return Handle(model) if parts_of(model) else None


__all__ = ["Handle", "factorization_of"]
