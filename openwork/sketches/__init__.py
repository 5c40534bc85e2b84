"""Training under random sketches, so that models survive being pruned, shrink, or are shared by workers."""

from openwork.sketches.aggregation import PermKAggregator, ReduceAggregator
from openwork.sketches.ddp import SharedDraw, compress, kept_hook
from openwork.sketches.identity import Identity
from openwork.sketches.ist import ISTTrainer, LocalModel, MaskedModel
from openwork.sketches.key import Key
from openwork.sketches.module import SketchedModule
from openwork.sketches.perm_k import PermK
from openwork.sketches.rand_k import RandK
from openwork.sketches.sharding import ShardedPermK
from openwork.sketches.sketch import Constants, Diagonal, DiagonalSketch, Draw, Sketch, Whole
from openwork.sketches.traffic import (
    Traffic,
    rand_k_bytes,
    replicated_bytes,
    ring_bytes,
    server_bytes,
    sharded_bytes,
)
from openwork.sketches.workers import LostWorker, Workers, start_workers

__all__ = [
    "Constants",
    "Diagonal",
    "DiagonalSketch",
    "Draw",
    "ISTTrainer",
    "Identity",
    "Key",
    "LocalModel",
    "LostWorker",
    "MaskedModel",
    "PermK",
    "PermKAggregator",
    "RandK",
    "ReduceAggregator",
    "ShardedPermK",
    "SharedDraw",
    "Sketch",
    "SketchedModule",
    "Traffic",
    "Whole",
    "Workers",
    "compress",
    "kept_hook",
    "rand_k_bytes",
    "replicated_bytes",
    "ring_bytes",
    "server_bytes",
    "sharded_bytes",
    "start_workers",
]
