"""A prescribed share of zero groups."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Scalar
from openwork.penalties.base import DropsGroups, Solution
from openwork.penalties.wrapper import Together


@dataclass(frozen=True)
class Target(Together):
    """Another penalty, as strong as it takes to make a prescribed fraction of its groups zero at every step.

    All weights that share this penalty are ranked together, each group by the strength at which it would vanish. The
    strength of the inner penalty only has to be positive. A weight or step of zero still switches the penalty off.

    Args:
        penalty: One that drops groups, with a positive strength.
        zero_fraction: Fraction of the groups that shall be zero, in [0, 1]; ties may add some.

    Raises:
        TypeError: If ``penalty`` does not drop groups.
        ValueError: If ``zero_fraction`` is outside [0, 1].
    """

    penalty: DropsGroups  # pyright: ignore[reportIncompatibleVariableOverride]
    zero_fraction: float

    def __post_init__(self) -> None:
        if not isinstance(self.penalty, DropsGroups):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"Target: penalty must drop groups, as GroupLasso does, got {self.penalty!r}")
        if not 0 <= self.zero_fraction <= 1:
            raise ValueError(f"Target: zero_fraction must lie in [0, 1], got {self.zero_fraction}")

    @override
    def prox_list(self, xs: Sequence[Tensor], step: Scalar) -> list[Solution]:
        return self.penalty.prox_list(xs, self._weight(list(xs), [torch.ones_like(x) for x in xs], step))

    @override
    def solve_(
        self, b: list[Tensor], d: list[Tensor], weight: Scalar, start: list[Tensor] | None = None
    ) -> list[Solution]:
        return self.penalty.solve_(b, d, self._weight(b, d, weight))

    def _weight(self, b: list[Tensor], d: list[Tensor], weight: Scalar) -> Scalar:
        """The weight at which the prescribed number of groups vanishes; 0 if ``weight`` is."""
        criticals = [critical.flatten() for critical in self.penalty.criticals(b, d)]
        ranking = torch.cat(criticals) if criticals else torch.empty(0)
        zeros = round(self.zero_fraction * ranking.numel())
        if zeros == 0:
            return 0.0
        # A little more, so that rounding does not spare the group that is exactly at the threshold.
        threshold = ranking.kthvalue(zeros).values * (1 + 8 * torch.finfo(ranking.dtype).eps)
        return torch.where(torch.as_tensor(weight, device=ranking.device) > 0, threshold, 0.0)
