"""Running statistics of batch normalizations: those of the weights that a model has now."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager

import torch
from torch import Tensor, nn

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm


@contextmanager
def statistics_kept(model: nn.Module) -> Generator[None]:
    """Restore the running statistics of all batch normalizations, bit for bit, after the ``with``."""
    buffers = [buffer for norm in _batch_norms(model) for buffer in norm.buffers()]
    backups = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, backup in zip(buffers, backups, strict=True):
            buffer.copy_(backup)


@torch.no_grad()
def recalibrate_(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Make the running statistics of all batch normalizations those of the present weights.

    They become plain averages over ``batches``, and nothing else changes: dropout is off, weights and momenta stay.
    Nothing is computed for a model without running statistics.

    Args:
        model: Left in evaluation mode.
        batches: Inputs and targets, as in training.
    """
    model.eval()
    norms = _batch_norms(model)
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    try:
        for inputs, _ in batches:
            model(inputs)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def _batch_norms(model: nn.Module) -> list[BatchNorm]:
    return [m for m in model.modules() if isinstance(m, BatchNorm) and m.track_running_stats]


__all__ = ["recalibrate_", "statistics_kept"]
