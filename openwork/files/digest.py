"""Fingerprints of files and tensors."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def sha256(path: Path) -> str:
    """SHA-256 of the file ``path``, 64 hexadecimal digits.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {path}; check the path") from error
    except OSError as error:
        raise OSError(f"cannot read {path}: {error.strerror}; choose a file you can read") from error


def sha256_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors: their names, in the order of the alphabet, types, shapes and bits; 64 hexadecimal digits.

    Args:
        tensors: Strided tensors of any shape, on any device.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\n{tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
