"""Training runs: built from a model, an optimizer and data, driven to the end, stopped and resumed bit for bit."""

from openwork.training.alternating import alternating_run
from openwork.training.checkpoint import BadCheckpoint
from openwork.training.evaluation import evaluate
from openwork.training.finding import find_function
from openwork.training.fit import CHECKPOINT, METRICS, drive, fit, last_report, rebuild, units_done
from openwork.training.folder import Recipe, check_new, find_recipe, machine, new_folder, read_recipe, write_recipe
from openwork.training.gains import GAINS, SMALL, Gains, measure
from openwork.training.processes import is_lost, processes, timeout_s
from openwork.training.pruned import pruned
from openwork.training.run import Metrics, Run
from openwork.training.signals import Stopped, StopRequest, stop_requests
from openwork.training.supervised import Precision, supervised

__all__ = [
    "CHECKPOINT",
    "GAINS",
    "METRICS",
    "SMALL",
    "BadCheckpoint",
    "Gains",
    "Metrics",
    "Precision",
    "Recipe",
    "Run",
    "StopRequest",
    "Stopped",
    "alternating_run",
    "check_new",
    "drive",
    "evaluate",
    "find_function",
    "find_recipe",
    "fit",
    "is_lost",
    "last_report",
    "machine",
    "measure",
    "new_folder",
    "processes",
    "pruned",
    "read_recipe",
    "rebuild",
    "stop_requests",
    "supervised",
    "timeout_s",
    "units_done",
    "write_recipe",
]
