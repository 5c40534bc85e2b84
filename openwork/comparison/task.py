"""What all methods of a comparison are given."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from openwork.data import Data, Transform


@dataclass(frozen=True, eq=False)
class Task:
    """Data, a network and a loss: what is learned, the same for every method.

    Args:
        name: Short, for tables and folders.
        model: Builds the network from a seed, the same bits for the same seed.
        data: Loads the samples; the seed draws which of them are held out for validation.
        epochs: Passes over the training samples, if the user names no other budget; >= 1.
        batch_size: Samples per step, >= 1.
        loss: Mean over the samples of a batch, from outputs and targets.
        augment: Transform of a batch of training inputs.
    """

    name: str
    model: Callable[[int], nn.Module]
    data: Callable[[int], Data]
    epochs: int
    batch_size: int = 128
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy
    augment: Transform | None = None


__all__ = ["Task"]
