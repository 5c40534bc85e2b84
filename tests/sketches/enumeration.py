"""All draws of a law and their probabilities, from the definition and not from the code under test."""

from collections import Counter
from collections.abc import Iterator
from itertools import combinations, pairwise, permutations, product
from math import ceil, floor, prod

import torch
from torch import Tensor

from openwork.sketches import Bernoulli, DiagonalSketch, Group, Identity, Mixture, Nested, PermK, Pool, RandK

Row = tuple[float, ...]


def outcomes(law: DiagonalSketch, size: int, worker: int = 0) -> tuple[Tensor, Tensor]:
    """Diagonals ``(N, size)`` and their probabilities ``(N,)``, float64."""
    found: Counter[Row] = Counter()
    for probability, row in _outcomes(law, size, worker):
        found[row] += probability  # pyright: ignore[reportArgumentType]
    rows = torch.tensor(list(found), dtype=torch.float64)
    return rows, torch.tensor(list(found.values()), dtype=torch.float64)


def _outcomes(law: DiagonalSketch, size: int, worker: int) -> Iterator[tuple[float, Row]]:
    match law:
        case Identity():
            yield 1.0, (1.0,) * size
        case RandK(keep):
            k = keep if isinstance(keep, int) else ceil(round(keep * size, 6))
            subsets = list(combinations(range(size), k))
            for kept in subsets:
                yield 1 / len(subsets), _row(size, kept, size / k)
        case Bernoulli(p):
            each = p.tolist() if isinstance(p, Tensor) else [p] * size
            for mask in product((True, False), repeat=size):
                weight = prod(q if kept else 1 - q for q, kept in zip(each, mask, strict=True))
                row = tuple(1 / q if kept else 0.0 for q, kept in zip(each, mask, strict=True))
                if weight > 0:
                    yield weight, row
        case Nested(ratios):
            counts = [ceil(round(ratio * size, 6)) for ratio in ratios]
            p = [sum(w for c, w in zip(counts, law.probabilities, strict=True) if c > at) for at in range(size)]
            for count, weight in zip(counts, law.probabilities, strict=True):
                yield weight, tuple(1 / p[at] if at < count else 0.0 for at in range(size))
        case Mixture(sketches, weights):
            for one, weight in zip(sketches, weights, strict=True):
                for probability, row in _outcomes(one, size, worker):
                    yield weight * probability, row
        case Group(inner, groups):
            labels = groups.tolist() if isinstance(groups, Tensor) else [at // groups for at in range(size)]
            for probability, row in _outcomes(inner, max(labels) + 1, worker):
                yield probability, tuple(row[label] for label in labels)
        case Pool():
            for draw, weight in zip(law.draws, law.probabilities.tolist(), strict=True):
                yield weight, tuple(draw.apply(torch.ones(size, dtype=torch.float64)).tolist())
        case PermK():
            yield from _perm_k(law, size, worker)
        case _:
            raise TypeError(law)


def _perm_k(law: PermK, size: int, worker: int) -> Iterator[tuple[float, Row]]:
    n = law.workers
    if law.shares is not None:
        bounds = [size * sum(law.shares[:at]) for at in range(n + 1)]
        # The shares change where a boundary passes a whole number.
        steps = sorted({0.0, 1.0, *(1 - bound % 1 for bound in bounds)})
        orders = list(permutations(range(size)))
        for low, high in pairwise(steps):
            first, last = (floor(round(bounds[worker + i] + (low + high) / 2, 9)) for i in (0, 1))
            for order in orders:
                yield (high - low) / len(orders), _row(size, order[first:last], 1 / law.shares[worker])
        return
    if n % size == 0:
        slots, each, scale = [at % size for at in range(n)], 1, size
    else:
        each = ceil(size / n)
        slots, scale = list(range(each * n)), n
    orders = list(permutations(slots))
    for order in orders:
        mine = [at for at in order[worker * each : (worker + 1) * each] if at < size]
        yield 1 / len(orders), _row(size, mine, scale)


def _row(size: int, kept: list[int] | tuple[int, ...], scale: float) -> Row:
    return tuple(float(scale) if at in kept else 0.0 for at in range(size))
