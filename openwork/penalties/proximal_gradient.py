"""The reference solver for penalties that only have a Euclidean prox."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Scalar
from openwork.penalties.base import GroupPenalty, Solution, metric_quotient
from openwork.penalties.wrapper import Wrapper


class Descent(NamedTuple):
    """A solution and what it took.

    Args:
        solution: The last iterate.
        iterations: Number of proximal gradient steps.
    """

    solution: Solution
    iterations: int


@dataclass(frozen=True)
class ProximalGradient(Wrapper):
    """Another penalty, solved under a diagonal metric by proximal gradient steps in the Euclidean one.

    From ``z = start``, repeat ``z+ = prox(z - theta (d z - b), theta weight)`` with ``theta = 1 / max d`` (half that if
    the penalty is not convex). Then ``(1 / theta - d) (z - z+)`` is a subgradient of the subproblem at ``z+`` and
    certifies it, and the objective falls at every step. Penalties with an exact ``solve`` do not need this: it is the
    reference solver of the papers, and what makes a penalty of your own usable with RAMDA.

    Args:
        penalty: The penalty, of which only ``prox`` and ``structure`` are used.
        tolerance: Stop when the norm of that subgradient is at most this fraction of the norm of the penalty's own
            subgradient, > 0: an error that a relative change of the strength by as much would also make.
        max_iterations: Steps at most, >= 1.
        step: One ``theta`` for the whole weight, as in the paper, or one per group, which is faster; the latter is for
            penalties that drop groups.

    Raises:
        ValueError: If a number is out of range.
        TypeError: If ``step`` is ``"group"`` and the penalty does not drop groups.

    References:
        Huang & Lee (NeurIPS 2024), arXiv:2403.14398, algorithm 2 and conditions (7), (8).
    """

    tolerance: float = 1e-6
    max_iterations: int = 100
    step: Literal["weight", "group"] = "weight"

    def __post_init__(self) -> None:
        if not self.tolerance > 0:
            raise ValueError(f"ProximalGradient: tolerance must be > 0, got {self.tolerance}")
        if self.max_iterations < 1:
            raise ValueError(f"ProximalGradient: max_iterations must be >= 1, got {self.max_iterations}")
        if self.step == "group" and not isinstance(self.penalty, GroupPenalty):
            raise TypeError(f"ProximalGradient: step='group' needs a penalty that drops groups, got {self.penalty!r}")

    @override
    def _prox_solution(self, x: Tensor, step: Scalar) -> Solution:
        return self.penalty._prox_solution(x, step)

    @override
    def solve(self, b: Tensor, d: Tensor, weight: Scalar, start: Tensor | None = None) -> Solution:
        return self.descend(b, d, weight, start).solution

    def descend(self, b: Tensor, d: Tensor, weight: Scalar, start: Tensor | None = None) -> Descent:
        """Solve the subproblem of one weight, and count.

        Args:
            b: Any shape that the penalty fits.
            d: Diagonal of the metric, as in ``solve``.
            weight: Factor of the penalty, >= 0.
            start: First iterate; by default the minimizer without a penalty.

        Returns:
            The solution, whose objective is at most that of ``start``, and the number of steps.
        """
        z = metric_quotient(b, d) if start is None else start
        if b.numel() == 0:
            return Descent(Solution(z, self.penalty.structure(z).kept, z.new_zeros(())), 0)
        largest, spread = self._largest(d)
        theta = (1.0 if self.penalty.convex else 0.5) / largest.clamp_min(torch.finfo(d.dtype).tiny)
        rate = spread(theta)
        floor = 4 * torch.finfo(b.dtype).eps * _norm(b)
        iterations, residual = 0, floor
        for iterations in range(1, self.max_iterations + 1):  # noqa: B007
            forward = z - rate * (d * z - b)
            following = self.penalty.prox(forward, theta * weight)
            residual = _norm((1 / rate - d) * (z - following))
            pull = _norm((forward - following) / rate)
            z = following
            if residual <= torch.maximum(self.tolerance * pull, floor):
                break
        return Descent(Solution(z, self.penalty.structure(z).kept, residual), iterations)

    def _largest(self, d: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Largest entry of the metric, and how a number in its place multiplies a weight."""
        if self.step == "group" and isinstance(self.penalty, GroupPenalty):
            groups = self.penalty.groups
            return groups.max(d), lambda theta: groups.spread(theta, like=d)
        return d.max(), lambda theta: theta


def _norm(x: Tensor) -> Tensor:
    return x.square().sum().sqrt()
