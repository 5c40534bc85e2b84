"""Taking zeros out of a model: what can go, doing it, and proof that nothing has changed."""

from openwork.shrinking.plan import Plan, Replacement
from openwork.shrinking.report import ShrinkReport
from openwork.shrinking.saving import load, save
from openwork.shrinking.shrink import Shrunk, shrink
from openwork.shrinking.verification import Certificate, NotEqual, verify

__all__ = [
    "Certificate",
    "NotEqual",
    "Plan",
    "Replacement",
    "ShrinkReport",
    "Shrunk",
    "load",
    "save",
    "shrink",
    "verify",
]
