"""Regularized modernized dual averaging."""

from torch import Tensor
from typing_extensions import override

from openwork.kernels import Descent, Found, Method, Scalar
from openwork.optim.arithmetic import add_scaled, add_scaled_, average_
from openwork.optim.batches import Batch
from openwork.optim.dual_averaging import DualAveraging
from openwork.optim.fused import FusedStep
from openwork.optim.groups import Group, Params, algorithm
from openwork.penalties import Penalty, Solution


def rmda_points(
    anchors: list[Tensor], grad_sums: list[Tensor], *, penalty: Penalty, scale: Scalar, penalty_step: Scalar
) -> list[Solution]:
    """Prox points of regularized dual averaging, ``prox(anchor - grad_sum / scale)``; writes nothing.

    Args:
        anchors: Weights at the last restart.
        grad_sums: Weighted sums of gradients since then.
        penalty: Applied to each weight on its own.
        scale: ``sqrt(k)``.
        penalty_step: Sum of all weights so far, times ``penalty_scale``, over ``scale``.

    Returns:
        One solution per weight.
    """
    return penalty.prox_list(add_scaled(anchors, grad_sums, -1 / scale), penalty_step)


def rmda(
    params: list[Tensor],
    grads: list[Tensor],
    anchors: list[Tensor],
    grad_sums: list[Tensor],
    *,
    penalty: Penalty,
    weight: Scalar,
    scale: Scalar,
    penalty_step: Scalar,
    averaging: Scalar,
) -> list[Solution]:
    """One step of regularized dual averaging, averaged; writes ``params`` and ``grad_sums``.

    Args:
        params: Weights; the other lists match them in length and shapes.
        grads: Gradients at ``params``.
        anchors: Weights at the last restart.
        grad_sums: Weighted sums of gradients since then.
        penalty: Applied to each weight on its own.
        weight: Weight of this gradient, ``lr * sqrt(k)`` at step k = 1, 2, ...
        scale: ``sqrt(k)``.
        penalty_step: Sum of all ``weight`` values so far, times ``penalty_scale``, over ``scale``.
        averaging: Fraction c in (0, 1] moved towards the prox point (MADGRAD's momentum is 1 - c).

    Returns:
        The prox points and their structure.

    References:
        Huang & Lee (ICLR 2022), arXiv:2112.02612, algorithm RMDA.
    """
    add_scaled_(grad_sums, grads, weight)
    solutions = rmda_points(anchors, grad_sums, penalty=penalty, scale=scale, penalty_step=penalty_step)
    average_(params, [solution.x for solution in solutions], averaging)
    return solutions


class RMDA(DualAveraging):
    """Regularized modernized dual averaging: SGD with momentum for ``loss + penalty``, with a Euclidean metric.

    The zeros live in the prox points and reach the weights once ``averaging`` is 1: let ``Stages`` grow it, or read
    them with ``structured()``. State: two float32 tensors per parameter (anchor and gradient sum), and one boolean per
    group.

    Args:
        params: Parameters or groups, such as those ``regularize`` returns.
        lr: Learning rate, > 0; that of SGD is a good start.
        averaging: Fraction c in (0, 1] moved towards the prox point at each step; 0.1 is momentum 0.9.
        penalty: For groups that name none; default none.
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
        TypeError: If ``penalty`` is not one.

    References:
        Huang & Lee, Training Structured Neural Networks Through Manifold Identification and Variance Reduction
        (ICLR 2022), arXiv:2112.02612.
    """

    sums = ("grad_sum",)

    def __init__(
        self,
        params: Params,
        lr: Scalar = 0.1,
        averaging: float = 0.1,
        *,
        penalty: Penalty | None = None,
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
            penalty=penalty,
            weight_decay=weight_decay,
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            compile=compile,
            fused=fused,
        )

    @override
    def _metric(self, group: Group) -> dict[str, Scalar]:
        scale = self._root(group)
        return {"scale": scale, "penalty_step": self._penalty_weight(group) / scale}

    @override
    def _update(self, group: Group, batch: Batch, gate: Scalar) -> list[Solution]:
        return algorithm(group, rmda)(
            batch["weight"],
            batch["grad"],
            batch["anchor"],
            batch["grad_sum"],
            penalty=batch.penalty,
            **self._scalars(group, **self._numbers(group, gate)),
        )

    @override
    def _method(self, group: Group) -> Method | None:
        return "rmda"

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
        sums = step["anchor"], step["grad_sum"]
        return step.kernels.rmda(params, grads, *sums, plan=step.plan, found=found, descent=descent, **numbers)

    @override
    def _points(self, group: Group, batch: Batch) -> list[Tensor] | None:
        solutions = rmda_points(batch["anchor"], batch["grad_sum"], penalty=batch.penalty, **self._metric(group))
        return [solution.x for solution in solutions]
