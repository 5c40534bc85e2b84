"""Modules that shrink puts in place of others: they compute the same, and their sizes are free."""

from openwork.shrinking.parts.attention import Attention

__all__ = ["Attention"]
