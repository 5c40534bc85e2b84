"""Regularized adaptive momentum dual averaging."""

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Descent, Found, Method, Scalar
from openwork.optim.arithmetic import add_scaled_, average_, shift_
from openwork.optim.batches import Batch
from openwork.optim.dual_averaging import DualAveraging
from openwork.optim.fused import FusedStep
from openwork.optim.groups import Group, Params, algorithm, check_range
from openwork.penalties import DiagonalProx, Solution


def cube_roots(xs: list[Tensor]) -> list[Tensor]:
    """``x^(1/3)`` for ``x >= 0``, to about 1e-6 relative in float32; several times faster than a general power."""
    logs = [x.log2() for x in xs]
    torch._foreach_div_(logs, 3.0)
    return [log.exp2_() for log in logs]


def ramda_points(
    anchors: list[Tensor],
    grad_sums: list[Tensor],
    square_sums: list[Tensor],
    *,
    penalty: DiagonalProx,
    penalty_weight: Scalar,
    eps: Scalar,
    start: list[Tensor] | None = None,
) -> list[Solution]:
    """Solve ``argmin_x weight f(x) + <grad_sum, x> + 0.5 ||x - anchor||_D^2``, ``D = cbrt(square_sum) + eps``.

    Args:
        anchors: Weights at the last restart.
        grad_sums: Weighted sums of gradients since then.
        square_sums: Weighted sums of squared gradients since then.
        penalty: Applied to each weight on its own.
        penalty_weight: Sum of all weights so far, times ``penalty_scale``.
        eps: Floor of the metric, added after the root, >= 0.
        start: Points for solvers that need one.

    Returns:
        One solution per weight.

    References:
        Huang & Lee (NeurIPS 2024), arXiv:2403.14398, eq. (6).
    """
    metrics = cube_roots(square_sums)
    shift_(metrics, eps)
    metrics = penalty.metrics(list(metrics))
    duals = torch._foreach_mul(anchors, metrics)
    torch._foreach_sub_(duals, grad_sums)
    return penalty.solve_(list(duals), metrics, penalty_weight, start)


def ramda(
    params: list[Tensor],
    grads: list[Tensor],
    anchors: list[Tensor],
    grad_sums: list[Tensor],
    square_sums: list[Tensor],
    *,
    penalty: DiagonalProx,
    weight: Scalar,
    penalty_weight: Scalar,
    eps: Scalar,
    averaging: Scalar,
) -> list[Solution]:
    """One step of regularized adaptive dual averaging; writes ``params``, ``grad_sums`` and ``square_sums``.

    Args:
        params: Weights; the other lists match them in length and shapes.
        grads: Gradients at ``params``.
        anchors: Weights at the last restart.
        grad_sums: Weighted sums of gradients since then.
        square_sums: Weighted sums of squared gradients since then.
        penalty: Applied to each weight on its own.
        weight: Weight of this gradient, ``lr * sqrt(k)`` at step k = 1, 2, ...
        penalty_weight: Sum of all ``weight`` values so far, times ``penalty_scale``.
        eps: Floor of the metric, added after the root, >= 0.
        averaging: Fraction c in (0, 1] moved towards the prox point (MADGRAD's momentum is 1 - c).

    Returns:
        The prox points and their structure.

    References:
        Huang & Lee (NeurIPS 2024), arXiv:2403.14398, algorithm 1. Without a penalty: MADGRAD, arXiv:2101.11075.
    """
    add_scaled_(grad_sums, grads, weight)
    add_scaled_(square_sums, list(torch._foreach_mul(grads, grads)), weight)
    solutions = ramda_points(
        anchors, grad_sums, square_sums, penalty=penalty, penalty_weight=penalty_weight, eps=eps, start=params
    )
    average_(params, [solution.x for solution in solutions], averaging)
    return solutions


class RAMDA(DualAveraging):
    """Regularized adaptive momentum dual averaging: MADGRAD for ``loss + penalty``, solved exactly.

    The zeros live in the prox points and reach the weights once ``averaging`` is 1: let ``Stages`` grow it, or read
    them with ``structured()``. State: three float32 tensors per parameter (anchor, gradient sum, squared-gradient
    sum), a float32 master where the weights are in half precision, and one boolean per group; where steps are fused,
    also one number per group, with which the next solve starts.

    Args:
        params: Parameters or groups, such as those ``regularize`` returns.
        lr: Learning rate, > 0; ten times Adam's is a good start.
        averaging: Fraction c in (0, 1] moved towards the prox point at each step; 0.1 is momentum 0.9.
        eps: Floor of the metric, >= 0. A group that never received a gradient goes to zero once the penalty's weight
            passes ``eps`` times its norm.
        penalty: For groups that name none; default none. It must solve under a diagonal metric.
        weight_decay: Added to the gradient, times the weight; for groups without a penalty.
        maximize: Ascend instead.
        foreach: False updates one parameter at a time; otherwise many at once.
        capturable: Never wait for a device, so that the step can be captured; default on devices only.
        compile: Compile the step with ``torch.compile``.
        fused: Take the step by kernels, to rounding the same: on the CPU, which needs ``openwork[fused]``, or by Triton
            on CUDA. The first optimizer of a machine compiles them. What has no kernel is said once, and steps are
            taken in plain torch.

    Raises:
        ValueError: If an option is out of range, or a penalty does not fit a parameter.
        TypeError: If ``penalty`` is not one, or has only a Euclidean prox.

    References:
        Huang & Lee, Regularized Adaptive Momentum Dual Averaging with an Efficient Inexact Subproblem Solver for
        Training Structured Neural Network (NeurIPS 2024), arXiv:2403.14398.
    """

    sums = ("grad_sum", "square_sum")
    needs = DiagonalProx

    def __init__(
        self,
        params: Params,
        lr: Scalar = 0.01,
        averaging: float = 0.1,
        eps: float = 1e-6,
        *,
        penalty: DiagonalProx | None = None,
        weight_decay: float = 0.0,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool | None = None,
        compile: bool = False,
        fused: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            averaging=averaging,
            averaging_grows=False,
            eps=eps,
            penalty=penalty,
            weight_decay=weight_decay,
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            compile=compile,
            fused=fused,
        )

    @override
    def _check(self, group: Group) -> None:
        super()._check(group)
        check_range(type(self).__name__, group, "eps")

    @override
    def _metric(self, group: Group) -> dict[str, Scalar]:
        return {"penalty_weight": self._penalty_weight(group), "eps": group["eps"]}

    @override
    def _update(self, group: Group, batch: Batch, gate: Scalar) -> list[Solution]:
        return algorithm(group, ramda)(
            batch["weight"],
            batch["grad"],
            batch["anchor"],
            batch["grad_sum"],
            batch["square_sum"],
            penalty=batch.penalty,
            **self._scalars(group, **self._numbers(group, gate)),
        )

    @override
    def _method(self, group: Group) -> Method | None:
        return "ramda"

    @override
    def _take(
        self,
        step: FusedStep,
        params: list[Tensor],
        grads: list[Tensor],
        found: Found,
        descent: Descent,
        numbers: dict[str, Scalar],
    ) -> Scalar:
        sums = step["anchor"], step["grad_sum"], step["square_sum"]
        return step.kernels.ramda(params, grads, *sums, plan=step.plan, found=found, descent=descent, **numbers)

    @override
    def _points(self, group: Group, batch: Batch) -> list[Tensor] | None:
        solutions = ramda_points(
            batch["anchor"],
            batch["grad_sum"],
            batch["square_sum"],
            penalty=batch.penalty,
            start=batch["weight"],
            **self._metric(group),
        )
        return [solution.x for solution in solutions]
