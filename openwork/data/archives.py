"""NumPy archives, read without running anything in them."""

import zipfile
import zlib
from lzma import LZMAError
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def read_npz(path: Path, *names: str) -> tuple[Tensor, ...]:
    """The arrays ``names`` of the ``.npz`` file ``path``, in that order.

    Args:
        path: Of the archive.
        names: Of numeric arrays.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is damaged, or lacks one of the arrays.
    """
    try:
        # Opened here, because np.load leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return tuple(torch.as_tensor(archive[name]) for name in names)
    except KeyError as error:
        raise ValueError(
            f"{path} has not all of the arrays {', '.join(names)}; put the file of this data set there"
        ) from error
    except (zipfile.BadZipFile, LZMAError, zlib.error, EOFError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged or was cut short, so it does not unpack; fetch it anew") from error
