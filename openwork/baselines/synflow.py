"""Pruning at initialization without data, so that no layer is cut off."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from typing_extensions import override

from openwork.baselines.baseline import Baseline, Loss
from openwork.baselines.masks import choose, role_in
from openwork.baselines.pruning import Pruning
from openwork.forward_pass import evaluating, tensors


@dataclass(frozen=True)
class SynFlow(Baseline):
    """Iterative synaptic flow pruning: keep the weights with the largest ``w dR/dw``, again and again, then train them.

    ``R = 1' |W_L| ... |W_1| 1`` is the sum of the outputs for an input of ones when parameters and running statistics
    are replaced by their absolute values, in evaluation mode. Biases are zero, as the formula has none: flow that
    begins at one would let the layers before it be cut off. Iteration k of n keeps a fraction ``density^(k/n)``.
    Double precision is used, since the flow through a deep network leaves the range of single precision.

    Args:
        density: Fraction of the prunable weights that is kept, in (0, 1].
        iterations: Number n of prunings.

    Raises:
        ValueError: If a number is out of range.

    References:
        Tanaka et al., Pruning neural networks without any data (NeurIPS 2020), arXiv:2006.05467, algorithm 1.
    """

    density: float
    iterations: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations < 1:
            raise ValueError(f"SynFlow: iterations must be at least 1, got {self.iterations}")

    @override
    def begin(self, pruning: Pruning, loss: Loss, inputs: Tensor, targets: Tensor) -> None:
        if not inputs.is_floating_point():
            raise ValueError(
                f"SynFlow: an input of ones needs real numbers, and the model takes {inputs.dtype}; take another method"
            )
        model, kept = pruning.model, pruning.masks.kept
        ones = torch.ones_like(inputs[:1], dtype=torch.float64)
        state = {name: _linear(value) for name, value in (*model.named_parameters(), *model.named_buffers())}
        biases = [name for name in state if (role := role_in(model, name)) is not None and role.kind == "bias"]
        state |= {name: torch.zeros_like(state[name]) for name in biases}
        for k in range(1, self.iterations + 1):
            weights = {name: (state[name] * mask).requires_grad_() for name, mask in kept.items()}
            with evaluating(model), torch.enable_grad():
                grads = torch.autograd.grad(
                    _flow(model, state | weights, ones),
                    list(weights.values()),
                    allow_unused=True,
                    materialize_grads=True,
                )
            scores = {name: (w.detach() * g).abs() for (name, w), g in zip(weights.items(), grads, strict=True)}
            kept = choose(scores, kept, self.density ** (k / self.iterations), "global")
        pruning.keep_(kept)


def _flow(model: nn.Module, state: dict[str, Tensor], ones: Tensor) -> Tensor:
    outputs = functional_call(model, state, (ones,))
    return torch.stack([output.sum() for output in tensors(outputs)]).sum()


def _linear(value: Tensor) -> Tensor:
    value = value.detach()
    return value.abs().double() if value.is_floating_point() else value


__all__ = ["SynFlow"]
