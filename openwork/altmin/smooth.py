"""Smooth activations: a scan for the best basin, then safeguarded Newton steps."""

from abc import abstractmethod
from math import pi, sqrt
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from openwork.altmin.elementwise import Activation, above, at_most
from openwork.altmin.entrywise import in_runs
from openwork.kernels import Scalar

STEPS = 8


class Jet(NamedTuple):
    """Value and first two derivatives of an activation."""

    value: Tensor
    first: Tensor
    second: Tensor


class Smooth(Activation):
    """A twice differentiable function.

    The problem of ``solve`` may have several local minimizers. On each branch a scan looks at the ends of the range in
    which they all lie, at points between, and at the minimizer for ``h(z) = z``, as which several functions end; then
    Newton's method is kept between the neighbors of the best point. A basin narrower than the scan may be missed: in
    one to five of 10 000 random problems another point was better, by up to one percent.

    Args:
        bend: Interval outside which ``h`` is straight to within a few digits.
        points: Points of the scan inside it.
    """

    # Compiled, every entry would take the whole scan; that takes minutes to compile, and longer to run.
    compiles: ClassVar[bool] = False

    def __init__(self, bend: tuple[float, float], points: int) -> None:
        self.bend = bend
        self.points = points

    @abstractmethod
    def jet(self, z: Tensor) -> Jet:
        """Value, first and second derivative."""

    @abstractmethod
    def branches(self, c: Tensor, d: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Ranges, on each of which ``h`` is monotone, in which every minimizer of the problem of ``solve`` lies."""

    @override
    def solve(self, c: Tensor, d: Tensor, r: Scalar, k: Scalar, z: Tensor) -> Tensor:
        return in_runs(lambda c, d, z: (self._solve(c, d, r, k, z),), c, d, z)[0]

    def _cost(self, z: Tensor, c: Tensor, d: Tensor, r: Scalar, k: Scalar) -> Tensor:
        return (z - c).square_().mul_(r).add_((self.forward(z) - d).square_().mul_(k))

    def _solve(self, c: Tensor, d: Tensor, r: Scalar, k: Scalar, present: Tensor) -> Tensor:
        best, lowest = present.clone(), self._cost(present, c, d, r, k)
        ends = [z for low, high in self.branches(c, d) for z in self._branch(low, high, c, d, r, k)]
        slack = _slack(c)
        for z in (c, *ends):  # c is nearly best where h is flat
            cost = self._cost(z, c, d, r, k)
            best.lerp_(z, above(lowest * slack, cost))
            lowest = torch.minimum(cost, lowest)
        return best

    def _branch(self, low: Tensor, high: Tensor, c: Tensor, d: Tensor, r: Scalar, k: Scalar) -> tuple[Tensor, Tensor]:
        """The best point of the scan, and where Newton's method gets from there."""
        start, stop = (torch.minimum(torch.clamp(low, min=end), high) for end in self.bend)
        straight = torch.minimum(torch.maximum((c - d).mul_(r / (r + k)).add_(d), stop), high)
        best, lowest = low.clone(), self._cost(low, c, d, r, k)
        left, right, previous = low.clone(), low.clone(), low
        for i in range(self.points + 2):
            point = torch.lerp(start, stop, i / (self.points - 1)) if i < self.points else straight
            point = high if i > self.points else point
            cost = self._cost(point, c, d, r, k)
            better = above(lowest, cost)
            # The neighbor on the right is the first point that is really beyond.
            right.lerp_(point, torch.maximum(better, at_most(right, best)))
            best.lerp_(point, better)
            left.lerp_(previous, better)
            lowest = torch.minimum(lowest, cost)
            previous = point
        z = best.clone()
        for _ in range(STEPS):
            h, first, second = self.jet(z)
            error = h - d
            slope = (z - c).mul_(r).add_((error * first).mul_(k))
            curvature = (error * second).addcmul_(first, first).mul_(k).add_(r)
            rising = above(slope, 0)
            right.lerp_(z, rising)
            left.lerp_(z, 1 - rising)
            step = z - slope / curvature.clamp(min=1e-30)
            # Newton's step, or the middle where it goes uphill or beyond a neighbor.
            middle = above(left, step).add_(above(step, right)).add_(above(-curvature, 0)).clamp_(max=1)
            z = torch.clamp(step, left, right).lerp_(torch.lerp(left, right, 0.5), middle)
        return best, z


class _Monotone(Smooth):
    """An increasing function with an inverse: minimizers lie between ``c`` and the point where ``h`` is ``d``."""

    # Beyond this distance from zero the function no longer changes in double precision.
    flat: float
    # Bound of |h''|.
    bow: float

    @override
    def _solve(self, c: Tensor, d: Tensor, r: Scalar, k: Scalar, present: Tensor) -> Tensor:
        if c.device.type != "cpu" or torch.compiler.is_compiling():
            return super()._solve(c, d, r, k, present)
        # The second derivative of the cost is r + k h'^2 + k (h - d) h'', and |h - d| is largest at an end of the
        # range: nearly everywhere the cost is convex there, and Newton's method from the present point needs no scan.
        low, high = self.branches(c, d)[0]
        error = torch.maximum((self.forward(low) - d).abs_(), (self.forward(high) - d).abs_())
        scanned = (error * (k * self.bow) >= r) & (low < high)
        best, moved = self._newton(torch.clamp(present, low, high), low, high, c, d, r, k, (~scanned).to(c.dtype))
        scanned |= moved > 0
        worse = above(self._cost(best, c, d, r, k), self._cost(present, c, d, r, k) * _slack(c))
        best.lerp_(present, worse)
        which = scanned.flatten().nonzero()[:, 0]
        if len(which):
            c, d, r, k, present = (_entries(x, which, like=best) for x in (c, d, r, k, present))
            best.view(-1)[which] = super()._solve(c, d, r, k, present)
        return best

    def _newton(
        self, z: Tensor, low: Tensor, high: Tensor, c: Tensor, d: Tensor, r: Scalar, k: Scalar, watched: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Where Newton's method gets, and a positive number at each watched entry that it has not brought to rest."""
        # It doubles the number of right digits.
        close, moved = torch.finfo(z.dtype).eps ** 0.6, torch.zeros_like(z)
        for _ in range(STEPS):
            h, first, second = self.jet(z)
            pull = (h - d).mul_(k)
            slope = (z - c).mul_(r).addcmul_(pull, first)
            curvature = (first * first).mul_(k).addcmul_(pull, second).add_(r).clamp_(min=1e-30)
            point = torch.clamp(z - slope.div_(curvature), low, high)
            moved = (z - point).abs_().sub_(point.abs().mul_(close)).sub_(close).mul_(watched)
            z = point
            if not float(moved.max()) > 0:
                break
        return z, moved

    @abstractmethod
    def inverse(self, v: Tensor) -> Tensor:
        """Where ``h`` has the value ``v``; infinite where ``v`` is on or beyond the end of the range."""

    @override
    def branches(self, c: Tensor, d: Tensor) -> list[tuple[Tensor, Tensor]]:
        other = self.inverse(d)
        # A value that is not attained pulls no further than where h is flat.
        other = torch.where(other.isinf(), other.clamp(-self.flat, self.flat), other)
        return [(torch.minimum(c, other), torch.maximum(c, other))]

    @override
    def interval(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        return self.inverse(low), self.inverse(high)


class Tanh(_Monotone):
    """``h(z) = tanh(z)``."""

    flat, bow = 20.0, 4 / (3 * sqrt(3))

    def __init__(self) -> None:
        super().__init__((-4.0, 4.0), 12)

    @override
    def forward(self, z: Tensor) -> Tensor:
        return z.tanh()

    @override
    def jet(self, z: Tensor) -> Jet:
        h = z.tanh()
        first = 1 - h * h
        return Jet(h, first, -2 * h * first)

    @override
    def inverse(self, v: Tensor) -> Tensor:
        return v.clamp(-1, 1).atanh_()


class Sigmoid(_Monotone):
    """``h(z) = 1 / (1 + exp(-z))``."""

    flat, bow = 40.0, 1 / (6 * sqrt(3))

    def __init__(self) -> None:
        super().__init__((-8.0, 8.0), 12)

    @override
    def forward(self, z: Tensor) -> Tensor:
        return z.sigmoid()

    @override
    def jet(self, z: Tensor) -> Jet:
        h = z.sigmoid()
        first = h * (1 - h)
        return Jet(h, first, first * (1 - 2 * h))

    @override
    def inverse(self, v: Tensor) -> Tensor:
        return v.clamp(0, 1).logit_()


class Softplus(_Monotone):
    """``h(z) = log(1 + exp(beta z)) / beta``, and ``z`` itself where ``beta z`` is above the threshold.

    Args:
        beta: Sharpness, > 0.
        threshold: As of ``nn.Softplus``.

    Raises:
        ValueError: If ``beta`` is not positive.
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        if not beta > 0:
            raise ValueError(f"Softplus: beta must be > 0, got {beta}")
        super().__init__((-8.0 / beta, 8.0 / beta), 12)
        self.beta, self.threshold = beta, threshold
        self.flat, self.bow = 40.0 / beta, beta / 4

    @override
    def forward(self, z: Tensor) -> Tensor:
        return functional.softplus(z, self.beta, self.threshold)

    @override
    def jet(self, z: Tensor) -> Jet:
        first = (z * self.beta).sigmoid_()
        return Jet(self.forward(z), first, first * (1 - first) * self.beta)

    @override
    def inverse(self, v: Tensor) -> Tensor:
        scaled = v.clamp(min=0) * self.beta
        return torch.where(scaled > self.threshold, v, (scaled + (-(-scaled).expm1()).log()) / self.beta)


class ELU(_Monotone):
    """``h(z) = z`` for ``z >= 0`` and ``alpha (exp(z) - 1)`` below.

    Args:
        alpha: Minus the value at minus infinity, > 0.

    Raises:
        ValueError: If ``alpha`` is not positive.
    """

    flat = 40.0

    def __init__(self, alpha: float = 1.0) -> None:
        if not alpha > 0:
            raise ValueError(f"ELU: alpha must be > 0, got {alpha}; use ReLU for 0")
        super().__init__((-8.0, 0.0), 12)
        self.alpha = self.bow = alpha

    @override
    def forward(self, z: Tensor) -> Tensor:
        return functional.elu(z, self.alpha)

    @override
    def jet(self, z: Tensor) -> Jet:
        # Of the negative piece.
        first = z.exp() * self.alpha
        return Jet(first - self.alpha, first, first)

    @override
    def _solve(self, c: Tensor, d: Tensor, r: Scalar, k: Scalar, present: Tensor) -> Tensor:
        straight = (c - d).mul_(r / (r + k)).add_(d).clamp_(min=0)
        better = above(self._cost(present, c, d, r, k), self._cost(straight, c, d, r, k))
        return super()._solve(c, d, r, k, torch.lerp(present, straight, better))

    @override
    def branches(self, c: Tensor, d: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [(low.clamp(max=0), high.clamp(max=0)) for low, high in super().branches(c, d)]

    @override
    def inverse(self, v: Tensor) -> Tensor:
        return torch.where(v >= 0, v, (v.clamp(-self.alpha, 0) / self.alpha).log1p())


class _Dipped(Smooth):
    """A function that falls from 0 to a small negative value and then rises to ``z``, such as GELU and SiLU."""

    # Left of minus this number the function no longer changes in double precision.
    flat: float
    # Where it is least.
    dip: float

    @override
    def branches(self, c: Tensor, d: Tensor) -> list[tuple[Tensor, Tensor]]:
        dip = torch.full_like(c, self.dip)
        # h(z) >= z - 0.3, so right of d + 0.3, of the dip and of c both terms rise.
        return [(c.clamp(max=-self.flat), dip), (dip, torch.maximum(c, (d + 0.3).clamp_(min=self.dip)))]

    @override
    def interval(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        raise ValueError(
            f"{type(self).__name__}: h is not monotone, so a band around it is no interval; use coupling='exact'"
        )


class GELU(_Dipped):
    """``h(z) = z Phi(z)``, with the normal distribution function or its tanh approximation.

    Args:
        approximate: Whether by tanh.
    """

    flat, dip = 9.0, -0.75

    def __init__(self, approximate: bool = False) -> None:
        super().__init__((-4.0, 4.0), 12)
        self.approximate = approximate

    @override
    def forward(self, z: Tensor) -> Tensor:
        return functional.gelu(z, approximate="tanh" if self.approximate else "none")

    @override
    def jet(self, z: Tensor) -> Jet:
        if not self.approximate:
            below = torch.special.ndtr(z)
            density = (z * z).mul_(-0.5).exp_().mul_(1 / sqrt(2 * pi))
            return Jet(z * below, below + z * density, density * (2 - z * z))
        root, cubic = sqrt(2 / pi), 0.044715
        tanh = ((z**3).mul_(cubic).add_(z).mul_(root)).tanh_()
        rise, bow = root * (1 + 3 * cubic * z * z), root * 6 * cubic * z
        rest = 1 - tanh * tanh
        first = (1 + tanh + z * rest * rise) / 2
        return Jet(z * (1 + tanh) / 2, first, rest * (rise + z * (bow / 2 - tanh * rise * rise)))


class SiLU(_Dipped):
    """``h(z) = z / (1 + exp(-z))``."""

    flat, dip = 45.0, -1.2785

    def __init__(self) -> None:
        super().__init__((-9.0, 7.0), 12)

    @override
    def forward(self, z: Tensor) -> Tensor:
        return functional.silu(z)

    @override
    def jet(self, z: Tensor) -> Jet:
        s = z.sigmoid()
        first = s * (1 - s)
        return Jet(z * s, s + z * first, first * (2 + z * (1 - 2 * s)))


def _slack(x: Tensor) -> float:
    """Costs are flat around a minimizer: among equal ones, up to rounding, Newton's point is far more accurate."""
    return 1 + 4 * torch.finfo(x.dtype).eps


def _entries(x: Any, which: Tensor, like: Tensor) -> Any:
    """Some entries of a tensor that broadcasts to the shape of ``like``; a number stays."""
    return x.expand_as(like).flatten()[which] if isinstance(x, Tensor) and x.ndim else x
