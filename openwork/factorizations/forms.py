"""What takes the place of weights."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from openwork.factorizations.factorization import Factorization
from openwork.wiring import Selected, Side


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Args:
        chosen: Parameters that may be factorized, by their first names.
        names: All names of every parameter of the model.
        depth: Number of factors.
        lam: Strength.
        depths: By name of a parameter, where it differs.
        lams: By name of a parameter, where it differs.
        selected: What to include and to exclude.
        example_inputs: What the model accepts; None if nobody said.
        side: Which slices of a coupling form its groups.
        generator: Of random numbers; None for torch's own.
    """

    chosen: Mapping[str, nn.Parameter]
    names: Mapping[nn.Parameter, Sequence[str]]
    depth: int
    lam: float
    depths: Mapping[str, int]
    lams: Mapping[str, float]
    selected: Selected
    example_inputs: object = None
    side: Side = "producers"
    generator: torch.Generator | None = None

    def depth_of(self, name: str) -> int:
        """Number of factors of a parameter."""
        return self.depths.get(name, self.depth)

    def lam_of(self, name: str) -> float:
        """Strength of a parameter."""
        return self.lams.get(name, self.lam)


@dataclass(frozen=True)
class Planned:
    """Tensors that will be factorized together.

    Args:
        parts: How, by the first name of the parameter.
        starts: Where their factors start, shared ones last and the same tensors in all parts.
        shared: How many of the factors they share.
    """

    parts: Mapping[str, Factorization]
    starts: Mapping[str, Sequence[Tensor]]
    shared: int = field(default=0)


class Form(ABC):
    """What takes the place of weights: configuration."""

    @abstractmethod
    def plan(self, model: nn.Module, request: Request) -> list[Planned]:
        """What to factorize; changes nothing.

        Args:
            model: Not changed.
            request: What is asked for.

        Returns:
            At least one.

        Raises:
            ValueError: If the form does not fit the model.
        """


__all__ = ["Form", "Planned", "Request"]
