"""Parameters whose memory overlaps."""

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor

from openwork.sharding import local


def check_storage(owner: str, tensors: Mapping[str, Tensor]) -> None:
    """Refuse two tensors that share memory without being one.

    Args:
        owner: Who asks, for the message.
        tensors: By name; the same tensor may have several names.

    Raises:
        ValueError: If the memory of two overlaps.
    """
    spans: dict[tuple[torch.device, int], list[tuple[int, int, str, int]]] = {}
    for name, shared in tensors.items():
        tensor = local(shared.detach())
        if tensor.numel() and tensor.device.type != "meta":
            begin, size = int(tensor.storage_offset()), tensor.element_size()
            last = begin + sum((int(n) - 1) * int(s) for n, s in zip(tensor.shape, tensor.stride(), strict=True))
            key = tensor.device, tensor.untyped_storage().data_ptr()
            spans.setdefault(key, []).append((begin * size, (last + 1) * size, name, id(shared)))
    for found in spans.values():
        for (_, end, one, its_id), (begin, _, other, other_id) in pairwise(sorted(found)):
            if begin < end and its_id != other_id:
                raise ValueError(
                    f"{owner}: {other} shares memory with {one}, so that one weight would have two sets of factors; "
                    "make them one parameter, or clone one of them"
                )


__all__ = ["check_storage"]
