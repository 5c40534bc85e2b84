"""Records in a JSON lines file that only grows: a crash can tear the last line, never an earlier one."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from openwork.files.json_files import Json, to_json
from openwork.files.whole import read_bytes, write_bytes


def append_record(path: Path, record: Mapping[str, Json]) -> None:
    """Append ``record`` to ``path`` as one line, on the disk when the call returns.

    A torn last line, left by a crash in an earlier call, is cut off first.

    Args:
        path: File to append to; made if it is not there.
        record: The object; NaN and infinities in it become ``null``.

    Raises:
        OSError: If ``path`` cannot be written.
    """
    line = to_json(record).encode() + b"\n"
    try:
        with path.open("a+b") as file:
            _cut_torn_line(file)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(
            f"cannot append to {path}: {error.strerror or error}; "
            "free some space there or choose a folder you can write to"
        ) from error


def _cut_torn_line(file: BinaryIO) -> None:
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)


def read_records(path: Path) -> list[dict[str, Json]]:
    """Records of the JSON lines file ``path``, in order, without a torn last line.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
        ValueError: If a line before the last is not a JSON object.
    """
    *lines, _torn = read_bytes(path).split(b"\n")
    records: list[dict[str, Json]] = []
    for number, line in enumerate(lines, start=1):
        try:
            record: Json = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise ValueError(
                f"{path}: line {number} of {len(lines)} is not a JSON object; restore the file from a copy"
            )
        records.append(record)
    return records


def truncate_records(path: Path, count: int) -> None:
    """Keep the first ``count`` records of ``path``, atomically, so that a resumed run can write on from there.

    Args:
        path: File of records; need not exist when ``count`` is 0.
        count: Records to keep, at least 0.

    Raises:
        OSError: If the file cannot be read or written.
        ValueError: If ``path`` holds fewer than ``count`` whole records.
    """
    if count == 0 and not path.exists():
        return
    *lines, _torn = read_bytes(path).split(b"\n")
    if not 0 <= count <= len(lines):
        raise ValueError(
            f"{path} holds {len(lines)} records, so it cannot be cut to {count}; "
            "restore the file from a copy or start the run anew"
        )
    write_bytes(path, b"".join(line + b"\n" for line in lines[:count]))
