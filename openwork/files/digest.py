"""Fingerprints of files."""

import hashlib
from pathlib import Path


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
