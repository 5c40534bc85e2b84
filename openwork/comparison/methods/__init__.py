"""Methods to compare, by name: functions without arguments that give them at their defaults."""

from openwork.comparison.methods.dense import Dense
from openwork.comparison.methods.proximal import Proximal


def dense() -> Dense:
    """Adam, nothing removed."""
    return Dense()


def ramda() -> Proximal:
    """RAMDA with group lasso."""
    return Proximal("ramda", lr=0.01)


def rmda() -> Proximal:
    """RMDA with group lasso."""
    return Proximal("rmda", lr=0.3)


def proxsgd() -> Proximal:
    """ProxSGD with group lasso."""
    return Proximal("proxsgd", lr=0.3)


def proxadamw() -> Proximal:
    """Proximal AdamW with group lasso."""
    return Proximal("proxadamw", lr=3e-3, averaging=1.0)


__all__ = ["dense", "proxadamw", "proxsgd", "ramda", "rmda"]
