"""Modules that shrink puts in place of others: they compute the same, and their sizes are free."""

from openwork.shrinking.parts.attention import Attention
from openwork.shrinking.parts.constant import Constant
from openwork.shrinking.parts.recurrent import Recurrent

__all__ = [
    "Attention",
    "Constant",
    "Recurrent",
]
