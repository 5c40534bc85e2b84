"""Training runs: built from a model, an optimizer and data, driven to the end, stopped and resumed bit for bit."""

from openwork.training.checkpoint import BadCheckpoint
from openwork.training.fit import CHECKPOINT, fit, last_report, rebuild
from openwork.training.folder import Recipe, check_new, find_recipe, new_folder, read_recipe, write_recipe
from openwork.training.processes import processes
from openwork.training.run import Metrics, Run
from openwork.training.signals import Stopped
from openwork.training.supervised import Precision, supervised

__all__ = [
    "CHECKPOINT",
    "BadCheckpoint",
    "Metrics",
    "Precision",
    "Recipe",
    "Run",
    "Stopped",
    "check_new",
    "find_recipe",
    "fit",
    "last_report",
    "new_folder",
    "processes",
    "read_recipe",
    "rebuild",
    "supervised",
    "write_recipe",
]
