"""Proximal AdamW, and ProxSSI as a preset of it."""

from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Found, Method, Scalar
from openwork.optim.arithmetic import average_, shift_
from openwork.optim.batches import Batch
from openwork.optim.fused import FusedStep
from openwork.optim.groups import Group, Params, algorithm, check_range, rate
from openwork.optim.proximal import ProximalOptimizer
from openwork.penalties import DiagonalProx, Solution


def prox_adamw(
    params: list[Tensor],
    grads: list[Tensor],
    momentums: list[Tensor],
    squares: list[Tensor],
    largest: list[Tensor] | None,
    *,
    penalty: DiagonalProx,
    lr: Scalar,
    penalty_weight: Scalar,
    decay: Scalar,
    beta1: Scalar,
    beta2: Scalar,
    correction1: Scalar,
    correction2: Scalar,
    eps: Scalar,
    gate: Scalar,
) -> list[Solution]:
    """One step of AdamW, solved with the penalty in the metric of its own step; writes all lists but ``grads``.

    The metric is ``d = sqrt(v / correction2) + eps``; the new weights minimize
    ``0.5 x'Dx - (d w - lr m / correction1)'x + penalty_weight f(x)``, where ``w`` is decayed first.

    Args:
        params: Weights; the other lists match them in length and shapes.
        grads: Gradients at ``params``.
        momentums: Averaged gradients m.
        squares: Averaged squared gradients v.
        largest: Largest v so far (AMSGrad), or None.
        penalty: Applied to each weight on its own.
        lr: Learning rate.
        penalty_weight: Factor of the penalty, ``lr`` times ``penalty_scale``.
        decay: Factor of the weights, ``1 - lr * weight_decay``.
        beta1: Fraction kept of m; 1 where the gate is closed.
        beta2: Fraction kept of v; 1 where the gate is closed.
        correction1: ``1 - beta1^t``.
        correction2: ``1 - beta2^t``.
        eps: Floor of the metric, added after the root.
        gate: 1, or 0 to change nothing.

    Returns:
        The new weights and their structure.

    References:
        Yun, Lozano & Yang, Adaptive Proximal Gradient Methods for Structured Neural Networks (NeurIPS 2021),
        arXiv:2007.07484, algorithm 1; AMSGrad: Reddi, Kale & Kumar (ICLR 2018).
    """
    average_(momentums, grads, 1 - beta1)
    average_(squares, list(torch._foreach_mul(grads, grads)), 1 - beta2)
    if largest is not None:
        torch._foreach_maximum_(largest, squares)
    metrics = torch._foreach_div(squares if largest is None else largest, correction2)
    torch._foreach_sqrt_(metrics)
    shift_(list(metrics), eps)
    metrics = penalty.metrics(list(metrics))
    duals = torch._foreach_mul(params, decay)
    torch._foreach_mul_(duals, metrics)
    torch._foreach_sub_(duals, torch._foreach_mul(momentums, lr / correction1))
    solutions = penalty.solve_(list(duals), metrics, penalty_weight, params)
    average_(params, [solution.x for solution in solutions], gate)
    return solutions


class ProxAdamW(ProximalOptimizer):
    """AdamW for ``loss + penalty`` (ProxGen's instance), solved exactly; without a penalty it is AdamW.

    State: two float32 tensors per parameter (three with ``amsgrad``), and one boolean per group; where steps are fused,
    also one number per group, with which the next solve starts.

    Args:
        params: Parameters or groups, such as those ``regularize`` returns.
        lr: Learning rate, >= 0.
        betas: Fractions kept of the averaged gradient and of its square, each in [0, 1).
        eps: Floor of the metric, >= 0.
        penalty: For groups that name none; default none. It must solve under a diagonal metric.
        weight_decay: Decoupled decay, as in AdamW; for groups without a penalty.
        amsgrad: Use the largest averaged square so far.
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
        Yun, Lozano & Yang (NeurIPS 2021), arXiv:2007.07484; its exactness under inexact solves is Huang & Lee
        (NeurIPS 2024), theorem 4.
    """

    sums = ("momentum", "square")
    needs = DiagonalProx
    decoupled = True

    def __init__(
        self,
        params: Params,
        lr: Scalar = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        penalty: DiagonalProx | None = None,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool | None = None,
        compile: bool = False,
        fused: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            amsgrad=amsgrad,
            eps_corrected=False,
            strength_as_coded=False,
            penalty=penalty,
            weight_decay=weight_decay,
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            compile=compile,
            fused=fused,
        )

    @classmethod
    def ssi(
        cls,
        params: Params,
        lr: Scalar = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        *,
        penalty: DiagonalProx | None = None,
        as_coded: bool = False,
    ) -> Self:
        """ProxSSI, which differs from ProxAdamW in where ``eps`` enters: before the bias correction.

        Args:
            params: Parameters or groups.
            lr: Learning rate, >= 0.
            betas: Fractions kept of the averaged gradient and of its square, each in [0, 1).
            eps: Floor of the uncorrected metric, >= 0.
            penalty: For groups that name none; default none.
            as_coded: Use the released code's penalty, which is ``1 / sqrt(1 - beta2^t)`` times too strong (31.6 times
                at the first step with 0.999) because it corrects the gradient step only.

        Returns:
            The optimizer.

        References:
            Deleu & Bengio, Structured Sparsity Inducing Adaptive Optimizers for Deep Learning, arXiv:2102.03869.
        """
        optimizer = cls(params, lr, betas, eps, penalty=penalty)
        for options in (optimizer.defaults, *optimizer.param_groups):
            options.update(eps_corrected=True, strength_as_coded=as_coded)
        return optimizer

    @override
    def _check(self, group: Group) -> None:
        super()._check(group)
        me = type(self).__name__
        check_range(me, group, "eps")
        for beta in group["betas"]:
            check_range(me, {"betas": beta}, "betas", high=1.0, below=True)

    @override
    def _sums(self, group: Group) -> tuple[str, ...]:
        return (*self.sums, "largest") if group["amsgrad"] else self.sums

    @override
    def _penalty_weight(self, group: Group) -> Scalar:
        weight = rate(group) * group["penalty_scale"]
        return weight / self._corrections(group)[1] ** 0.5 if group["strength_as_coded"] else weight

    def _corrections(self, group: Group) -> tuple[Scalar, Scalar]:
        step = group["step"]
        # Before a first step that was skipped on a device nothing may be divided by zero.
        step = step.clamp_min(1.0) if isinstance(step, Tensor) else step
        beta1, beta2 = group["betas"]
        return 1 - beta1**step, 1 - beta2**step

    @override
    def _update(self, group: Group, batch: Batch, gate: Scalar) -> list[Solution]:
        beta1, beta2 = group["betas"]
        return algorithm(group, prox_adamw)(
            batch["weight"],
            batch["grad"],
            batch["momentum"],
            batch["square"],
            batch["largest"] if group["amsgrad"] else None,
            penalty=batch.penalty,
            **self._scalars(
                group,
                beta1=1 - gate * (1 - beta1),
                beta2=1 - gate * (1 - beta2),
                gate=gate,
                **self._numbers(group),
            ),
        )

    def _numbers(self, group: Group) -> dict[str, Scalar]:
        correction1, correction2 = self._corrections(group)
        return {
            "lr": rate(group),
            "penalty_weight": self._penalty_weight(group),
            "decay": 1 - rate(group) * group["weight_decay"],
            "correction1": correction1,
            "correction2": correction2,
            "eps": group["eps"] / correction2**0.5 if group["eps_corrected"] else group["eps"],
        }

    @override
    def _method(self, group: Group) -> Method | None:
        return None if group["amsgrad"] else "prox_adamw"

    @override
    def _fused(self, group: Group, step: FusedStep, found: Found, gate: Scalar) -> Scalar:
        beta1, beta2 = group["betas"]
        return step.kernels.prox_adamw(
            step["weight"],
            step["grad"],
            step["momentum"],
            step["square"],
            plan=step.plan,
            found=found,
            descent=self._descent(group, gate),
            beta1=1 - gate * (1 - beta1),
            beta2=1 - gate * (1 - beta2),
            **self._numbers(group),
        )
