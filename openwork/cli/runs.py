"""Runs that commands begin with."""

import warnings
from pathlib import Path

from torch import nn

from openwork.training import Run, rebuild, units_done


def finished(folder: Path) -> tuple[Run, nn.Module]:
    """The run of a folder, and the module it hands over.

    Args:
        folder: Of a run.

    Returns:
        The run, and the module with exactly structured weights.

    Raises:
        ValueError: If it is not the folder of a run, or its checkpoint is damaged.
        TypeError: If its recipe returns no run.
        OSError: If a file cannot be read.

    Warns:
        UserWarning: If the run has not come to its end.
    """
    run = rebuild(folder)
    done = units_done(folder)
    if done < run.units:
        warnings.warn(
            f"{folder} is not finished, {done} of {run.units} units are done, and what follows is about what its last "
            f"checkpoint holds; finish it with: openwork train --resume {folder}",
            stacklevel=2,
        )
    return run, run.finish()
