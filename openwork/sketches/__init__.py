"""Training under random sketches, so that models survive being pruned, shrink, or are shared by workers."""

from openwork.sketches.bernoulli import Bernoulli
from openwork.sketches.dsgd import DSGD
from openwork.sketches.group import Group
from openwork.sketches.group_spec import GroupSpec, UnitSlices
from openwork.sketches.identity import Identity
from openwork.sketches.key import Key
from openwork.sketches.lsvrg import LSVRG
from openwork.sketches.mixture import Mixture
from openwork.sketches.module import SketchedModule
from openwork.sketches.nested import Nested
from openwork.sketches.page import PAGE
from openwork.sketches.perm_k import PermK
from openwork.sketches.pool import Pool
from openwork.sketches.projections import Projection, RandomProjection, RightProjection
from openwork.sketches.rand_k import RandK
from openwork.sketches.sketch import Constants, Diagonal, DiagonalSketch, Draw, Sketch, Whole
from openwork.sketches.steps import expected_smoothness, lsvrg_lr, nonconvex_lr, page_lr, rescaled_lr, theory_lr
from openwork.sketches.submodel import Submodel
from openwork.sketches.units import scaled_point, unscaled_point

__all__ = [
    "DSGD",
    "LSVRG",
    "PAGE",
    "Bernoulli",
    "Constants",
    "Diagonal",
    "DiagonalSketch",
    "Draw",
    "Group",
    "GroupSpec",
    "Identity",
    "Key",
    "Mixture",
    "Nested",
    "PermK",
    "Pool",
    "Projection",
    "RandK",
    "RandomProjection",
    "RightProjection",
    "Sketch",
    "SketchedModule",
    "Submodel",
    "UnitSlices",
    "Whole",
    "expected_smoothness",
    "lsvrg_lr",
    "nonconvex_lr",
    "page_lr",
    "rescaled_lr",
    "scaled_point",
    "theory_lr",
    "unscaled_point",
]
