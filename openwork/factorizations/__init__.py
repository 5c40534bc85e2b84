"""Weights as products of factors: plain L2 on the factors is a sparse penalty on the product."""

from openwork.factorizations.budget import Budget, plan_budget
from openwork.factorizations.collapsing import CollapseReport, collapse
from openwork.factorizations.diagnostics import Diagnostics, Factors, LayerDiagnostics, Watch, diagnose
from openwork.factorizations.entries import Entries, Hadamard
from openwork.factorizations.factorization import Block, Factorization, blocks_of
from openwork.factorizations.factorize import factorize, param_groups
from openwork.factorizations.forms import Form, Planned, Request
from openwork.factorizations.gated import Gated, Gates
from openwork.factorizations.handle import Handle, factorization_of
from openwork.factorizations.initializations import Initialization, Sampled, Split, UnitGate
from openwork.factorizations.low_rank import LowRank, Ranks
from openwork.factorizations.products import leave_one_out, product

__all__ = [
    "Block",
    "Budget",
    "CollapseReport",
    "Diagnostics",
    "Entries",
    "Factorization",
    "Factors",
    "Form",
    "Gated",
    "Gates",
    "Hadamard",
    "Handle",
    "Initialization",
    "LayerDiagnostics",
    "LowRank",
    "Planned",
    "Ranks",
    "Request",
    "Sampled",
    "Split",
    "UnitGate",
    "Watch",
    "blocks_of",
    "collapse",
    "diagnose",
    "factorization_of",
    "factorize",
    "leave_one_out",
    "param_groups",
    "plan_budget",
    "product",
]
