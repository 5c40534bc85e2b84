"""What is known about one tensor of the traced graph: which atom each of its entries belongs to."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from openwork.wiring.atoms import varies


@dataclass(frozen=True, eq=False)
class Label:
    """One feature axis as it appears in a tensor.

    Args:
        ids: Atom of every entry; as many dimensions as the tensor, of length 1 where nothing depends on them. A channel
            that a view has split lies along two dimensions. -1 where an entry belongs to no atom.
        lost: Why entries need not be zero although their channel is; None if they are.
    """

    ids: Tensor
    lost: str | None = None

    @property
    def dims(self) -> tuple[int, ...]:
        """Dimensions along which the atoms differ."""
        return tuple(dim for dim, size in enumerate(self.ids.shape) if size > 1)

    def lose(self, why: str | None) -> "Label":
        """The same entries, which need not be zero any more."""
        return self if why is None or self.lost else replace(self, lost=why)


@dataclass(frozen=True, eq=False)
class Value:
    """One tensor of the graph.

    Args:
        shape: Its shape.
        labels: Its feature axes.
        owned: Whether it is made from parameters and buffers alone.
        source: What it is, in words, for messages.
        statistics: Feature axes of a buffer, which normalizations look at; for all else its lengths are fixed.
        live: Where entries may differ from zero, booleans that broadcast to ``shape``; None if that is everywhere.
    """

    shape: tuple[int, ...]
    labels: tuple[Label, ...] = ()
    owned: bool = False
    source: str = "a tensor"
    statistics: tuple[Label, ...] = ()
    live: Tensor | None = None

    def living(self, dims: tuple[int, ...], *, ndim: int | None = None) -> Tensor:
        """Whether any entry along the other dimensions may differ from zero.

        Args:
            dims: Dimensions to keep, counted after leading ones have been added; the others get length 1.
            ndim: Number of dimensions to pad to, as broadcasting does.

        Returns:
            Booleans.
        """
        ndim = len(self.shape) if ndim is None else ndim
        if self.live is None:
            return torch.ones((1,) * ndim, dtype=torch.bool)
        live = pad(self.live, ndim)
        others = tuple(dim for dim in range(ndim) if dim not in dims and live.shape[dim] > 1)
        return (live.any(dim=others, keepdim=True) if others else live).cpu()


def compress(ids: Tensor) -> Tensor:
    """Shrink every dimension along which nothing differs to length 1."""
    for dim in range(ids.ndim):
        if ids.shape[dim] > 1 and not varies(ids, dim):
            ids = ids.narrow(dim, 0, 1)
    return ids


def pad(ids: Tensor, ndim: int) -> Tensor:
    """Add leading dimensions, as broadcasting does."""
    return ids.view((1,) * (ndim - ids.ndim) + tuple(ids.shape)) if ids.ndim < ndim else ids


def reshaped(value: Value, shape: tuple[int, ...]) -> Value:
    """The same entries in another shape."""
    labels = tuple(Label(compress(label.ids.expand(value.shape).reshape(shape)), label.lost) for label in value.labels)
    live = None if value.live is None else value.live.expand(value.shape).reshape(shape)
    return replace(value, shape=shape, labels=labels, live=live)
