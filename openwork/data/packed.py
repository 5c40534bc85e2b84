"""Bytes of a file that may be compressed."""

import bz2
import gzip
import zlib
from pathlib import Path


def read_unpacked(path: Path) -> bytes:
    """Content of ``path``, decompressed when it is gzip or bzip2 by its first bytes.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the compressed data are damaged or cut short.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise OSError(f"cannot read {path}: {error.strerror}; choose a file you can read") from error
    try:
        if content.startswith(b"\x1f\x8b"):
            return gzip.decompress(content)
        if content.startswith(b"BZh"):
            return bz2.decompress(content)
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise ValueError(
            f"{path} is damaged or was cut short: it begins as a compressed file but does not unpack; fetch it anew"
        ) from error
    return content
