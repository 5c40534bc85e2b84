"""Weights of which a process has only a shard."""

import torch.distributed as dist
from torch import Tensor


def check_whole(name: str, x: Tensor) -> None:
    """Refuse a weight that fully_shard has split, outside of the forward pass that puts it together.

    Args:
        name: Of the parameter.
        x: Its tensor.

    Raises:
        ValueError: If it is a DTensor.
    """
    if not dist.is_available() or not dist.is_initialized():
        return
    # It takes long, and nobody else needs it.
    from torch.distributed.tensor import DTensor

    if isinstance(x, DTensor):
        raise ValueError(
            f"{name!r} is a shard (DTensor), which cannot be sketched outside of its layer; apply fully_shard to the "
            "SketchedModule alone, and not to modules inside of it"
        )


__all__ = ["check_whole"]
