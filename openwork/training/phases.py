"""What follows training with a penalty: taking units out for good, and training on without the penalty."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from openwork.files import State
from openwork.optim import StructuredOptimizer
from openwork.penalties import Zero
from openwork.shrinking import NothingZero, Plan, Shrunk, follow_, shrink
from openwork.training.structured import Structured


def take_out_(model: nn.Module, example: Tensor, optimizer: Optimizer) -> Shrunk | None:
    """Shrink a model in the middle of its training.

    Args:
        model: Its weights become exactly structured first; otherwise not changed.
        example: Inputs to trace it with.
        optimizer: Goes on with the parameters of the smaller model.

    Returns:
        The smaller model and what was done; None if no unit is zero yet.
    """
    if isinstance(optimizer, StructuredOptimizer):
        optimizer.settle_()
    try:
        return shrink(model, example, optimizer=optimizer, low_rank=False)
    except NothingZero:
        return None


def taken(shrunk: Shrunk) -> dict[str, State]:
    """What was taken out, in plain values and tensors: from it a run that is resumed makes its model as small."""
    stays = {name: {str(dim): x for dim, x in dims.items()} for name, dims in shrunk.stays.items()}
    return {"plan": cast("State", shrunk.plan.to_json()), "stays": stays}


def rebuild_(model: nn.Module, outs: Sequence[Mapping[str, Any]], optimizer: Optimizer) -> nn.Module:
    """The model that a run had when it saved, from one as it was built.

    Args:
        model: As the recipe makes it; not changed.
        outs: What was taken out, in order, as ``taken`` says it.
        optimizer: Over its parameters; goes on with those of the result.

    Returns:
        The model, with weights that are still to be loaded.
    """
    for out in outs:
        plan, small = Plan.from_json(out["plan"]), deepcopy(model)
        plan.apply_(small, {name: torch.zeros(new) for name, (_, new) in plan.shapes.items()})
        stays = {name: {int(dim): x for dim, x in dims.items()} for name, dims in out["stays"].items()}
        follow_(optimizer, model, small, stays)
        model = small
    return model


class Refit:
    """Training on without a penalty, while what is exactly zero stays zero: it removes the bias of shrinkage.

    Args:
        optimizer: Dual averaging starts anew at the present weights.
        lr: Learning rate.
        structured: What it trains, settled; its penalties have no strength from now on.
    """

    def __init__(self, optimizer: Optimizer, lr: float, structured: Structured | None) -> None:
        self._zeros: list[tuple[Tensor, Tensor]] = []
        for group in optimizer.param_groups:
            group["lr"] = lr
            # Factorized weights need no care: nothing revives one of which all factors are zero.
            if not isinstance(group.get("penalty", Zero()), Zero):
                self._zeros += [(param, param.detach() == 0) for param in group["params"]]
        if structured is not None:
            structured.free_()
        if isinstance(optimizer, StructuredOptimizer):
            optimizer.restart()

    def before_step(self) -> None:
        """Make the gradient zero where the weight stays zero, so that sums of gradients stay zero too."""
        for param, zeros in self._zeros:
            if param.grad is not None:
                param.grad.masked_fill_(zeros, 0.0)

    def zeros(self) -> list[Tensor]:
        """Where weights stay zero, to be saved."""
        return [zeros for _, zeros in self._zeros]

    def set_zeros(self, zeros: Sequence[Tensor]) -> None:
        """Take what ``zeros`` gave."""
        self._zeros = [(param, saved) for (param, _), saved in zip(self._zeros, zeros, strict=True)]


__all__ = ["Refit", "rebuild_", "take_out_", "taken"]
