"""One tensor, stored in several ways."""

from collections.abc import Iterator

import torch
from torch import Tensor


def strided_copies(x: Tensor) -> Iterator[Tensor]:
    """Copies of a tensor whose entries lie differently in memory.

    Args:
        x: Any tensor.

    Yields:
        Equal tensors: axes stored in reverse order, one of every two entries of a larger one, and channels-last.
    """
    backwards = tuple(reversed(range(x.ndim)))
    yield x.permute(backwards).contiguous().permute(backwards)
    wide = x.new_zeros(*x.shape[:-1], 2 * x.shape[-1]) if x.ndim else x.new_zeros(2)
    spaced = wide[..., ::2] if x.ndim else wide[0]
    yield spaced.copy_(x)
    if x.ndim == 4:
        yield x.contiguous(memory_format=torch.channels_last)
