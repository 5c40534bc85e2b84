"""Files of tensors and plain numbers: written atomically, read without ever running code from the file."""

import pickle
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import torch
from torch import Tensor

from openwork.files.whole import atomically

State = (
    None | bool | int | float | str | bytes | Tensor | Sequence["State"] | Mapping[str, "State"] | Mapping[int, "State"]
)


def write_tensors(path: Path, state: Mapping[str, State]) -> None:
    """Write ``state`` to ``path`` atomically, with ``torch.save``.

    Args:
        path: File to write.
        state: Tensors and plain values under string keys, nested at will.

    Raises:
        OSError: If ``path`` cannot be written, for example because the disk is full; it is then as it was.
        RuntimeError: If torch cannot save something in ``state``.
    """
    with atomically(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            # torch's writer hides the operating system's reason, such as a full disk, behind an error of its own.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def read_tensors(path: Path, device: torch.device | str = "cpu") -> dict[str, object]:
    """State in the file ``path``, read with ``torch.load(weights_only=True)``.

    Args:
        path: File that ``write_tensors`` wrote.
        device: Where the tensors go.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
        ValueError: If it is damaged, or holds anything but tensors and plain values.
    """
    try:
        with path.open("rb") as file:
            _check_whole(path, file)
            state: object = torch.load(file, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {path}; check the path") from error
    except OSError as error:
        raise OSError(f"cannot read {path}: {error.strerror}; choose a file you can read") from error
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds something other than tensors and plain values; "
            "nothing in it was run; use a checkpoint that openwork wrote"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}, not named values; use a file that openwork wrote")
    return cast("dict[str, object]", state)


def _check_whole(path: Path, file: BinaryIO) -> None:
    # torch.load does not compare the checksums inside the archive: a flipped bit would become a wrong weight, unseen.
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OverflowError):
        damaged = "the archive itself"
    if damaged is not None:
        raise ValueError(
            f"{path} is damaged or was cut short (at {damaged}), so it cannot be read as a checkpoint; "
            "restore it from a copy or start the run anew"
        )
    file.seek(0)
