"""What a penalty is."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from math import prod
from typing import NamedTuple, Self

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Scalar, Term, regions
from openwork.partitions import Cut, Partition, Stacked
from openwork.penalties.pieces import Piece, Strip, pack
from openwork.structure import Rank, Structure, Support

# Equal tensors up to this many entries are solved as one stack, which costs a copy and saves a launch each.
STACK_LIMIT = 1 << 16


class Solution(NamedTuple):
    """The minimizer of one subproblem, and what a caller would otherwise read off in a second pass.

    Args:
        x: The minimizer, with exact zeros.
        kept: One boolean per group (or per singular value); False where it is zero.
        residual: Norm of a subgradient of the subproblem at ``x``: per group, or 0-dim for the whole weight.
    """

    x: Tensor
    kept: Tensor
    residual: Tensor


class Part(NamedTuple):
    """What is solved in one call.

    Args:
        penalty: One for a list of the pieces.
        pieces: Views of the weights, disjoint from those of other parts.
    """

    penalty: "Penalty"
    pieces: tuple[Piece, ...]


class Penalty(ABC):
    """A function ``f >= 0`` of one weight with ``f(0) = 0``, known by its value, its prox and the structure it leaves.

    Subclasses are frozen dataclasses: configuration, not state.
    """

    #: Whether weights are penalized independently, so that an optimizer may hand them over in several calls.
    separable = True

    @property
    def convex(self) -> bool:
        """Whether ``f`` is convex."""
        return True

    @property
    def joins(self) -> bool:
        """Whether entries of several weights form a group, so that it takes the list of all of them, in order."""
        return False

    @abstractmethod
    def value(self, x: Tensor) -> Tensor:
        """The penalty ``f(x)``, a 0-dim tensor."""

    @abstractmethod
    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        """The proximal point, ``argmin_z f(z) + ||z - x||^2 / (2 step)``.

        Args:
            x: The point.
            step: Step size, >= 0; 0 returns ``x``.

        Returns:
            A tensor like ``x`` whose dropped structure is exactly zero.
        """

    @abstractmethod
    def structure(self, x: Tensor) -> Structure:
        """What survives in ``x``."""

    def prox_list(self, xs: Sequence[Tensor], step: Scalar) -> list[Solution]:
        """The proximal points of several weights, one call for all."""
        return [self._prox_solution(x, step) for x in xs]

    def _prox_solution(self, x: Tensor, step: Scalar) -> Solution:
        point = self.prox(x, step)
        return Solution(point, self.structure(point).kept, point.new_zeros(()))

    def check(self, x: Tensor) -> None:  # noqa: B027, every weight fits unless a subclass says otherwise
        """Refuse a weight that this penalty does not fit.

        Raises:
            ValueError: If its groups do not tile ``x``.
        """

    def cut(self, shape: Sequence[int]) -> Cut | None:
        """Where a weight of this shape may be cut into pieces that are penalized independently; None if nowhere."""
        return None

    def regroup(self, groups: Partition) -> Self:
        """This penalty on another partition; itself if it has none."""
        return self

    def read(self, kept: Tensor) -> Structure:
        """The structure that a solution's ``kept`` stands for: singular values, unless a subclass says otherwise."""
        return Rank(kept)

    def split(self, shapes: Sequence[Sequence[int]], limit: int | None) -> Iterator[Part]:
        """Divide a list of weights into parts that can be solved one after the other.

        Args:
            shapes: Of the weights.
            limit: Entries in a part, about; None for as many as can be, 0 for one weight per part.

        Yields:
            Parts that hold every entry once, the pieces of a weight in the order in which their ``kept`` are joined.
        """
        if not self.separable:
            limit = None
        sized = (piece for position, shape in enumerate(shapes) for piece in self._cut_up(position, shape, limit))
        for pieces in pack(sized, limit):
            yield Part(self, tuple(pieces))

    def _cut_up(self, position: int, shape: Sequence[int], limit: int | None) -> Iterator[tuple[Piece, int]]:
        size = prod(shape)
        cut = self.cut(shape) if limit and size > limit else None
        if cut is None or not limit:
            yield Piece(position), size
            return
        row, length = size // shape[cut.dim], shape[cut.dim]
        step = max(1, limit // (row * cut.unit)) * cut.unit
        for start in range(0, length, step):
            width = min(step, length - start)
            yield Strip(position, cut.dim, width, start), row * width

    def terms(self, weights: Sequence[Tensor]) -> list[Term] | None:
        """This penalty as lassos and group norms over regions of all weights, for fused kernels; None if it is not."""
        return None

    def kept_terms(self, weights: int) -> list[list[int]]:
        """Which terms say what each weight keeps, in the order in which its ``kept`` has them.

        Args:
            weights: How many there are.
        """
        return [[number] for number in range(weights)]

    def kept_list(self, xs: Sequence[Tensor]) -> list[Tensor]:
        """What ``Solution.kept`` is of weights that are solutions.

        Args:
            xs: All weights.

        Returns:
            One tensor per weight.
        """
        return [self.structure(x).kept for x in xs]

    def read_list(self, kept: Sequence[Tensor]) -> list[Structure]:
        """The structures that all weights' ``kept`` stand for; see ``read``."""
        return [self.read(one) for one in kept]

    def distinct(self, kept: Sequence[Tensor]) -> list[Tensor]:
        """All weights' ``kept``, in which a group that has entries in several weights comes once."""
        return list(kept)


class DiagonalProx(Penalty):
    """A penalty that also solves ``argmin_x 0.5 x'Dx - b'x + weight f(x)`` for a diagonal metric D.

    It takes the dual quantity ``b``, never ``b / d``, since ``d`` can be tiny.
    """

    @override
    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        return self._prox_solution(x, step).x

    @override
    def _prox_solution(self, x: Tensor, step: Scalar) -> Solution:
        return self.solve(x, torch.ones_like(x), step)

    def metrics(self, d: list[Tensor]) -> list[Tensor]:
        """The metrics this penalty solves for, to be asked before ``b`` is formed from them.

        Args:
            d: Diagonals, one per weight.

        Returns:
            ``d``, or what replaces it where a penalty has a closed form only for simpler metrics.
        """
        return d

    @abstractmethod
    def solve(self, b: Tensor, d: Tensor, weight: Scalar, start: Tensor | None = None) -> Solution:
        """Solve the subproblem of one weight.

        Args:
            b: Any shape that the penalty fits.
            d: Diagonal of the metric, shaped like ``b``, >= 0; ``b`` must vanish where it does, and there ``x = 0``.
            weight: Factor of the penalty, >= 0.
            start: A point whose objective the solution must not exceed; solvers that are exact ignore it.

        Returns:
            The solution.
        """

    def solve_(
        self, b: list[Tensor], d: list[Tensor], weight: Scalar, start: list[Tensor] | None = None
    ) -> list[Solution]:
        """Solve the subproblems of several weights; small ones of equal shape as one.

        Args:
            b: One tensor per weight; may be overwritten.
            d: Metrics, matching ``b``; may be overwritten.
            weight: Factor of the penalty, >= 0.
            start: Points whose objectives the solutions must not exceed.

        Returns:
            One solution per weight, in order.
        """
        solutions: dict[int, Solution] = {}
        for indices in _equal_shapes(b):
            together = self.stacked() if len(indices) > 1 and b[indices[0]].numel() <= STACK_LIMIT else None
            if together is None:
                for i in indices:
                    solutions[i] = self.solve(b[i], d[i], weight, None if start is None else start[i])
                continue
            b_stack, d_stack = (torch.stack([xs[i] for i in indices]) for xs in (b, d))
            start_stack = None if start is None else torch.stack([start[i] for i in indices])
            x, kept, residual = together.solve(b_stack, d_stack, weight, start_stack)
            for i, *parts in zip(indices, x, kept, residual.expand(len(indices), *residual.shape[1:]), strict=True):
                solutions[i] = Solution(*parts)
        return [solutions[i] for i in range(len(b))]

    def stacked(self) -> "DiagonalProx | None":
        """This penalty on a stack of equal weights (along a new first axis); None if it cannot tell them apart."""
        return None


class DropsGroups(DiagonalProx):
    """A penalty that drops whole groups, each at a weight that can be told."""

    @abstractmethod
    def criticals(self, b: list[Tensor], d: list[Tensor]) -> list[Tensor]:
        """The weights of the penalty at which groups become zero.

        Args:
            b: One tensor per weight, as for ``solve_``.
            d: Metrics.

        Returns:
            Numbers >= 0, one per group, in any number of tensors.
        """


class GroupPenalty(DropsGroups):
    """A penalty that drops whole groups of a partition, which a dataclass field or class attribute names.

    Its value is a sum over groups, depends on magnitudes of entries only, and does not fall as one grows. Wherever a
    weight of the penalty or a step is asked for, it may also be a tensor with one number per group.
    """

    groups: Partition

    @abstractmethod
    def critical(self, b: Tensor, d: Tensor) -> Tensor:
        """The weight at which each group becomes zero.

        Args:
            b: Any shape that the groups tile.
            d: Metric, as in ``solve``.

        Returns:
            One number >= 0 per group: ``solve`` drops the group iff its ``weight`` is at least that; infinite if never.
        """

    @override
    def criticals(self, b: list[Tensor], d: list[Tensor]) -> list[Tensor]:
        return [self.critical(*pair) for pair in zip(b, d, strict=True)]

    def counting_as(self, size: int | None) -> Self:
        """This penalty with groups that count as having so many entries, or as many as they have if it is None.

        It is itself if their number does not matter.
        """
        known = {field.name for field in fields(self)}  # pyright: ignore
        return replace(self, counts_as=size) if "counts_as" in known else self  # pyright: ignore

    def strengths(self, size: Scalar) -> tuple[float, Scalar] | None:
        """Strengths of lasso and group norm that this penalty is for groups of a size; None if it is not these.

        Args:
            size: Number of entries; one number, or one for each group.

        Returns:
            Numbers >= 0; the second for each group where sizes differ.
        """
        return None

    @override
    def terms(self, weights: Sequence[Tensor]) -> list[Term] | None:
        found: list[Term] = []
        for position, weight in enumerate(weights):
            layout = self.groups.layout(weight.shape)
            view = weight.detach().view(layout.shape)
            strengths = self.strengths(self.groups.size(weight.shape))
            where = regions(position, 0, view.shape, view.stride(), layout.axes)
            if strengths is None or where is None:
                return None
            lasso, norm = strengths
            found.append(Term("groups", where, lasso, float(norm), layout.grid))
        return found

    @override
    def structure(self, x: Tensor) -> Structure:
        return Support(self.groups, self.groups.any(x))

    @override
    def read(self, kept: Tensor) -> Structure:
        return Support(self.groups, kept)

    @override
    def check(self, x: Tensor) -> None:
        self.groups.layout(x.shape)

    @override
    def cut(self, shape: Sequence[int]) -> Cut | None:
        return self.groups.cut(shape)

    @override
    def regroup(self, groups: Partition) -> Self:
        return replace(self, groups=groups)  # pyright: ignore

    @override
    def stacked(self) -> DiagonalProx | None:
        return self.regroup(Stacked(self.groups))


def metric_quotient(b: Tensor, d: Tensor) -> Tensor:
    """``b / d``, and 0 where ``d`` is 0: the minimizer without a penalty."""
    return torch.where(d > 0, b / d, 0.0)


def check_strength(penalty: object, **strengths: float) -> None:
    """Refuse a strength that is negative or not a number.

    Raises:
        ValueError: If a strength is not >= 0.
    """
    for name, value in strengths.items():
        if not value >= 0:
            raise ValueError(f"{type(penalty).__name__}: {name} must be >= 0, got {value}")


def _equal_shapes(tensors: list[Tensor]) -> list[list[int]]:
    """Indices of tensors that agree in shape, dtype and device."""
    buckets: dict[tuple[object, ...], list[int]] = {}
    for i, x in enumerate(tensors):
        buckets.setdefault((x.shape, x.dtype, x.device), []).append(i)
    return list(buckets.values())
