"""The activation of a module, for all kinds of modules that alternating minimization takes."""

from collections.abc import Callable
from typing import Any

from torch import nn

from openwork.altmin import piecewise, smooth
from openwork.altmin.discrete import Elementwise
from openwork.altmin.elementwise import Activation

__all__ = ["Activation", "activation_of"]

# A row is a function of the module, where its numbers come from. A subclass may compute something else, and has no row.
_ACTIVATIONS: dict[type[nn.Module], Callable[[Any], Activation]] = {
    nn.ReLU: lambda module: piecewise.ReLU(),
    nn.LeakyReLU: lambda module: piecewise.LeakyReLU(module.negative_slope),
    nn.PReLU: lambda module: piecewise.LeakyReLU(module.weight),
    nn.ReLU6: lambda module: piecewise.Clip(0.0, 6.0),
    nn.Hardtanh: lambda module: piecewise.Clip(module.min_val, module.max_val),
    nn.Identity: lambda module: piecewise.Identity(),
    nn.ELU: lambda module: smooth.ELU(module.alpha),
    nn.Tanh: lambda module: smooth.Tanh(),
    nn.Sigmoid: lambda module: smooth.Sigmoid(),
    nn.Softplus: lambda module: smooth.Softplus(module.beta, module.threshold),
    nn.GELU: lambda module: smooth.GELU(module.approximate == "tanh"),
    nn.SiLU: lambda module: smooth.SiLU(),
}


def activation_of(module: nn.Module) -> Activation:
    """The activation that a module applies.

    Args:
        module: An elementwise activation of torch, or an ``Elementwise`` such as ``Sign`` and ``Quantizer``. The slopes
            of a PReLU stay as they are.

    Raises:
        TypeError: If it is of no known kind.
    """
    if isinstance(module, Elementwise):
        return module.activation
    make = _ACTIVATIONS.get(type(module))
    if make is None:
        known = ", ".join(kind.__name__ for kind in _ACTIVATIONS)
        raise TypeError(
            f"AMTrainer: {type(module).__name__} is not an elementwise activation that can be solved; use {known}, "
            "Sign, Quantizer, or Elementwise with an activation of your own"
        )
    return make(module)


def knows_activation(module: nn.Module) -> bool:
    """Whether ``activation_of`` takes a module."""
    return isinstance(module, Elementwise) or type(module) in _ACTIVATIONS
