"""Alternating minimization on mini-batches: ours, and not part of any of the papers that full-batch methods follow."""

from typing import Self

import torch
from torch import Tensor, nn

from openwork.altmin.losses import CrossEntropy, OutputLoss
from openwork.altmin.models import links_of
from openwork.altmin.samples import check_samples, output_sizes
from openwork.altmin.weight_block import check_linear

__all__ = ["MiniBatchTrainer"]

ME = "MiniBatchTrainer"


class MiniBatchTrainer:
    """Trains linear layers on one mini-batch after the other, each with codes of its own.

    A batch starts with a forward pass. A few passes from the outputs to the inputs move the codes ``(z, h(z))`` towards
    what the loss and the next layer want; then every layer takes a damped ridge step towards its codes,
    ``[dW, db] = (R A'/B) (A A'/B + damping I)^{-1}`` with ``A = [a; 1]`` and the residual R over B samples.

    This is ours: TIAM is a full-batch method, and no objective falls from batch to batch. It is slower than Adam.

    Args:
        model: As for ``AMTrainer``, with linear layers only; its weights are written in place.
        loss: Of the outputs; cross-entropy if None.
        rho: Weight of the links, > 0.
        passes: Passes over the codes of a batch, >= 1.
        damping: Added to the mean of squares of the inputs, > 0.
        momentum: Fraction of the last step that is added to a step, in [0, 1).

    Raises:
        ValueError: If a number is out of range.

    References:
        Choromanska et al., Beyond backprop: online alternating minimization with auxiliary variables,
        arXiv:1806.09077: codes by batch, from the output to the input. The joint block and the ridge step are ours.
    """

    def __init__(
        self,
        model: nn.Sequential,
        *,
        loss: OutputLoss | None = None,
        rho: float = 0.1,
        passes: int = 3,
        damping: float = 1.0,
        momentum: float = 0.0,
    ) -> None:
        if not 0 < rho < float("inf"):
            raise ValueError(f"{ME}: rho must be > 0 and finite, got {rho}")
        if passes < 1:
            raise ValueError(f"{ME}: passes must be >= 1, got {passes}")
        if not 0 < damping < float("inf"):
            raise ValueError(f"{ME}: damping must be > 0 and finite, got {damping}")
        if not 0 <= momentum < 1:
            raise ValueError(f"{ME}: momentum must be in [0, 1), got {momentum}")
        self.model = model
        self.loss = CrossEntropy() if loss is None else loss
        self.rho, self.passes, self.damping, self.momentum = rho, passes, damping, momentum
        self._links, self._activations = links_of(model)
        check_linear(ME, "training on mini-batches", self._links)
        self._steps: list[Tensor | None] = [None for _ in self._links]

    @torch.no_grad()
    def partial_fit(self, X: Tensor, y: Tensor) -> Self:
        """Train on one batch.

        Args:
            X: Inputs, ``(B, ...)``.
            y: Targets.

        Returns:
            The trainer.
        """
        x, y = check_samples(ME, X, y, self._links)
        sizes = output_sizes(ME, x, self._links, self._activations)
        self.loss.check(y, sizes[-1][0], len(x))
        codes, inputs = self._forward(x)
        for _ in range(self.passes):
            self._pass(codes, inputs, y)
        for index, link in enumerate(self._links):
            flat = inputs[index].flatten(1)
            read = flat if link.bias is None else torch.cat([flat, flat.new_ones(len(flat), 1)], 1)
            residual = codes[index] - link.bias_add(link.forward(inputs[index]))
            gram = torch.mm(read.T, read).div_(len(x))
            gram.diagonal().add_(self.damping)
            factor = torch.linalg.cholesky(gram)
            step = torch.cholesky_solve(torch.mm(read.T, residual).div_(len(x)), factor).T
            before = self._steps[index]
            if before is not None:
                step = step.add(before, alpha=self.momentum)
            self._steps[index] = step
            link.weight.add_(step[:, : flat.shape[1]])
            if link.bias is not None:
                link.bias.add_(step[:, -1])
        return self

    def _forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Block z of every layer, and what every layer reads."""
        codes, inputs = [], [x]
        for index, link in enumerate(self._links):
            z = link.bias_add(link.forward(inputs[-1]))
            if index < len(self._activations):
                z = self._activations[index].project(z)
                inputs.append(self._activations[index].forward(z))
            codes.append(z)
        return codes, inputs

    def _pass(self, codes: list[Tensor], inputs: list[Tensor], y: Tensor) -> None:
        """Move the codes of every layer once, from the output to the input; writes the lists."""
        last = len(codes) - 1
        for index in range(last, -1, -1):
            link = self._links[index]
            target = link.bias_add(link.forward(inputs[index]))
            if index == last:
                codes[index] = self.loss.prox(target, y, self.rho, codes[index])
                continue
            following, activation = self._links[index + 1], self._activations[index]
            a = inputs[index + 1]
            # Twice the estimate from below, which power iterations approach from batch to batch.
            curvature = following.input_curvature().mul(2).clamp(min=1e-12)
            residual = following.bias_add(following.forward(a)) - codes[index + 1]
            wanted = a - following.adjoint(residual).div_(curvature)
            codes[index] = activation.solve(target, wanted, self.rho, curvature * self.rho, codes[index])
            inputs[index + 1] = activation.forward(codes[index])
