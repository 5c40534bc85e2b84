"""JSON files: strict JSON, written atomically."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from openwork.files.whole import read_text, write_text

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]


def to_json(value: Json, *, indent: int | None = None) -> str:
    """Strict JSON text of ``value``; NaN and infinities, for which JSON has no word, become ``null``."""
    return json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(value: Json) -> Json:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return value


def write_json(path: Path, value: Mapping[str, Json]) -> None:
    """Write ``value`` to ``path`` atomically, as indented JSON with a final newline.

    Args:
        path: File to write.
        value: The object; NaN and infinities in it become ``null``.

    Raises:
        OSError: If ``path`` cannot be written; it is then as it was.
    """
    write_text(path, to_json(value, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Json]:
    """Object in the JSON file ``path``.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
        ValueError: If it is not JSON, or not an object.
    """
    text = read_text(path)
    try:
        value: Json = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not JSON: {error.msg} in line {error.lineno}; "
            "it was cut short or edited by hand, so restore it from a copy or write it anew"
        ) from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a JSON {type(value).__name__}, not an object; restore it from a copy")
    return value
