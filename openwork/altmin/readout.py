"""Refit of the last layer on the true features of the network: a convex problem."""

import torch
from torch import Tensor

from openwork.altmin.links import Link
from openwork.altmin.losses import OutputLoss

# Steps at most, and the gradient (of the mean over samples) at which they end.
STEPS = 100
TOLERANCE = 1e-7


def refit_readout(link: Link, features: Tensor, y: Tensor, loss: OutputLoss, mu: float, frozen: bool) -> bool:
    """Minimize ``R(W a + b; y) + mu/2 ||W||^2`` over the last layer by L-BFGS.

    The gradient of this one layer is in closed form; no graph is made. The layer changes only if the loss of the
    network on these samples falls.

    Args:
        link: The last layer.
        features: What it reads when the network runs.
        y: Targets.
        loss: A sum over samples.
        mu: Weight of the quadratic term, >= 0.
        frozen: Whether weights that are exactly zero stay so.

    Returns:
        Whether the layer changed.
    """
    size = features.shape[0]
    weight = link.weight.clone()
    bias = None if link.bias is None else link.bias.clone()
    alive = weight != 0 if frozen else torch.ones_like(weight)
    parameters = [weight] if bias is None else [weight, bias]

    def outputs() -> Tensor:
        mapped = link.map_with(weight, features)
        return mapped if bias is None else mapped + bias

    def closure() -> float:
        with torch.no_grad():
            z = outputs()
            pull = loss.gradient(z, y).div_(size)
            weight.grad = (link.weight_grad(features, pull) + weight * (mu / size)) * alive
            if bias is not None:
                bias.grad = pull.sum(0)
            return float((loss.value(z, y) + weight.square().sum() * (mu / 2)) / size)

    before = float(loss.value(outputs(), y))
    solver = torch.optim.LBFGS(
        parameters, max_iter=STEPS, tolerance_grad=TOLERANCE, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )
    solver.step(closure)
    after = float(loss.value(outputs(), y))
    if not after < before:
        return False
    link.weight.copy_(weight)
    if bias is not None and link.bias is not None:
        link.bias.copy_(bias)
    return True
