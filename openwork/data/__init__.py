"""Data sets in memory, split once and for all, and the batches drawn from them."""

from openwork.data.batches import Batches, Transform
from openwork.data.digits import digits
from openwork.data.idx import fashion_mnist, kmnist, mnist, read_idx
from openwork.data.splits import Data, Split

__all__ = [
    "Batches",
    "Data",
    "Split",
    "Transform",
    "digits",
    "fashion_mnist",
    "kmnist",
    "mnist",
    "read_idx",
]
