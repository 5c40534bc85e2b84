"""The processes that share a run."""

import torch
from accelerate import PartialState


def processes() -> PartialState:
    """Accelerate's view of them, to be asked for before anything else of accelerate's.

    Where there is no accelerator it must be told so: several processes of ``torchrun`` would each train alone there,
    all in one folder.
    """
    return PartialState(cpu=not torch.accelerator.is_available())
