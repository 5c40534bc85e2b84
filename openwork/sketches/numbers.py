"""Random numbers of a key: uniform, normal, permutations."""

import torch
from torch import Tensor

from openwork.sketches.key import Key

# Of splitmix64, as signed numbers of 64 bits: products and sums of int64 wrap around.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)
_SIGNED = 1 << 63


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


__all__ = ["normal", "permutation", "uniform"]
