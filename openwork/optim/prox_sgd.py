"""Proximal stochastic gradient descent."""

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Scalar
from openwork.optim.arithmetic import add_scaled, average_
from openwork.optim.batches import Batch
from openwork.optim.groups import Group, Params, algorithm, check_range, rate
from openwork.optim.proximal import ProximalOptimizer
from openwork.penalties import DiagonalProx, Penalty, Solution


def prox_sgd(
    params: list[Tensor],
    grads: list[Tensor],
    momentums: list[Tensor],
    *,
    penalty: Penalty,
    lr: Scalar,
    penalty_step: Scalar,
    averaging: Scalar,
    gate: Scalar,
) -> list[Solution]:
    """One proximal step with unit step size; writes ``params`` and ``momentums``.

    ``m <- (1 - c) m + c g``, then ``w <- prox(w - lr m)``.

    Args:
        params: Weights; the other lists match them in length and shapes.
        grads: Gradients at ``params``.
        momentums: Averaged gradients, from zero and without bias correction.
        penalty: Applied to each weight on its own.
        lr: Learning rate.
        penalty_step: ``lr`` times ``penalty_scale``.
        averaging: Fraction c in (0, 1] of the new gradient (momentum is 1 - c); 0 where the gate is closed.
        gate: 1, or 0 to change nothing.

    Returns:
        The new weights and their structure.

    References:
        The baseline of Huang & Lee (NeurIPS 2024), arXiv:2403.14398, appendix A.
    """
    average_(momentums, grads, averaging)
    solutions = penalty.prox_list(add_scaled(params, momentums, -lr), penalty_step)
    average_(params, [solution.x for solution in solutions], gate)
    return solutions


def prox_sgd_original(
    params: list[Tensor],
    grads: list[Tensor],
    momentums: list[Tensor],
    squares: list[Tensor],
    points: list[Tensor],
    *,
    penalty: DiagonalProx,
    penalty_scale: Scalar,
    rho: Scalar,
    beta: Scalar,
    correction: Scalar,
    averaging: Scalar,
    gate: Scalar,
) -> list[Solution]:
    """One step of ProxSGD as published; writes everything but ``grads``.

    ``v <- (1 - rho) v + rho g``; ``r <- beta r + (1 - beta) g^2``; ``tau = sqrt(r / correction) + 1e-8``; the point
    minimizes ``<v, x - w> + 0.5 ||x - w||_tau^2 + f(x)``; ``w <- w + averaging (point - w)``.

    Args:
        params: Weights; the other lists match them in length and shapes.
        grads: Gradients at ``params``.
        momentums: Averaged gradients v.
        squares: Averaged squared gradients r.
        points: The solutions, kept since they cannot be told from the weights later.
        penalty: Applied to each weight on its own.
        penalty_scale: Factor of the penalty.
        rho: Fraction of the new gradient; 0 where the gate is closed.
        beta: Fraction kept of the squares; 1 where the gate is closed.
        correction: ``1 - beta^(t+1)``.
        averaging: Fraction moved towards the point; 0 where the gate is closed.
        gate: 1, or 0 to change nothing.

    Returns:
        The points and their structure.

    References:
        Yang, Yuan, Chatzimichailidis, van Sloun, Lei & Chatzinotas, ProxSGD (ICLR 2020), algorithm 1, with the
        exponent ``t + 1`` of the authors' code.
    """
    average_(momentums, grads, rho)
    average_(squares, list(torch._foreach_mul(grads, grads)), 1 - beta)
    metrics = torch._foreach_sqrt(torch._foreach_div(squares, correction))
    torch._foreach_add_(metrics, 1e-8)
    metrics = penalty.metrics(list(metrics))
    duals = torch._foreach_mul(params, metrics)
    torch._foreach_sub_(duals, momentums)
    solutions = penalty.solve_(list(duals), metrics, penalty_scale, params)
    average_(params, [solution.x for solution in solutions], averaging)
    average_(points, [solution.x for solution in solutions], gate)
    return solutions


class ProxSGD(ProximalOptimizer):
    """Proximal SGD with unit step for ``loss + penalty``, the baseline of the RAMDA paper.

    Exact zeros are in the weights from the first step, but the support need not settle, since each step's threshold
    shrinks with ``lr`` while the gradient's noise does not. State: one float32 tensor per parameter.

    Args:
        params: Parameters or groups, such as those ``regularize`` returns.
        lr: Learning rate, >= 0.
        averaging: Fraction in (0, 1] of the new gradient in the averaged one (momentum is 1 minus it).
        penalty: For groups that name none; default none.
        weight_decay: Added to the gradient, times the weight; for groups without a penalty.
        maximize: Ascend instead.
        foreach: False updates one parameter at a time; otherwise many at once.
        capturable: Never wait for a device, so that the step can be captured; default on devices only.
        compile: Compile the step with ``torch.compile``.

    Raises:
        ValueError: If an option is out of range or a penalty does not fit a parameter.
        TypeError: If ``penalty`` is not one.
    """

    sums = ("momentum",)

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
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            averaging=averaging,
            penalty=penalty,
            weight_decay=weight_decay,
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            compile=compile,
        )

    @override
    def _check(self, group: Group) -> None:
        super()._check(group)
        check_range(type(self).__name__, group, "averaging", high=1.0, above=True)

    @override
    def _penalty_weight(self, group: Group) -> Scalar:
        return rate(group) * group["penalty_scale"]

    @override
    def _update(self, group: Group, batch: Batch, gate: Scalar) -> list[Solution]:
        return algorithm(group, prox_sgd)(
            batch["weight"],
            batch["grad"],
            batch["momentum"],
            penalty=batch.penalty,
            **self._scalars(
                group,
                lr=rate(group),
                penalty_step=self._penalty_weight(group),
                averaging=gate * group["averaging"],
                gate=gate,
            ),
        )


class OriginalProxSGD(ProximalOptimizer):
    """ProxSGD as published: an Adam-like metric, and steps towards the solution that shrink with time.

    At step t = 1, 2, ... it moves by ``lr / sqrt(t + 4)`` towards the solution and takes ``rho / sqrt(t + 4)`` of the
    new gradient, so exact zeros are in ``structured()`` only. State: three float32 tensors per parameter.

    Args:
        params: Parameters or groups, such as those ``regularize`` returns.
        lr: Fraction moved, before the decay, in [0, sqrt(5)].
        rho: Fraction of the new gradient, before the decay, in (0, sqrt(5)].
        beta: Fraction kept of the squared gradients, in [0, 1).
        penalty: For groups that name none; default none. It must solve under a diagonal metric.
        weight_decay: Added to the gradient, times the weight; for groups without a penalty.
        maximize: Ascend instead.
        foreach: False updates one parameter at a time; otherwise many at once.
        capturable: Never wait for a device, so that the step can be captured; default on devices only.
        compile: Compile the step with ``torch.compile``.

    Raises:
        ValueError: If an option is out of range or a penalty does not fit a parameter.
        TypeError: If ``penalty`` is not one, or has only a Euclidean prox.

    References:
        Yang, Yuan, Chatzimichailidis, van Sloun, Lei & Chatzinotas, ProxSGD: Training Structured Neural Networks under
        Regularization and Constraints (ICLR 2020), algorithm 1.
    """

    sums = ("momentum", "square", "point")
    needs = DiagonalProx

    def __init__(
        self,
        params: Params,
        lr: Scalar = 0.06,
        rho: float = 0.9,
        beta: float = 0.999,
        *,
        penalty: DiagonalProx | None = None,
        weight_decay: float = 0.0,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            rho=rho,
            beta=beta,
            penalty=penalty,
            weight_decay=weight_decay,
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            compile=compile,
        )

    @override
    def _check(self, group: Group) -> None:
        super()._check(group)
        me = type(self).__name__
        check_range(me, group, "lr", high=5**0.5)
        check_range(me, group, "rho", high=5**0.5, above=True)
        check_range(me, group, "beta", high=1.0, below=True)

    @override
    def averaging_now(self, group: Group) -> Scalar:
        return rate(group) / (group["step"] + 4) ** 0.5

    @override
    def _penalty_weight(self, group: Group) -> Scalar:
        return group["penalty_scale"]

    @override
    def _update(self, group: Group, batch: Batch, gate: Scalar) -> list[Solution]:
        step, beta = group["step"], group["beta"]
        return algorithm(group, prox_sgd_original)(
            batch["weight"],
            batch["grad"],
            batch["momentum"],
            batch["square"],
            batch["point"],
            penalty=batch.penalty,
            **self._scalars(
                group,
                penalty_scale=group["penalty_scale"],
                rho=gate * group["rho"] / (step + 4) ** 0.5,
                beta=1 - gate * (1 - beta),
                correction=1 - beta ** (step + 1),
                averaging=gate * self.averaging_now(group),
                gate=gate,
            ),
        )

    @override
    def _points(self, group: Group, batch: Batch) -> list[Tensor] | None:
        return batch["point"]
