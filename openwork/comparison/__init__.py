"""Every method and the standard baselines on one task: same data, same budget, same measures."""

from openwork.comparison.compare import compare
from openwork.comparison.method import Method
from openwork.comparison.result import Cell, Result
from openwork.comparison.task import Task

__all__ = ["Cell", "Method", "Result", "Task", "compare"]
