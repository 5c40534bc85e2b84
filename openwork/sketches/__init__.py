"""Training under random sketches, so that models survive being pruned, shrink, or are shared by workers."""

from openwork.sketches.dsgd import DSGD
from openwork.sketches.identity import Identity
from openwork.sketches.key import Key
from openwork.sketches.lsvrg import LSVRG
from openwork.sketches.module import SketchedModule
from openwork.sketches.page import PAGE
from openwork.sketches.perm_k import PermK
from openwork.sketches.rand_k import RandK
from openwork.sketches.sketch import Constants, Diagonal, DiagonalSketch, Draw, Sketch, Whole

__all__ = [
    "DSGD",
    "LSVRG",
    "PAGE",
    "Constants",
    "Diagonal",
    "DiagonalSketch",
    "Draw",
    "Identity",
    "Key",
    "PermK",
    "RandK",
    "Sketch",
    "SketchedModule",
    "Whole",
]
