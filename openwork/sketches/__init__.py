"""Training under random sketches, so that models survive being pruned, shrink, or are shared by workers."""

from openwork.sketches.aggregation import PermKAggregator, ReduceAggregator
from openwork.sketches.bernoulli import Bernoulli
from openwork.sketches.ddp import SharedDraw, compress, kept_hook
from openwork.sketches.delta import DeltaSize, export_delta, load_delta
from openwork.sketches.dsgd import DSGD
from openwork.sketches.export import export_submodel
from openwork.sketches.group import Group
from openwork.sketches.group_spec import GroupSpec, UnitSlices
from openwork.sketches.identity import Identity
from openwork.sketches.ist import ISTTrainer, LocalModel, MaskedModel
from openwork.sketches.key import Key
from openwork.sketches.lsvrg import LSVRG
from openwork.sketches.mixture import Mixture
from openwork.sketches.module import SketchedModule
from openwork.sketches.nested import Nested
from openwork.sketches.objective import Estimate, mc_objective
from openwork.sketches.page import PAGE
from openwork.sketches.perm_k import PermK
from openwork.sketches.pool import Pool
from openwork.sketches.projections import Projection, RandomProjection, RightProjection
from openwork.sketches.prune_curve import PrunePoint, Spread, prune_curve
from openwork.sketches.rand_k import RandK
from openwork.sketches.sharding import ShardedPermK
from openwork.sketches.sketch import Constants, Diagonal, DiagonalSketch, Draw, Sketch, Whole
from openwork.sketches.steps import expected_smoothness, lsvrg_lr, nonconvex_lr, page_lr, rescaled_lr, theory_lr
from openwork.sketches.submodel import Submodel
from openwork.sketches.traffic import Traffic, rand_k_bytes, replicated_bytes, ring_bytes, server_bytes, sharded_bytes
from openwork.sketches.units import scaled_point, unscaled_point
from openwork.sketches.workers import LostWorker, Workers, saved_when_lost, start_workers

__all__ = [
    "DSGD",
    "LSVRG",
    "PAGE",
    "Bernoulli",
    "Constants",
    "DeltaSize",
    "Diagonal",
    "DiagonalSketch",
    "Draw",
    "Estimate",
    "Group",
    "GroupSpec",
    "ISTTrainer",
    "Identity",
    "Key",
    "LocalModel",
    "LostWorker",
    "MaskedModel",
    "Mixture",
    "Nested",
    "PermK",
    "PermKAggregator",
    "Pool",
    "Projection",
    "PrunePoint",
    "RandK",
    "RandomProjection",
    "ReduceAggregator",
    "RightProjection",
    "ShardedPermK",
    "SharedDraw",
    "Sketch",
    "SketchedModule",
    "Spread",
    "Submodel",
    "Traffic",
    "UnitSlices",
    "Whole",
    "Workers",
    "compress",
    "expected_smoothness",
    "export_delta",
    "export_submodel",
    "kept_hook",
    "load_delta",
    "lsvrg_lr",
    "mc_objective",
    "nonconvex_lr",
    "page_lr",
    "prune_curve",
    "rand_k_bytes",
    "replicated_bytes",
    "rescaled_lr",
    "ring_bytes",
    "saved_when_lost",
    "scaled_point",
    "server_bytes",
    "sharded_bytes",
    "start_workers",
    "theory_lr",
    "unscaled_point",
]
