"""Reach through a wrapper."""

from torch.optim import Optimizer


def unwrap(optimizer: Optimizer) -> Optimizer:
    """The optimizer inside wrappers such as accelerate's, which hide its own methods.

    Args:
        optimizer: Any optimizer; one that is not wrapped is returned as it is.

    Returns:
        The innermost optimizer.
    """
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner
    return optimizer
