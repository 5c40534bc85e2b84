"""What RMDA and RAMDA share: the anchor, the sums since the last restart, and the averaging of prox points."""

from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Descent, Found, Scalar
from openwork.optim.fused import FusedStep
from openwork.optim.groups import Group, check_range, count_, rate
from openwork.optim.proximal import ProximalOptimizer


class DualAveraging(ProximalOptimizer):
    """Base of regularized dual averaging: step k since the last restart has weight ``lr * sqrt(k)``.

    The counters k and the sum of weights belong to the group, so that a parameter that misses a gradient keeps in step.
    """

    anchors = ("anchor",)
    counters = (*ProximalOptimizer.counters, "weight_sum")

    @override
    def _check(self, group: Group) -> None:
        super()._check(group)
        check_range(type(self).__name__, group, "averaging", high=1.0, above=True)

    @override
    def _advance(self, group: Group, gate: Scalar) -> None:
        super()._advance(group, gate)
        count_(group, "weight_sum", group["weight_sum"] + gate * self._weight(group))

    def _root(self, group: Group) -> Scalar:
        """``sqrt(k)``; 1 before a first step that was skipped on a device."""
        step = group["step"]
        return (step.clamp_min(1.0) if isinstance(step, Tensor) else step) ** 0.5

    def _weight(self, group: Group) -> Scalar:
        return rate(group) * self._root(group)

    # -- what an algorithm adds -------------------------------------------------------------------------------------

    def _metric(self, group: Group) -> dict[str, Scalar]:
        """Numbers of the subproblem, beside the weight of the gradient."""
        raise NotImplementedError

    def _take(
        self,
        step: FusedStep,
        params: list[Tensor],
        grads: list[Tensor],
        found: Found,
        descent: Descent,
        numbers: dict[str, Scalar],
    ) -> Scalar:
        """Have the kernel take a step of these parameters along these gradients."""
        raise NotImplementedError

    # -- one step ---------------------------------------------------------------------------------------------------

    def _numbers(self, group: Group, gate: Scalar) -> dict[str, Scalar]:
        weight, averaging = gate * self._weight(group), gate * self.averaging_now(group)
        return {"weight": weight, "averaging": averaging, **self._metric(group)}

    @override
    def _fused(self, group: Group, step: FusedStep, found: Found, gate: Scalar) -> Scalar:
        descent = self._descent(group, gate)
        return self._take(step, step["weight"], step["grad"], found, descent, self._numbers(group, gate))

    @override
    def _fused_points(self, group: Group, step: FusedStep, found: Found) -> list[Tensor]:
        # A step with a gradient that weighs nothing.
        points = [torch.zeros_like(weight) for weight in step["weight"]]
        numbers = {"weight": 0.0, "averaging": 1.0, **self._metric(group)}
        self._take(step, points, step["anchor"], found, Descent(1.0, 0.0, 1.0), numbers)
        return points

    @override
    def _penalty_weight(self, group: Group) -> Scalar:
        return group["weight_sum"] * group["penalty_scale"]

    @override
    def averaging_now(self, group: Group) -> Scalar:
        if not group["averaging_grows"]:
            return group["averaging"]
        grown = group["averaging"] * self._root(group)
        return grown.clamp_max(1.0) if isinstance(grown, Tensor) else min(grown, 1.0)

    @override
    @torch.no_grad()
    def restart(self) -> None:
        """Begin a new stage: anchor at the present weights (not the prox points), all sums and counters at zero.

        References:
            Huang & Lee (NeurIPS 2024), arXiv:2403.14398, appendix A.1.
        """
        for group in self.param_groups:
            for key in ("step", "weight_sum"):
                count_(group, key, 0.0)
            for param in group["params"]:
                if param not in self.state:
                    continue
                state: dict[str, Any] = self.state[param]
                state["anchor"].copy_(state.get("master", param))
                for name in self._sums(group):
                    state[name].zero_()
