"""The activation of a module, for all kinds of modules that alternating minimization takes."""

from torch import nn

from openwork.altmin.elementwise import Activation
from openwork.altmin.piecewise import ReLU

__all__ = ["Activation", "activation_of"]


def activation_of(module: nn.Module) -> Activation:
    """The activation that a module applies.

    Args:
        module: An elementwise activation.

    Raises:
        TypeError: If it is of no known kind.
    """
    match module:
        case nn.ReLU():
            return ReLU()
        case _:
            raise TypeError(f"AMTrainer: {type(module).__name__} is no activation that can be solved; use ReLU")
