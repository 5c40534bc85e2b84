"""Losses of the output block: values, gradients, and proximal points sample by sample."""

from abc import ABC, abstractmethod
from math import isfinite, log

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from openwork.altmin.elementwise import above
from openwork.altmin.entrywise import in_runs
from openwork.kernels import Scalar

__all__ = ["CrossEntropy", "Hinge", "Huber", "Logistic", "OutputLoss", "Squared"]

# Steps of Newton's method at most, and those on a device, where nobody waits for a test.
MOST_STEPS = 100
DEVICE_STEPS = 20
# A Newton step is taken in full if it brings this fraction of the decrease that the gradient promises.
ARMIJO = 1e-4
# One whose largest and smallest entry differ by no more brings it for sure: (exp(t) - t - 1) / t^2 < 1 - ARMIJO.
SHORT = 1.5


class OutputLoss(ABC):
    """A convex loss ``R(z; y)`` of the outputs, summed over samples (rows)."""

    @abstractmethod
    def value(self, z: Tensor, y: Tensor) -> Tensor:
        """``R(z; y)``, a 0-dim tensor: the sum over samples, in double precision on the CPU."""

    @abstractmethod
    def gradient(self, z: Tensor, y: Tensor) -> Tensor:
        """The gradient of ``R(z; y)`` in ``z``, a subgradient where there is none."""

    @abstractmethod
    def prox(self, c: Tensor, y: Tensor, rho: Scalar, z: Tensor) -> Tensor:
        """The minimizer of ``R(z; y) + rho/2 ||z - c||^2``.

        Args:
            c: Outputs of the last layer, of shape (samples, outputs).
            y: Labels, one row or entry per sample.
            rho: Weight of the quadratic term, > 0.
            z: The present point, where an iterative solver starts.

        Returns:
            A new tensor of the shape of ``c``.
        """

    @abstractmethod
    def check(self, y: Tensor, outputs: int, n: int) -> None:
        """Refuse labels that do not fit.

        Args:
            y: The labels.
            outputs: Outputs of the model.
            n: Number of samples.

        Raises:
            ValueError: If there are none, or their shape or values do not fit.
            TypeError: If they are of the wrong type.
        """


class Squared(OutputLoss):
    """``weight/2 ||z - y||^2`` with targets ``y`` of the shape of the outputs.

    Args:
        weight: Weight, > 0.

    Raises:
        ValueError: If ``weight`` is not positive.
    """

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = _positive("Squared: weight", weight)

    @override
    def value(self, z: Tensor, y: Tensor) -> Tensor:
        return _total((z - y).square_()) * (self.weight / 2)

    @override
    def gradient(self, z: Tensor, y: Tensor) -> Tensor:
        return (z - y.to(z.dtype)) * self.weight

    @override
    def prox(self, c: Tensor, y: Tensor, rho: Scalar, z: Tensor) -> Tensor:
        return (y.to(c.dtype) * self.weight).add_(c * rho).div_(self.weight + rho)

    @override
    def check(self, y: Tensor, outputs: int, n: int) -> None:
        _check_targets("Squared", y, outputs, n)


class Huber(OutputLoss):
    """``r^2 / 2`` for ``|r| <= delta`` and ``delta (|r| - delta / 2)`` beyond, with ``r = z - y`` entry by entry.

    Args:
        delta: Where the loss becomes linear, > 0.

    Raises:
        ValueError: If ``delta`` is not positive.
    """

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = _positive("Huber: delta", delta)

    @override
    def value(self, z: Tensor, y: Tensor) -> Tensor:
        return _total(functional.huber_loss(z, y.to(z.dtype), reduction="none", delta=self.delta))

    @override
    def gradient(self, z: Tensor, y: Tensor) -> Tensor:
        return (z - y.to(z.dtype)).clamp_(-self.delta, self.delta)

    @override
    def prox(self, c: Tensor, y: Tensor, rho: Scalar, z: Tensor) -> Tensor:
        # The residual r of c shrinks by r / (1 + rho), in the linear part by delta / rho.
        return c - (c - y.to(c.dtype)).mul_(rho / (1 + rho)).clamp_(-self.delta, self.delta).div_(rho)

    @override
    def check(self, y: Tensor, outputs: int, n: int) -> None:
        _check_targets("Huber", y, outputs, n)


class Hinge(OutputLoss):
    """``max(0, 1 - y z)``, output by output, with targets +1 and -1 of the shape of the outputs.

    Several outputs are several two-class problems; for one of many classes, put +1 on its output and -1 elsewhere.
    """

    @override
    def value(self, z: Tensor, y: Tensor) -> Tensor:
        return _total((1 - y * z).clamp_(min=0))

    @override
    def gradient(self, z: Tensor, y: Tensor) -> Tensor:
        signs = y.to(z.dtype)
        return -signs * above(1 - signs * z, 0)

    @override
    def prox(self, c: Tensor, y: Tensor, rho: Scalar, z: Tensor) -> Tensor:
        # The margin moves up by 1 / rho, but not beyond 1.
        signs = y.to(c.dtype)
        margin = signs * c
        return torch.maximum(margin, (margin + 1 / rho).clamp_(max=1)).mul_(signs)

    @override
    def check(self, y: Tensor, outputs: int, n: int) -> None:
        _check_signs("Hinge", y, outputs, n)


class Logistic(OutputLoss):
    """``log(1 + exp(-y z))``, output by output, with targets +1 and -1 of the shape of the outputs."""

    @override
    def value(self, z: Tensor, y: Tensor) -> Tensor:
        return _total(functional.softplus(-y * z))

    @override
    def gradient(self, z: Tensor, y: Tensor) -> Tensor:
        signs = y.to(z.dtype)
        return -signs * (-signs * z).sigmoid_()

    @override
    def prox(self, c: Tensor, y: Tensor, rho: Scalar, z: Tensor) -> Tensor:
        # The margin m solves rho (m - margin) = sigmoid(-m), whose right side is below 1 and exp(-m).
        signs = y.to(c.dtype)
        margin = signs * c
        low, high = margin.clone(), margin + 1 / rho
        m = torch.minimum(margin.clamp(min=0).add_(_log1p(1 / rho)), high)
        for _ in range(DEVICE_STEPS):
            pull = (-m).sigmoid_()
            slope = (m - margin).mul_(rho).sub_(pull)
            rising = above(slope, 0)
            high.lerp_(m, rising)
            low.lerp_(m, 1 - rising)
            step = m - slope / (pull * (1 - pull) + rho)
            outside = above(low, step).add_(above(step, high)).clamp_(max=1)
            m = torch.clamp(step, low, high).lerp_(torch.lerp(low, high, 0.5), outside)
        return m.mul_(signs)

    @override
    def check(self, y: Tensor, outputs: int, n: int) -> None:
        _check_signs("Logistic", y, outputs, n)


class CrossEntropy(OutputLoss):
    """Softmax cross-entropy of logits, with labels ``y`` in ``0, ..., outputs - 1``.

    The proximal point comes from Newton's method, sample by sample: the Hessian ``diag(p) - p p' + rho I`` is inverted
    in closed form, and from the point of the last sweep a few steps suffice, whatever ``rho`` is.

    References:
        Sun & Tran-Dinh, Generalized self-concordant functions (2019), theorem 2: the damped Newton step that never
        raises the objective, taken where no longer one passes Armijo's test.
    """

    @override
    def value(self, z: Tensor, y: Tensor) -> Tensor:
        return _total(functional.cross_entropy(z, y, reduction="none"))

    @override
    def gradient(self, z: Tensor, y: Tensor) -> Tensor:
        return z.softmax(1).sub_(_one_hot(y, z))

    @override
    def prox(self, c: Tensor, y: Tensor, rho: Scalar, z: Tensor) -> Tensor:
        return in_runs(lambda c, y, z: (_newton(c, y, rho, z),), c, y, z)[0]

    @override
    def check(self, y: Tensor, outputs: int, n: int) -> None:
        if y.dtype != torch.int64:
            raise TypeError(f"CrossEntropy: y must hold class numbers as torch.int64, got {y.dtype}; use y.long()")
        _check_count("CrossEntropy", y, (n,), n)
        if outputs < 2:
            raise ValueError(f"CrossEntropy: the model must have two or more outputs, got {outputs}; use Logistic")
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= outputs:
            raise ValueError(
                f"CrossEntropy: labels must be in 0, ..., {outputs - 1} for {outputs} outputs, got {low} to {high}; "
                "renumber them or widen the last layer"
            )


def _newton(c: Tensor, y: Tensor, rho: Scalar, z: Tensor) -> Tensor:
    wait = c.device.type == "cpu"
    # Classes along the first axis: sums over few of them are fast only across rows.
    c, start = c.T.contiguous(), z.T.contiguous()
    target = _one_hot(y, c.T).T.contiguous()
    # Where to stop; and what rounding leaves of the quadratic term's gradient.
    eps = torch.finfo(c.dtype).eps
    tolerance = eps**0.8 + 8 * eps * float(rho) * float(c.abs().max()) if wait else 0.0
    z = start
    for _ in range(MOST_STEPS if wait else DEVICE_STEPS):
        p = z.softmax(0)
        gradient = (z - c).mul_(rho).add_(p).sub_(target)
        if wait and float(gradient.abs().max()) <= tolerance:
            return z.T
        step = newton_step(p, gradient, rho)
        width = step.amax(0) - step.amin(0)
        if not wait or float(width.max()) > SHORT:
            step = step * _length(z, step, width, (gradient * step).sum(0), c, target, rho)
        z = z - step
    # An unfinished iteration may be no gain.
    worse = above(_objective(z, c, target, rho), _objective(start, c, target, rho))
    return z.lerp_(start, worse).T


def newton_step(p: Tensor, gradient: Tensor, rho: Scalar) -> Tensor:
    """Solve ``(diag(p) - p p' + rho I) step = gradient`` column by column, by the formula of Sherman and Morrison.

    Args:
        p: Probabilities, columns that sum to 1.
        gradient: Right sides.
        rho: > 0.
    """
    scale = p + rho
    share = p / scale
    step = gradient / scale
    # 1 - p'(p / (p + rho)) is rho times the sum of p / (p + rho), which does not cancel.
    return step.add_(share * ((p * step).sum(0) / (share.sum(0) * rho)))


def _length(z: Tensor, step: Tensor, width: Tensor, decrease: Tensor, c: Tensor, target: Tensor, rho: Scalar) -> Tensor:
    """How much of a Newton step to take, one number per column: all of it, the damped step, or between."""
    width = width.clamp(min=torch.finfo(z.dtype).tiny)
    length = width.log1p().div_(width)
    present = _objective(z, c, target, rho)
    # The damped step is cautious by far where the quadratic term rules.
    for longer in (length.sqrt(), torch.ones_like(length)):
        passed = above(present - longer * decrease * ARMIJO, _objective(z - step * longer, c, target, rho))
        length = torch.lerp(length, longer, passed)
    # Along the step the curvature grows by exp(width) at most, so that a short one lowers the objective for sure.
    return length.lerp_(torch.ones_like(length), 1 - above(width, SHORT))


def _objective(z: Tensor, c: Tensor, target: Tensor, rho: Scalar) -> Tensor:
    """Cross-entropy plus the quadratic term of each column."""
    loss = z.logsumexp(0).sub_((z * target).sum(0))
    return loss.add_((z - c).square_().sum(0).mul_(rho / 2))


def _one_hot(y: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(like).scatter_(1, y[:, None], 1.0)


def _log1p(x: Scalar) -> Scalar:
    return x.log1p() if isinstance(x, Tensor) else log(1 + x)


def _total(x: Tensor) -> Tensor:
    return x.sum(dtype=torch.float64) if x.device.type == "cpu" else x.sum()


def _positive(place: str, value: float) -> float:
    if not (value > 0 and isfinite(value)):
        raise ValueError(f"{place} must be > 0 and finite, got {value}")
    return value


def _check_count(place: str, y: Tensor, shape: tuple[int, ...], n: int) -> None:
    if n == 0:
        raise ValueError(f"{place}: there are no samples; pass at least one row")
    if tuple(y.shape) != shape:
        raise ValueError(f"{place}: y must be of shape {shape}, got {tuple(y.shape)}; reshape it")


def _check_targets(place: str, y: Tensor, outputs: int, n: int) -> None:
    if not y.is_floating_point():
        raise TypeError(f"{place}: y must hold floating-point targets, got {y.dtype}; use y.to(X.dtype)")
    _check_count(place, y, (n, outputs), n)
    if not y.isfinite().all():
        raise ValueError(f"{place}: y has entries that are NaN or infinite; remove or replace them")


def _check_signs(place: str, y: Tensor, outputs: int, n: int) -> None:
    _check_targets(place, y, outputs, n)
    wrong = y[y.abs() != 1]
    if wrong.numel():
        raise ValueError(f"{place}: y must hold +1 and -1 only, got {wrong[0].item():g}; use 2 * y - 1 for 0 and 1")
