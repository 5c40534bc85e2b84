"""How well a model predicts, and the running statistics it predicts with."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from openwork.data import Split
from openwork.training.run import Metrics

Loss = Callable[[Tensor, Tensor], Tensor]
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm


@torch.no_grad()
def evaluate(model: nn.Module, loss: Loss, split: Split, *, batch_size: int, classes: int) -> Metrics:
    """Mean loss over the samples of a split, and the fraction of right predictions where there are classes.

    Args:
        model: Left in evaluation mode.
        loss: Mean over the samples of a batch, from outputs and targets.
        split: At least one sample.
        batch_size: Samples at a time, >= 1.
        classes: As in ``Data``; the largest entry along the last axis of the outputs is the predicted one.

    Returns:
        ``loss``, and ``accuracy`` in [0, 1] if ``classes`` > 0.
    """
    model.eval()
    total = torch.zeros((), dtype=torch.float64)
    right = 0
    for inputs, targets in zip(split.inputs.split(batch_size), split.targets.split(batch_size), strict=True):
        outputs = model(inputs)
        total += loss(outputs, targets).double().cpu() * len(targets)
        if classes:
            right += int((outputs.argmax(-1) == targets).sum())
    metrics: Metrics = {"loss": float(total) / len(split)}
    if classes:
        metrics["accuracy"] = right / split.targets.numel()
    return metrics


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
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
