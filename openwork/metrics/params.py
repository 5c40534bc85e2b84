"""How many parameters a model has."""

from dataclasses import dataclass

from torch import Tensor, nn

from openwork.sharding import division, local


@dataclass(frozen=True)
class Params:
    """Number of entries in the parameters of a model.

    Args:
        total: All entries.
        nonzero: Entries that are not exactly zero; NaN is not zero.
    """

    total: int
    nonzero: int


def params(model: nn.Module) -> Params:
    """Count the entries of every parameter, biases and norms included, tied weights once.

    Args:
        model: Any module; buffers are not counted. If its parameters are divided among processes, all must ask.

    Returns:
        The counts.
    """
    weights = list(model.parameters())  # each shared tensor once
    return Params(sum(w.numel() for w in weights), sum(map(_nonzero, weights)))


def _nonzero(weight: Tensor) -> int:
    how, count = division(weight), local(weight.detach()).count_nonzero()
    return int(count if how is None else how.ranks.sum_(count))
