"""An initialization that suits ReLU."""

import torch
from torch import nn

from openwork.models.seeding import seeded


@torch.no_grad()
def he_normal_(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """Make weights normal with variance ``2 / fan_in``, and biases zero.

    Args:
        model: Of layers with ReLU; written. Parameters of fewer than two dimensions that are no biases stay.
        seed: Of the weights.

    Returns:
        The model.

    References:
        He, Zhang, Ren & Sun, Delving deep into rectifiers (ICCV 2015), arXiv:1502.01852, equation 10.
    """
    with seeded(seed):
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
    return model
