"""Writing a file so that a crash leaves the old one or the new one, never half of either."""

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomically(path: Path) -> Generator[BinaryIO]:
    """Open a temporary file beside ``path`` that takes its place when the block ends well.

    The bytes are on the disk before the name changes hands, so ``path`` holds its old content or all of the new one,
    whatever interrupts the block.

    Args:
        path: File to write; its folder must exist.

    Yields:
        The temporary file, open for binary writing.

    Raises:
        OSError: If the folder does not exist, is not writable, or the disk is full; ``path`` is then as it was.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        # Not tempfile.mkstemp: its files are readable by their owner alone, and keep that mode under the final name.
        with draft.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise OSError(
            f"cannot write {path}: {error.strerror or error}; free some space there or choose a folder you can write to"
        ) from error
    finally:
        with suppress(OSError):  # it has its final name, or never came to be
            draft.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically.

    Raises:
        OSError: If ``path`` cannot be written; it is then as it was.
    """
    with atomically(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, as UTF-8 with its line ends unchanged.

    Raises:
        OSError: If ``path`` cannot be written; it is then as it was.
    """
    write_bytes(path, text.encode())


def read_bytes(path: Path) -> bytes:
    """Content of the file ``path``.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {path}; check the path") from error
    except OSError as error:
        raise OSError(f"cannot read {path}: {error.strerror}; choose a file you can read") from error


def read_text(path: Path) -> str:
    """Text of the UTF-8 file ``path``.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
        ValueError: If it is not UTF-8.
    """
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}; "
            "restore it from a copy or save it as UTF-8"
        ) from error
