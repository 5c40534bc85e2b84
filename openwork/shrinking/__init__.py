"""Taking zeros out of a model: what can go, doing it, and proof that nothing has changed."""

from openwork.shrinking.optimizers import follow_
from openwork.shrinking.plan import Plan, Replacement
from openwork.shrinking.report import ShrinkReport
from openwork.shrinking.shrink import NoZeros, Shrunk, shrink
from openwork.shrinking.verification import Certificate, NotEqual, verify

__all__ = [
    "Certificate",
    "NoZeros",
    "NotEqual",
    "Plan",
    "Replacement",
    "ShrinkReport",
    "Shrunk",
    "follow_",
    "shrink",
    "verify",
]
