"""How well a model predicts."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from openwork.data import Split
from openwork.training.run import Metrics

Loss = Callable[[Tensor, Tensor], Tensor]


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
