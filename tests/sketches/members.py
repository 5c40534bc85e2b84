"""The pool of draws over which the variance-reduced methods are tested, and what both tests do with it."""

import io
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from openwork.sketches import Key, PermK

D = 8
POOL = [Key(5, step=t, worker=i) for t in range(3) for i in range(2)]


def closure_of(module: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        loss = module()
        loss.backward()
        return loss

    return closure


def stored(state: dict[str, object]) -> dict[str, Any]:
    """As it comes back from a file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def rows() -> list[Tensor]:
    """Diagonals of the members."""
    return [PermK(2).sample(key.at(family="x"), D).weights for key in POOL]
