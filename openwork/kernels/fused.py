"""What fused kernels offer, whatever they are written in: one whole step of an optimizer."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from openwork.kernels.group_norm import Scalar
from openwork.kernels.regions import Plan

Method = Literal["ramda", "rmda", "prox_adamw", "factorized_sgd_2", "factorized_sgd_3", "factorized_sgd_4"]


class Descent(NamedTuple):
    """How a gradient becomes the one that is descended along: ``g <- sign g + decay w``, or 0 if the gate is closed.

    Args:
        sign: 1, or -1 to ascend.
        decay: Factor of the weight, >= 0.
        gate: 1; or 0, where gradients need not be finite, and nothing may change.
    """

    sign: float
    decay: float
    gate: Scalar


class Found(NamedTuple):
    """What a step found on its way.

    Args:
        kept: For each term a boolean tensor of shape ``term.grid``: which groups are not zero in the prox point. Empty
            for free terms.
        squares: Sum of the squared residuals of all groups, which say how well they were solved: a number, or a 0-dim
            tensor in double precision on a device.
    """

    kept: list[Tensor]
    squares: Scalar


class FusedKernels(ABC):
    """Steps that do what the plain functions of the same names in ``openwork.optim`` do, to rounding.

    Lists match in length, shapes, strides and dtype (float32 or float64). ``plan`` covers every entry once. ``roots``
    has for each term of groups a tensor of as many numbers, read as the start of Newton's method and written with its
    result, the norms of the prox points' groups; zeros are a valid start. For other terms it has empty tensors.
    Numbers may be 0-dim tensors on a device, which nobody waits for.
    """

    @abstractmethod
    def obstacle(self, method: Method, dtype: torch.dtype, plan: Plan) -> str | None:
        """Why there is no such step, as the end of a sentence; None if there is one, ready to run.

        Args:
            method: Name of the step.
            dtype: Of all tensors.
            plan: Of the groups.
        """

    @abstractmethod
    def all_finite(self, tensors: Sequence[Tensor]) -> bool | None:
        """Whether all numbers are finite; None if there is no kernel that says so without waiting for a device.

        Args:
            tensors: Of any kind.
        """

    def ramda(
        self,
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        anchors: Sequence[Tensor],
        grad_sums: Sequence[Tensor],
        square_sums: Sequence[Tensor],
        *,
        plan: Plan,
        roots: Sequence[Tensor],
        descent: Descent,
        weight: Scalar,
        penalty_weight: Scalar,
        eps: Scalar,
        averaging: Scalar,
    ) -> Found:
        """One step of RAMDA; writes ``params``, ``grad_sums``, ``square_sums`` and ``roots``."""
        return self._step(
            "ramda",
            (params, grads, anchors, grad_sums, square_sums),
            plan=plan,
            roots=roots,
            descent=descent,
            penalty_weight=penalty_weight,
            averaging=averaging,
            numbers=(weight, eps),
        )

    def rmda(
        self,
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        anchors: Sequence[Tensor],
        grad_sums: Sequence[Tensor],
        *,
        plan: Plan,
        descent: Descent,
        weight: Scalar,
        scale: Scalar,
        penalty_step: Scalar,
        averaging: Scalar,
    ) -> Found:
        """One step of RMDA; writes ``params`` and ``grad_sums``."""
        return self._step(
            "rmda",
            (params, grads, anchors, grad_sums, grad_sums),
            plan=plan,
            roots=(),
            descent=descent,
            penalty_weight=penalty_step,
            averaging=averaging,
            numbers=(weight, 1 / scale),
        )

    def prox_adamw(
        self,
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        momentums: Sequence[Tensor],
        squares: Sequence[Tensor],
        *,
        plan: Plan,
        roots: Sequence[Tensor],
        descent: Descent,
        lr: Scalar,
        penalty_weight: Scalar,
        decay: Scalar,
        beta1: Scalar,
        beta2: Scalar,
        correction1: Scalar,
        correction2: Scalar,
        eps: Scalar,
    ) -> Found:
        """One step of ProxAdamW; writes ``params``, ``momentums``, ``squares`` and ``roots``."""
        return self._step(
            "prox_adamw",
            (params, grads, momentums, squares, squares),
            plan=plan,
            roots=roots,
            descent=descent,
            penalty_weight=penalty_weight,
            averaging=1.0,
            numbers=(1 - beta1, 1 - beta2, 1 / correction2, eps, decay, lr / correction1),
        )

    @abstractmethod
    def factorized_sgd(
        self,
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        factors: Sequence[Sequence[Tensor]],
        momentums: Sequence[Sequence[Tensor]],
        *,
        plan: Plan,
        descent: Descent,
        lr: Scalar,
        decay: Scalar,
        momentum: Scalar,
        nesterov: bool,
    ) -> None:
        """One step on 2 to 4 factors of each weight, in a plan of free terms; writes all but ``grads``."""

    @abstractmethod
    def _step(
        self,
        method: Method,
        lists: Sequence[Sequence[Tensor]],
        *,
        plan: Plan,
        roots: Sequence[Tensor],
        descent: Descent,
        penalty_weight: Scalar,
        averaging: Scalar,
        numbers: Sequence[Scalar],
    ) -> Found:
        """One step of a method that solves a subproblem.

        Args:
            method: Which.
            lists: Weights, gradients, and three lists of state; where a method has less, the last one stands twice.
            plan: Of the groups.
            roots: Where Newton's method starts; none if the groups need none.
            descent: How gradients enter.
            penalty_weight: Factor of the strengths.
            averaging: Fraction moved towards the prox point.
            numbers: Of the method.
        """


@cache
def fused_kernels(device: str) -> FusedKernels | None:
    """The fused steps for a type of device, such as ``"cpu"``; None if there are none.

    Args:
        device: ``torch.device.type``.
    """
    if device == "cpu":
        from openwork.kernels.cpu import CPUKernels

        return CPUKernels()
    if device == "cuda":
        from openwork.kernels.cuda import CUDAKernels

        return CUDAKernels()
    return None
