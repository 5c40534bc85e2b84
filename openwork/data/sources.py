"""Where the files of a data set are: in the user's folder, or at their official place."""

import hashlib
import os
import secrets
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """A file at its official place.

    Args:
        url: Of the file.
        sha256: Of its bytes, 64 hexadecimal digits.
    """

    url: str
    sha256: str


def locate(name: str, file: str, data_dir: Path | None, source: Source | None = None) -> Path:
    """Path of a file of a data set, fetched first if it is missing and a source is given.

    Args:
        name: Of the data set, and of its folder in ``data_dir``.
        file: Name of the file; one that ends in .gz or .bz2 besides will do.
        data_dir: Folder of data sets; the environment variable OPENWORK_DATA if ``None``.
        source: Where to fetch the file from if it is not there.

    Returns:
        A file that exists.

    Raises:
        ValueError: If neither ``data_dir`` nor OPENWORK_DATA is given, or a fetched file has another checksum.
        FileNotFoundError: If the file is not there and no source is given.
        OSError: If it cannot be fetched or written.
    """
    folder = folder_of(name, data_dir)
    for path in (folder / file, folder / f"{file}.gz", folder / f"{file}.bz2"):
        if path.is_file():
            return path
    if source is None:
        raise FileNotFoundError(
            f"{name}: {folder} has no file {file} (nor {file}.gz or .bz2); put it there, or choose another folder with "
            "data_dir or the environment variable OPENWORK_DATA (in Python, download=True fetches files whose official "
            "checksum is known)"
        )
    path = folder / source.url.rpartition("/")[2]
    fetch(name, source, path)
    return path


def folder_of(name: str, data_dir: Path | None) -> Path:
    """Folder of the data set ``name``, which need not exist.

    Raises:
        ValueError: If neither ``data_dir`` nor OPENWORK_DATA is given.
    """
    if data_dir is None and not os.environ.get("OPENWORK_DATA"):
        raise ValueError(
            f"{name}: no folder of data sets is given; pass data_dir or set the environment variable OPENWORK_DATA "
            f"to the folder that holds {name}/"
        )
    return (data_dir or Path(os.environ["OPENWORK_DATA"])) / name


def fetch(name: str, source: Source, path: Path) -> None:
    """Fetch ``source`` to ``path``, which appears only whole and with the right checksum.

    Raises:
        OSError: If the source cannot be reached or ``path`` cannot be written.
        ValueError: If what came has another checksum.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with urllib.request.urlopen(source.url, timeout=30) as answer, draft.open("xb") as file:
            while chunk := answer.read(1 << 20):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != source.sha256:
            raise ValueError(
                f"{name}: {source.url} has the SHA-256 {digest.hexdigest()}, expected {source.sha256}; "
                f"it was not kept: fetch it by other means and put it at {path}"
            )
        draft.replace(path)
    except (OSError, HTTPException) as error:
        raise OSError(
            f"{name}: cannot fetch {source.url}: {getattr(error, 'strerror', None) or error}; "
            f"check the network and the folder, or put the file at {path} yourself"
        ) from error
    finally:
        with suppress(OSError):  # it has its final name, or never came to be
            draft.unlink()
