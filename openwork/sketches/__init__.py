"""Training under random sketches, so that models survive being pruned, shrink, or are shared by workers."""

from openwork.sketches.delta import DeltaSize, export_delta, load_delta
from openwork.sketches.export import export_submodel
from openwork.sketches.identity import Identity
from openwork.sketches.key import Key
from openwork.sketches.module import SketchedModule
from openwork.sketches.objective import Estimate, mc_objective
from openwork.sketches.perm_k import PermK
from openwork.sketches.prune_curve import PrunePoint, Spread, prune_curve
from openwork.sketches.rand_k import RandK
from openwork.sketches.sketch import Constants, Diagonal, DiagonalSketch, Draw, Sketch, Whole

__all__ = [
    "Constants",
    "DeltaSize",
    "Diagonal",
    "DiagonalSketch",
    "Draw",
    "Estimate",
    "Identity",
    "Key",
    "PermK",
    "PrunePoint",
    "RandK",
    "Sketch",
    "SketchedModule",
    "Spread",
    "Whole",
    "export_delta",
    "export_submodel",
    "load_delta",
    "mc_objective",
    "prune_curve",
]
