"""The processes that share a run."""

import os
from datetime import timedelta
from math import inf

import torch
import torch.distributed as dist
from accelerate import PartialState

# Seconds after which a process that waits for the others gives up, unless the environment's OPENWORK_TIMEOUT_S says
# otherwise.
TIMEOUT_S = 600.0

# What torch's messages have in common where another process is gone, or does not answer in time. Its exceptions do not
# say so: most of these are plain RuntimeErrors.
_LOST = (
    "closed by peer",
    "reset by peer",
    "broken pipe",
    "timed out",
    "timeout",
    "connection refused",
    "remote process",
)


def processes() -> PartialState:
    """Accelerate's view of them, to be asked for before anything else of accelerate's.

    Where there is no accelerator it must be told so: several processes of ``torchrun`` would each train alone there,
    all in one folder.

    Raises:
        ValueError: If OPENWORK_TIMEOUT_S is not a positive number.
    """
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(seconds=timeout_s()))


def timeout_s() -> float:
    """Seconds after which a process that waits for the others gives up.

    Raises:
        ValueError: If OPENWORK_TIMEOUT_S is not a positive number.
    """
    text = os.environ.get("OPENWORK_TIMEOUT_S", str(TIMEOUT_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < inf:
        raise ValueError(f"OPENWORK_TIMEOUT_S must be a positive number of seconds, got {text!r}; leave it out for 600")
    return seconds


def is_lost(error: BaseException) -> bool:
    """Whether an error means that another process of the run is gone, or has not answered in time."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() < 2:
        return False
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in said for words in _LOST)
