"""Activations made of straight pieces, solved exactly."""

from collections.abc import Sequence
from itertools import pairwise
from math import inf, isfinite
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from openwork.altmin.elementwise import Activation, above, above_
from openwork.altmin.entrywise import in_runs
from openwork.kernels import Scalar


class Piece(NamedTuple):
    """A straight piece ``h(z) = slope z + intercept`` for ``low <= z < high``.

    Args:
        slope: Slope; a tensor has one number per channel.
        intercept: Value at ``z = 0`` of the line.
        low: Left end.
        high: Right end, excluded.
    """

    slope: Scalar
    intercept: float
    low: float
    high: float


class PiecewiseLinear(Activation):
    """A function made of straight pieces; jumps between them, and gaps that ``z`` must keep out of, are allowed.

    Args:
        pieces: The pieces from left to right; the first has no left end, the last no right end.

    Raises:
        ValueError: If there is none, or they are out of order or do not reach to infinity.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        ordered = all(a.high <= b.low for a, b in pairwise(pieces)) and all(piece.low < piece.high for piece in pieces)
        if not pieces or not ordered or (pieces[0].low, pieces[-1].high) != (-inf, inf):
            raise ValueError(
                "PiecewiseLinear: pieces must lie from left to right without overlap, the first with low=-inf and the "
                f"last with high=inf, got {list(pieces)}"
            )
        self._fixed = tuple(pieces)

    @property
    @override
    def homogeneous(self) -> bool:
        return all(piece.intercept == 0 and {piece.low, piece.high} <= {-inf, 0, inf} for piece in self._fixed)

    def pieces(self, ndim: int) -> tuple[Piece, ...]:
        """The pieces, from left to right.

        Args:
            ndim: Dimensions of the tensor they meet, so that slopes per channel lie along dimension 1.
        """
        return self._fixed

    @override
    def forward(self, z: Tensor) -> Tensor:
        out = torch.zeros_like(z)
        pieces = self.pieces(z.ndim)
        for i, piece in enumerate(pieces):
            # A gap belongs to the nearer of its two neighbors.
            low = piece.low if i == 0 else (pieces[i - 1].high + piece.low) / 2
            out = torch.where(z >= low, z * piece.slope + piece.intercept, out)
        return out

    @override
    def solve(self, c: Tensor, d: Tensor, r: Scalar, k: Scalar, z: Tensor) -> Tensor:
        return in_runs(lambda c, d: (self._solve(c, d, r, k),), c, d)[0]

    def _solve(self, c: Tensor, d: Tensor, r: Scalar, k: Scalar) -> Tensor:
        best = lowest = None
        for slope, intercept, low, high in self.pieces(c.ndim):
            scale = r + k * slope * slope
            z = (d - intercept).mul_(k * slope / scale).add_(c * (r / scale))
            z.clamp_(low, _below(high, z.dtype))
            cost = (z - c).square_().mul_(r).add_((z * slope).sub_(d).add_(intercept).square_().mul_(k))
            if best is None or lowest is None:
                best, lowest = z, cost
            else:
                best.lerp_(z, above(lowest, cost))
                lowest = torch.minimum(cost, lowest)
        return c.clone() if best is None else best

    @override
    def interval(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        pieces = self.pieces(low.ndim)
        self._check_monotone(pieces)
        # Bounds outside the range of h, where rounding may put them, mean the ends of the range.
        first, last = (_value(piece, end) for piece, end in ((pieces[0], -inf), (pieces[-1], inf)))
        low, high = low.clamp(max=last), high.clamp(min=first)
        slack = 8 * torch.finfo(low.dtype).eps
        start, stop = torch.full_like(low, inf), torch.full_like(high, -inf)
        for piece in pieces:
            slope, intercept, left, right = piece
            right = _below(right, low.dtype)
            if isinstance(slope, float | int) and slope == 0:
                # The value of a step is met up to rounding.
                reached = slack * (1 + abs(intercept))
                start = torch.where(low <= intercept + reached, start.clamp(max=left), start)
                stop = torch.where(high >= intercept - reached, stop.clamp(min=right), stop)
            else:
                # Where the line is crossed, if that lies on this piece or, for the bound, beyond its near end.
                at_low, at_high = (low - intercept) / slope, (high - intercept) / slope
                start = torch.where(at_low <= right, torch.minimum(start, at_low.clamp(min=left)), start)
                stop = torch.where(at_high >= left, torch.maximum(stop, at_high.clamp(max=right)), stop)
        # Flat ends reach to infinity; a bound below (above) all values is no bound.
        return torch.where(low <= first, -inf, start), torch.where(high >= last, inf, stop)

    def _check_monotone(self, pieces: tuple[Piece, ...]) -> None:
        rising = all(isinstance(piece.slope, Tensor) or piece.slope >= 0 for piece in pieces)
        if not rising or any(_value(a, a.high) > _value(b, b.low) + 1e-12 for a, b in pairwise(pieces)):
            raise ValueError(
                f"{type(self).__name__}: h is not monotone, so a band around it is no interval; use coupling='exact'"
            )


class ReLU(PiecewiseLinear):
    """``h(z) = max(z, 0)``."""

    def __init__(self) -> None:
        super().__init__((Piece(0.0, 0.0, -inf, 0.0), Piece(1.0, 0.0, 0.0, inf)))

    @override
    def forward(self, z: Tensor) -> Tensor:
        return z.clamp(min=0)

    @override
    def solve(self, c: Tensor, d: Tensor, r: Scalar, k: Scalar, z: Tensor) -> Tensor:
        return in_runs(lambda c, d: (_two_pieces(c, d, 0.0, r, k),), c, d)[0]

    @override
    def interval(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(low > 0, low, -inf), high.clamp(min=0)


class LeakyReLU(PiecewiseLinear):
    """``h(z) = z`` for ``z >= 0`` and ``slope z`` below.

    Args:
        slope: Slope on the left; a tensor of one number, or of one per channel (dimension 1), is read at each use.
    """

    def __init__(self, slope: Scalar) -> None:
        super().__init__((Piece(0.0, 0.0, -inf, 0.0), Piece(1.0, 0.0, 0.0, inf)))
        self.slope = slope
        self._rising: bool | None = None

    @override
    def pieces(self, ndim: int) -> tuple[Piece, ...]:
        slope = self.slope
        if isinstance(slope, Tensor):
            slope = slope.detach().view(-1, *(1,) * (ndim - 2)) if slope.numel() > 1 else slope.detach().view(())
        return Piece(slope, 0.0, -inf, 0.0), self._fixed[1]

    @override
    def forward(self, z: Tensor) -> Tensor:
        return z.clamp(min=0).add_(z.clamp(max=0).mul_(self.pieces(z.ndim)[0].slope))

    @override
    def solve(self, c: Tensor, d: Tensor, r: Scalar, k: Scalar, z: Tensor) -> Tensor:
        slope = self.pieces(c.ndim)[0].slope
        return in_runs(lambda c, d: (_two_pieces(c, d, slope, r, k),), c, d)[0]

    @override
    def interval(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        left = self.pieces(low.ndim)[0].slope
        if self._rising is None:  # read once, since that waits for the device
            self._rising = bool((torch.as_tensor(left) > 0).all())
        if not self._rising:
            raise ValueError(
                "LeakyReLU: the band coupling needs slopes > 0; use coupling='exact', or ReLU if the slope is 0"
            )
        return torch.where(low >= 0, low, low / left), torch.where(high >= 0, high, high / left)


class Identity(PiecewiseLinear):
    """``h(z) = z``: two weight layers in a row."""

    def __init__(self) -> None:
        super().__init__((Piece(1.0, 0.0, -inf, inf),))

    @override
    def forward(self, z: Tensor) -> Tensor:
        return z.clone()


class Clip(PiecewiseLinear):
    """``h(z) = min(max(z, low), high)``: ReLU6 and hardtanh.

    Args:
        low: Least value.
        high: Largest value, above ``low``.
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__((Piece(0.0, low, -inf, low), Piece(1.0, 0.0, low, high), Piece(0.0, high, high, inf)))
        self.low, self.high = low, high

    @override
    def forward(self, z: Tensor) -> Tensor:
        return z.clamp(self.low, self.high)


class Steps(PiecewiseLinear):
    """A step function whose jumps lie halfway between its values.

    Args:
        levels: The values, increasing.

    Raises:
        ValueError: If there are fewer than two, or they do not increase.
    """

    def __init__(self, levels: Sequence[float]) -> None:
        if len(levels) < 2 or not all(a < b for a, b in pairwise(levels)) or not all(map(isfinite, levels)):
            raise ValueError(f"Quantizer: levels must be two or more finite increasing numbers, got {list(levels)}")
        self.levels = tuple(float(level) for level in levels)
        self.jumps = tuple((a + b) / 2 for a, b in pairwise(self.levels))
        ends = (-inf, *self.jumps, inf)
        super().__init__(
            [Piece(0.0, level, low, high) for level, (low, high) in zip(self.levels, pairwise(ends), strict=True)]
        )

    @override
    def forward(self, z: Tensor) -> Tensor:
        # The derivative of sign is zero and not absent, so backpropagation runs through and finds nothing.
        out = z.sign() * 0 + self.levels[0]
        for jump, level in zip(self.jumps, self.levels[1:], strict=True):
            out = torch.where(z >= jump, level, out)
        return out


class SignSteps(PiecewiseLinear):
    """``h(z) = sign(z)`` with ``h(0) = 1``, or a ramp ``min(max(slope z, -1), 1)`` on the way to it.

    Sign is free of scale, so ``z`` may be kept out of ``(-margin, margin)``: without a margin the targets pile up at
    zero, where the layer before learns nothing decisive.

    Args:
        margin: Half width of the gap, >= 0; applies when ``slope`` is infinite.

    Raises:
        ValueError: If ``margin`` is negative or infinite.
    """

    def __init__(self, margin: float) -> None:
        if not 0 <= margin < inf:
            raise ValueError(f"Sign: margin must be >= 0 and finite, got {margin}")
        super().__init__((Piece(0.0, -1.0, -inf, -margin), Piece(0.0, 1.0, margin, inf)))
        self.margin = margin
        self._slope = inf

    @property
    def slope(self) -> float:
        """Slope of the ramp, > 0; infinite for sign itself."""
        return self._slope

    @slope.setter
    def slope(self, slope: float) -> None:
        if not slope > 0:
            raise ValueError(f"Sign: slope must be > 0, got {slope}")
        self._slope = slope

    @override
    def pieces(self, ndim: int) -> tuple[Piece, ...]:
        if self.slope == inf:
            return self._fixed
        end = 1 / self.slope
        return Piece(0.0, -1.0, -inf, -end), Piece(self.slope, 0.0, -end, end), Piece(0.0, 1.0, end, inf)

    @override
    def forward(self, z: Tensor) -> Tensor:
        # Differentiated, sign gives zeros.
        return z.sign() + (z == 0) if self.slope == inf else (z * self.slope).clamp(-1, 1)

    @override
    def project(self, z: Tensor) -> Tensor:
        if self.slope < inf or self.margin == 0:
            return z
        margin = z.abs().clamp_(min=self.margin)
        return torch.where(z >= 0, margin, -margin)


def _two_pieces(c: Tensor, d: Tensor, slope: Scalar, r: Scalar, k: Scalar) -> Tensor:
    """The problem of ``Activation.solve`` for slope 1 on the right of zero and ``slope`` on the left.

    From zero, the right piece lowers the cost by ``(r + k) right^2 / 2`` and the left one by
    ``(r + k slope^2) left^2 / 2``, with their minimizers ``right >= 0 >= left``. Roots of both sides are linear.
    """
    steep = r + k
    right = torch.lerp(d, c, r / steep).clamp_(min=0)
    if isinstance(slope, Tensor) or slope:
        flat = r + k * slope * slope
        left = (c * (r / flat)).add_(d * (k * slope / flat)).clamp_(max=0)
    else:
        flat, left = r, c.clamp(max=0)
    root, other = steep**0.5, flat**0.5
    better = torch.lerp(left, right, root / (root + other))
    return left.lerp_(right, above_(better, 0))


def _below(end: float, dtype: torch.dtype) -> float:
    """A number just below a finite ``end``; of 0, one that no flushing of small numbers turns into 0."""
    info = torch.finfo(dtype)
    return end - abs(end) * info.eps if end not in (0, inf) else end or -info.tiny


def _value(piece: Piece, z: float) -> float:
    """The value of a piece's line; at infinity, of a piece with slopes per channel, that of a rising line."""
    slope = piece.slope
    if isinstance(slope, Tensor):
        return z if z in (-inf, inf) else piece.intercept
    return piece.intercept if slope == 0 else slope * z + piece.intercept
