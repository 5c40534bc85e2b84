"""Weights as products of factors: plain L2 on the factors is a sparse penalty on the product."""

from openwork.factorizations.budget import Budget, plan_budget
from openwork.factorizations.diagnostics import Diagnostics, Factors, LayerDiagnostics, Watch, diagnose
from openwork.factorizations.initializations import Initialization, Sampled, Split, UnitGate
from openwork.factorizations.products import leave_one_out, product

__all__ = [
    "Budget",
    "Diagnostics",
    "Factors",
    "Initialization",
    "LayerDiagnostics",
    "Sampled",
    "Split",
    "UnitGate",
    "Watch",
    "diagnose",
    "leave_one_out",
    "plan_budget",
    "product",
]
