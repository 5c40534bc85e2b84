"""Taking zeros out of a model: what can go, doing it, and proof that nothing has changed."""

from openwork.shrinking.exporting import export_onnx, export_program, export_tensors
from openwork.shrinking.optimizers import follow_
from openwork.shrinking.plan import Plan, Replacement
from openwork.shrinking.report import ShrinkReport
from openwork.shrinking.saving import load, save
from openwork.shrinking.shrink import NothingZero, Shrunk, shrink
from openwork.shrinking.verification import Certificate, NotEqual, verify

__all__ = [
    "Certificate",
    "NotEqual",
    "NothingZero",
    "Plan",
    "Replacement",
    "ShrinkReport",
    "Shrunk",
    "export_onnx",
    "export_program",
    "export_tensors",
    "follow_",
    "load",
    "save",
    "shrink",
    "verify",
]
