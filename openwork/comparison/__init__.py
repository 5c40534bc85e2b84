"""Every method and the standard baselines on one task: same data, same budget, same measures."""

from openwork.comparison.compare import compare
from openwork.comparison.method import Method
from openwork.comparison.result import Cell, Failure, Result, Searched
from openwork.comparison.table import Mean, Row, Table
from openwork.comparison.target import Target
from openwork.comparison.task import Task

__all__ = ["Cell", "Failure", "Mean", "Method", "Result", "Row", "Searched", "Table", "Target", "Task", "compare"]
