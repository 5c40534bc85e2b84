"""Train networks whose structure is made while they learn, then really make them smaller.

Each package loads on first use: ``import openwork`` is instant, and ``openwork --help`` never waits for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openwork import (
        altmin,
        baselines,
        comparison,
        data,
        factorizations,
        files,
        metrics,
        models,
        optim,
        partitions,
        penalties,
        recipes,
        report,
        shrinking,
        sketches,
        structure,
        training,
        wiring,
    )
    from openwork.comparison import compare
    from openwork.shrinking import load, save, shrink

__version__ = "0.1.0"

# A new package is one name here, and one import above for type checkers and editors; a new function likewise.
_FUNCTIONS = {"compare": "comparison", "load": "shrinking", "save": "shrinking", "shrink": "shrinking"}
__all__ = [
    "altmin",
    "baselines",
    "compare",
    "comparison",
    "data",
    "factorizations",
    "files",
    "load",
    "metrics",
    "models",
    "optim",
    "partitions",
    "penalties",
    "recipes",
    "report",
    "save",
    "shrink",
    "shrinking",
    "sketches",
    "structure",
    "training",
    "wiring",
]


def __getattr__(name: str) -> object:
    if name in _FUNCTIONS:
        return getattr(import_module(f"{__name__}.{_FUNCTIONS[name]}"), name)
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
