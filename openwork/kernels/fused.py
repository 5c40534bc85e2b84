"""What fused kernels offer, whatever they are written in: one whole step of an optimizer."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from openwork.kernels.group_norm import Scalar
from openwork.kernels.regions import Plan

Method = Literal["ramda", "rmda", "prox_adamw", "factorized_sgd_2", "factorized_sgd_3", "factorized_sgd_4"]
# Those that solve for groups by Newton's method; the others need no roots.
NEWTON: frozenset[Method] = frozenset({"ramda", "prox_adamw"})


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
    """What is known of the groups of a plan; a step writes what it finds, unless its gate is closed.

    Args:
        kept: A boolean for each group, numbered as ``plan.kept`` says and entries in the order of their memory: whether
            it is not zero in the prox point.
        roots: Where Newton's method starts, and then its results, the norms of the prox points' groups: for each tensor
            that has some a vector, as ``plan.homes`` says. Zeros are a valid start.
    """

    kept: Tensor
    roots: Mapping[int, Tensor]

    def starts(self, plan: Plan) -> list[int]:
        """Addresses of the first root of each term; 0 where it needs none.

        Args:
            plan: Of the groups.
        """
        begins = {tensor: root.data_ptr() for tensor, root in self.roots.items()}
        size = next((root.element_size() for root in self.roots.values()), 0)
        return [
            begins[tensor] + start * size if begins and term.roots else 0
            for term, (tensor, start) in zip(plan.terms, plan.homes[0], strict=True)
        ]


class FusedKernels(ABC):
    """Steps that do what the plain functions of the same names in ``openwork.optim`` do, to rounding.

    Lists match in length, shapes, strides and dtype (float32 or float64). ``plan`` covers every entry once, and steps
    that solve write ``found``. Such a step returns the sum of the squared residuals of all groups, which say how well
    they were solved: a number, or a 0-dim tensor in double precision. Numbers may be 0-dim tensors on a device, which
    nobody waits for.
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
        found: Found,
        descent: Descent,
        weight: Scalar,
        penalty_weight: Scalar,
        eps: Scalar,
        averaging: Scalar,
    ) -> Scalar:
        """One step of RAMDA; writes ``params``, ``grad_sums``, ``square_sums`` and ``found``."""
        return self._step(
            "ramda",
            (params, grads, anchors, grad_sums, square_sums),
            plan=plan,
            found=found,
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
        found: Found,
        descent: Descent,
        weight: Scalar,
        scale: Scalar,
        penalty_step: Scalar,
        averaging: Scalar,
    ) -> Scalar:
        """One step of RMDA; writes ``params``, ``grad_sums`` and what ``found`` keeps."""
        return self._step(
            "rmda",
            (params, grads, anchors, grad_sums, grad_sums),
            plan=plan,
            found=found,
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
        found: Found,
        descent: Descent,
        lr: Scalar,
        penalty_weight: Scalar,
        decay: Scalar,
        beta1: Scalar,
        beta2: Scalar,
        correction1: Scalar,
        correction2: Scalar,
        eps: Scalar,
    ) -> Scalar:
        """One step of ProxAdamW; writes ``params``, ``momentums``, ``squares`` and ``found``."""
        return self._step(
            "prox_adamw",
            (params, grads, momentums, squares, squares),
            plan=plan,
            found=found,
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
        found: Found,
        descent: Descent,
        penalty_weight: Scalar,
        averaging: Scalar,
        numbers: Sequence[Scalar],
    ) -> Scalar:
        """One step of a method that solves a subproblem.

        Args:
            method: Which.
            lists: Weights, gradients, and three lists of state; where a method has less, the last one stands twice.
            plan: Of the groups.
            found: Written.
            descent: How gradients enter.
            penalty_weight: Factor of the strengths.
            averaging: Fraction moved towards the prox point.
            numbers: Of the method.

        Returns:
            The sum of squared residuals.
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


def capturing(device: torch.device) -> bool:
    """Whether what is asked of a device now goes into a graph, instead of being done."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()
