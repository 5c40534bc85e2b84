"""The three inertial steps of a block, how they change over the sweeps, and where they are stable."""

import warnings
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from openwork.kernels import Scalar

__all__ = ["Inertia", "InertiaSchedule", "Iterate", "Nesterov"]


@dataclass(frozen=True, eq=False)
class Iterate:
    """A block of variables and where it was one sweep ago.

    Args:
        now: The block.
        before: The block one sweep ago, after its third step; None without a history.
    """

    now: Tensor
    before: Tensor | None = None

    def ahead(self, p: Scalar) -> Tensor:
        """The point ``now + p (now - before)``; ``now`` itself without a history."""
        return self.now if _none(p) or self.before is None else self.before.lerp(self.now, 1 + p)

    def shifted(self, point: Tensor, p: Scalar) -> Tensor:
        """The point ``point + p (now - before)``; ``point`` itself without a history."""
        return point if _none(p) or self.before is None else (self.now - self.before).mul_(p).add_(point)

    def move(self, to: Tensor) -> "Iterate":
        """The block one sweep later."""
        return Iterate(to, self.now)

    def rest(self) -> "Iterate":
        """The block without its history."""
        return Iterate(self.now)


class InertiaSchedule(Protocol):
    """Inertia that may depend on the number of sweeps since the last restart."""

    def at(self, clock: int) -> "Inertia":
        """The inertia of one sweep.

        Args:
            clock: Sweeps since the start or the last restart.
        """
        ...

    def unstable(self) -> str | None:
        """The bound of the stable region that is broken, in words; None inside the region."""
        ...


@dataclass(frozen=True)
class Inertia:
    """Three inertial steps of a block ``u`` with smooth part f and step size eta.

    The step starts at ``u + p1 (u - u_before)`` with the gradient of f at ``u + p2 (u - u_before)``, its end ``ubar``
    is the proximal point of the rest, and the block becomes ``ubar + p3 (ubar - u)``. (0, 0, 0) is plain alternating
    minimization, (w, w, 0) Nesterov's acceleration, (w, 0, 0) heavy ball, (0, 0, p3) over-relaxation.

    Args:
        p1: Inertia of the point that the step starts from, >= 0.
        p2: Inertia of the point where the gradient is taken, >= 0.
        p3: Relaxation, >= 0.

    Raises:
        ValueError: If one is negative or not finite.

    References:
        Yan, Xu, Wang & Peng, TIAM, arXiv:2503.08489, the inertial block step.
    """

    p1: float = 0.0
    p2: float = 0.0
    p3: float = 0.0

    def __post_init__(self) -> None:
        for name in ("p1", "p2", "p3"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"Inertia: {name} must be finite and >= 0, got {getattr(self, name)}")

    def at(self, clock: int) -> "Inertia":
        """This inertia, in every sweep.

        Args:
            clock: Sweeps since the start or the last restart.
        """
        return self

    @property
    def none(self) -> bool:
        """Whether this is plain alternating minimization."""
        return self.p1 == self.p2 == self.p3 == 0

    @property
    def shift(self) -> float:
        """What is left of the first two steps in a block that is minimized exactly."""
        return self.p1 - self.p2

    def relaxed(self, point: Tensor, now: Tensor) -> Tensor:
        """The third step, ``point + p3 (point - now)``."""
        return relaxed(point, now, self.p3)

    def without_relaxation(self) -> "Inertia":
        """The first two steps alone."""
        return Inertia(self.p1, self.p2)

    def unstable(self) -> str | None:
        """The bound of the stable region that is broken, in words; None inside the region.

        On a quadratic with relative curvature c = eta h in (0, 1] the step is a linear recursion, whose characteristic
        polynomial is ``r^2 - (1 - c (1 + p3) + B) r + B`` with ``B = (1 + p3)(p1 - c p2)``. Its roots are inside the
        unit circle for all c iff the three bounds hold.
        """
        p1, p2, p3 = self.p1, self.p2, self.p3
        for text, value, bound in (
            ("(1 + p3) p1 < 1", (1 + p3) * p1, 1),
            ("(1 + p3) |p1 - p2| < 1", (1 + p3) * abs(p1 - p2), 1),
            ("(1 + p3)(1 + 2 p2 - 2 p1) < 2", (1 + p3) * (1 + 2 * p2 - 2 * p1), 2),
        ):
            if not value < bound:
                return f"({p1:g}, {p2:g}, {p3:g}) breaks {text}, the left side is {value:.4g}"
        return None


@dataclass(frozen=True)
class Nesterov:
    """Nesterov's ``p1 = p2 = (t_k - 1) / t_{k+1}`` with ``t_{k+1} = (1 + sqrt(1 + 4 t_k^2)) / 2`` and ``t_0 = 1``.

    Args:
        p3: Relaxation, >= 0.

    Raises:
        ValueError: If ``p3`` is negative or not finite.
    """

    p3: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.p3 < float("inf"):
            raise ValueError(f"Nesterov: p3 must be finite and >= 0, got {self.p3}")

    def at(self, clock: int) -> Inertia:
        """The inertia of one sweep.

        Args:
            clock: Sweeps since the start or the last restart; 0 has no inertia.
        """
        t = following = 1.0
        for _ in range(clock + 1):
            t, following = following, (1 + (1 + 4 * following * following) ** 0.5) / 2
        weight = (t - 1) / following
        return Inertia(weight, weight, self.p3)

    def unstable(self) -> str | None:
        """The bound that the weights break as they grow to 1; None if there is none."""
        return (
            None if self.p3 == 0 else f"Nesterov weights grow to 1, and (1 + p3) p1 < 1 fails then for p3 = {self.p3:g}"
        )


def relaxed(point: Tensor, now: Tensor, p3: Scalar) -> Tensor:
    """The third step, ``point + p3 (point - now)``."""
    return point if _none(p3) else now.lerp(point, 1 + p3)


def _none(p: Scalar) -> bool:
    """Whether there is no inertia; a number in a tensor is not read."""
    return not isinstance(p, Tensor) and p == 0


def check_stability(place: str, inertia: InertiaSchedule) -> None:
    """Warn of inertia that is known to oscillate.

    Warns:
        UserWarning: If it is outside the stable region.
    """
    broken = inertia.unstable()
    if broken is not None:
        warnings.warn(
            f"{place}: inertia {broken}; many sweeps will be thrown away and repeated without inertia, so take "
            "p1 = p2 = 0.95 / (1 + p3)",
            stacklevel=3,
        )
