"""Modules that shrink puts in place of others: they compute the same, and their sizes are free."""

from openwork.shrinking.parts.attention import Attention
from openwork.shrinking.parts.constant import Constant
from openwork.shrinking.parts.low_rank import (
    KernelIn,
    Split,
    best_split,
    low_rank,
    matrix_of,
    numerical_rank,
    saves,
    two_layers,
)
from openwork.shrinking.parts.recurrent import Recurrent

__all__ = [
    "Attention",
    "Constant",
    "KernelIn",
    "Recurrent",
    "Split",
    "best_split",
    "low_rank",
    "matrix_of",
    "numerical_rank",
    "saves",
    "two_layers",
]
