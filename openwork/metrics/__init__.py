"""Numbers that describe a model: how sparse it is, and how large."""

from openwork.metrics.bits import pack_bits, unpack_bits
from openwork.metrics.params import Params, params
from openwork.metrics.sparsity import LayerSparsity, Sparsity, sparsity, support

__all__ = ["LayerSparsity", "Params", "Sparsity", "pack_bits", "params", "sparsity", "support", "unpack_bits"]
