"""Random numbers of a key: uniform, normal, permutations, subsets."""

import torch
from torch import Tensor

from openwork.sketches.key import Key

# Of splitmix64, as signed numbers of 64 bits: products and sums of int64 wrap around.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)
_SIGNED = 1 << 63

# Below this many entries a whole permutation is fast enough.
_MANY = 1 << 14


def uniform(key: Key, n: int, device: torch.device | str | None = None) -> Tensor:
    """Numbers in [0, 1).

    Args:
        key: What names them.
        n: How many, >= 0.
        device: Where.

    Returns:
        Float64, ``(n,)``.
    """
    if key.backend == "hash":
        return _shifted(_words(key, n, device), 11).to(torch.float64) * 2.0**-53
    return torch.rand(n, generator=_generator(key, device), device=device, dtype=torch.float64)


def normal(key: Key, n: int, device: torch.device | str | None = None) -> Tensor:
    """Standard normal numbers.

    Args:
        key: What names them.
        n: How many, >= 0.
        device: Where.

    Returns:
        Float64, ``(n,)``.
    """
    if key.backend == "hash":
        # Box and Muller; 1 - u is above 0.
        u = uniform(key, 2 * n, device)
        return (-2 * torch.log1p(-u[:n])).sqrt() * torch.cos(2 * torch.pi * u[n:])
    return torch.randn(n, generator=_generator(key, device), device=device, dtype=torch.float64)


def permutation(key: Key, n: int, device: torch.device | str | None = None) -> Tensor:
    """A random order of 0, ..., n - 1.

    Args:
        key: What names it.
        n: How many, >= 0.
        device: Where.

    Returns:
        Int64, ``(n,)``.
    """
    if key.backend == "hash":
        return torch.argsort(_words(key, n, device), stable=True)
    return torch.randperm(n, generator=_generator(key, device), device=device)


def chosen(key: Key, p: float | Tensor, n: int, device: torch.device | str | None = None) -> Tensor:
    """Each of n entries with probability p, independently.

    Args:
        key: What names the draw.
        p: In (0, 1]; a number, or float64 ``(n,)`` with one for each entry.
        n: How many, >= 0.
        device: Where.

    Returns:
        Booleans, ``(n,)``.
    """
    if isinstance(p, Tensor):
        return uniform(key, n, device) < p.to(device=device, dtype=torch.float64)
    if key.backend == "hash" or p >= 1:
        return uniform(key, n, device) < p
    # Whole numbers up to 2^63 cost half as much as floating-point ones.
    return _whole_numbers(key, n, torch.int64, device) < round(p * 2.0**63)


def subset(key: Key, k: int, n: int, device: torch.device | str | None = None) -> Tensor:
    """K of n entries, each set of k with the same probability.

    Args:
        key: What names the draw.
        k: How many, 0 to n.
        n: Out of how many.
        device: Where.

    Returns:
        Booleans, ``(n,)``.
    """
    if key.backend == "torch" and n >= _MANY and torch.device(device or "cpu").type == "cpu":
        return _large_subset(key, k, n) if 2 * k <= n else ~_large_subset(key, n - k, n)
    kept = torch.zeros(n, dtype=torch.bool, device=device)
    kept[permutation(key, n, device)[:k]] = True
    return kept


def _large_subset(key: Key, k: int, n: int) -> Tensor:
    """At most half of many entries, several times faster than by a permutation.

    Somewhat fewer than k are chosen independently of each other, then others are added one by one: whatever their
    number in the first round, no entry is preferred, so that all sets of k have the same probability.
    """
    generator = _generator(key, None)
    threshold = int(max(0.0, k - 4 * k**0.5) / n * 2**31)
    while True:
        kept = torch.empty(n, dtype=torch.int32).random_(generator=generator) < threshold
        missing = k - int(kept.count_nonzero())
        if missing >= 0:
            break
    while missing > 0:
        tried = torch.randint(n, (2 * missing + 16,), generator=generator)
        # A dictionary keeps the first of equal ones, in the order in which they came.
        added = list(dict.fromkeys(tried[~kept[tried]].tolist()))[:missing]
        kept[added] = True
        missing -= len(added)
    return kept


def _whole_numbers(key: Key, n: int, dtype: torch.dtype, device: torch.device | str | None) -> Tensor:
    return torch.empty(n, dtype=dtype, device=device).random_(generator=_generator(key, device))


def _words(key: Key, n: int, device: torch.device | str | None) -> Tensor:
    """Words of 64 bits, one for each index."""
    number = key.number
    start = number - (1 << 64) if number >= _SIGNED else number
    x = torch.arange(n, dtype=torch.int64, device=device) * _GOLDEN + start + _GOLDEN
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shifted to the right, with zeros coming in."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _generator(key: Key, device: torch.device | str | None) -> torch.Generator:
    return torch.Generator(device="cpu" if device is None else device).manual_seed(key.number)


__all__ = ["chosen", "normal", "permutation", "subset", "uniform"]
