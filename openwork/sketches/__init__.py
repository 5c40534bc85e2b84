"""Training under random sketches, so that models survive being pruned, shrink, or are shared by workers."""

from openwork.sketches.group_spec import GroupSpec, UnitSlices
from openwork.sketches.identity import Identity
from openwork.sketches.key import Key
from openwork.sketches.module import SketchedModule
from openwork.sketches.perm_k import PermK
from openwork.sketches.rand_k import RandK
from openwork.sketches.sketch import Constants, Diagonal, DiagonalSketch, Draw, Sketch, Whole
from openwork.sketches.submodel import Submodel

__all__ = [
    "Constants",
    "Diagonal",
    "DiagonalSketch",
    "Draw",
    "GroupSpec",
    "Identity",
    "Key",
    "PermK",
    "RandK",
    "Sketch",
    "SketchedModule",
    "Submodel",
    "UnitSlices",
    "Whole",
]
