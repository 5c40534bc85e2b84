"""Arithmetic on lists of tensors, with numbers or with 0-dim tensors that nobody may wait for."""

from math import inf

import torch
from torch import Tensor

from openwork.kernels import Scalar


def finite(tensors: list[Tensor]) -> Tensor:
    """Whether all numbers are finite, as a 0-dim boolean that nobody has to wait for.

    Args:
        tensors: Dense, at least one; the answer is on the device of the first that has numbers.
    """
    # The largest entry of each; an empty one has none.
    norms = torch._foreach_norm([x for x in tensors if x.numel()] or [torch.zeros(1)], inf)
    kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for norm in norms:
        kinds.setdefault((norm.device, norm.dtype), []).append(norm)
    found = [torch.stack(some).isfinite().all().to(norms[0].device) for some in kinds.values()]
    return found[0] if len(found) == 1 else torch.stack(found).all()


def add_scaled(starts: list[Tensor], terms: list[Tensor], factor: Scalar) -> list[Tensor]:
    """``start + factor * term`` for every pair.

    Args:
        starts: Tensors.
        terms: Like ``starts``.
        factor: One number for all.

    Returns:
        New tensors.
    """
    if isinstance(factor, Tensor):
        return list(torch._foreach_add(starts, torch._foreach_mul(terms, factor)))
    return list(torch._foreach_add(starts, terms, alpha=factor))


def add_scaled_(sums: list[Tensor], terms: list[Tensor], factor: Scalar) -> None:
    """``sum <- sum + factor * term`` for every pair; writes ``sums``."""
    if isinstance(factor, Tensor):
        torch._foreach_add_(sums, torch._foreach_mul(terms, factor))
    else:
        torch._foreach_add_(sums, terms, alpha=factor)


def multiply(ones: list[Tensor], others: list[Tensor]) -> list[Tensor]:
    """``one * other`` for every pair, as new tensors."""
    return list(torch._foreach_mul(ones, others))


def shift_(tensors: list[Tensor], number: Scalar) -> None:
    """``x <- x + number``; writes ``tensors``."""
    if isinstance(number, Tensor):
        # The foreach form reads the number out of the tensor: it waits, and compiles again for each new number.
        for tensor in tensors:
            tensor.add_(number)
    else:
        torch._foreach_add_(tensors, number)


def average_(weights: list[Tensor], points: list[Tensor], averaging: Scalar) -> None:
    """Move the weights towards the prox points, ``w <- (1 - c) w + c p``; at ``c = 1`` they become them bit for bit.

    Args:
        weights: Written.
        points: Like ``weights``.
        averaging: The fraction c in [0, 1].
    """
    if isinstance(averaging, Tensor):
        for weight, point in zip(weights, points, strict=True):
            weight.lerp_(point, averaging.to(weight.dtype))
    elif averaging == 1:
        torch._foreach_copy_(weights, points)
    else:
        torch._foreach_lerp_(weights, points, averaging)
