"""Numbers that describe a model: how sparse it is, and how large."""

from openwork.metrics.bits import pack_bits, unpack_bits
from openwork.metrics.macs import Macs, macs
from openwork.metrics.params import Params, params
from openwork.metrics.sparsity import LayerSparsity, Sparsity, sparsity, support

__all__ = [
    "LayerSparsity",
    "Macs",
    "Params",
    "Sparsity",
    "macs",
    "pack_bits",
    "params",
    "sparsity",
    "support",
    "unpack_bits",
]
