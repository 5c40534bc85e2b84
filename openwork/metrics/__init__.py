"""Numbers that describe a model: how sparse it is, how large, how much it computes, and how long that takes."""

from openwork.metrics.bits import pack_bits, unpack_bits
from openwork.metrics.latency import Latency, LatencyComparison, Spread, compare_latency, latency_ms
from openwork.metrics.macs import Macs, macs
from openwork.metrics.params import Params, params
from openwork.metrics.size import size_bytes
from openwork.metrics.sparsity import LayerSparsity, Sparsity, sparsity, support

__all__ = [
    "Latency",
    "LatencyComparison",
    "LayerSparsity",
    "Macs",
    "Params",
    "Sparsity",
    "Spread",
    "compare_latency",
    "latency_ms",
    "macs",
    "pack_bits",
    "params",
    "size_bytes",
    "sparsity",
    "support",
    "unpack_bits",
]
