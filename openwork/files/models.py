"""Files of models: tensors as safetensors, with what there is to say about them as JSON in the same file.

The header's metadata has, under the key ``openwork``, the JSON object ``{"sha256", "schema", "tensors", "about"}``.
``tensors`` has an entry for each name, in order: ``{}`` for a tensor that is stored under its name; ``{"same_as": a}``
for one that is ``a``; ``{"shape", "mask", "signs"}`` for one of which only the entries other than positive and negative
zero are stored, under its name. ``mask`` names the tensor with a bit for each entry, set where it is stored; ``signs``
that with a bit for each zero, set where it is negative, and is None if all are positive. ``sha256`` is that of the file
with 64 zeros in its place: it tells damage and edits by hand, but not a forger, who can compute it anew.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from openwork.files.json_files import Json, to_json
from openwork.files.whole import atomically, read_bytes

SCHEMA = 1

# What a second entry costs in the header, about: a tensor is stored sparsely only where that saves more.
ENTRY_BYTES = 256

# What safetensors both writes and reads.
DTYPES = frozenset(
    {
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool),
        *(torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8),
    }
)

_KEY = "openwork"
_METADATA = "__metadata__"
_NO_DIGEST = "0" * 64
# The object is a string inside JSON, hence the backslashes; the checksum is its first member.
_BEFORE_DIGEST = b'"openwork":"{\\"sha256\\": \\"'

_DAMAGED = "{} is damaged, was cut short or edited: its content is not what its checksum says; restore it from a copy"

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def write_model(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Json], *, sparse: bool = False) -> None:
    """Write ``tensors`` and ``about`` to ``path`` atomically.

    Args:
        path: File to write.
        tensors: Strided tensors of any shape, on any device, of any type that safetensors has. Those that are the same
            entries of the same storage are stored once, and come back as one tensor; those that merely overlap are
            stored in full, each.
        about: Plain values, such as a plan and a certificate; NaN and infinities in it become ``null``.
        sparse: Of a tensor with many zeros, store a bit for each entry and the entries that are not zero, where that
            is smaller. Every bit comes back, the signs of zeros too. The file is smaller, and the model that comes
            back no faster.

    Raises:
        OSError: If ``path`` cannot be written; it is then as it was.
        TypeError: If ``about`` holds anything but plain values.
        ValueError: If a tensor cannot be stored.
    """
    tensors = dict(tensors)  # keeps those alive that a mapping makes on demand: their addresses are compared
    table: dict[str, Json] = {}
    stored: dict[str, Tensor] = {}
    first: dict[object, str] = {}
    for name, tensor in tensors.items():
        _check_storable(path, name, tensor)
        original = first.setdefault(_identity(tensor), name)
        if original == name:
            table[name] = {}
            # A copy, since safetensors refuses tensors that overlap.
            dense = tensor.detach().resolve_conj().resolve_neg().cpu()
            stored[name] = dense.clone(memory_format=torch.contiguous_format)
        else:
            table[name] = {"same_as": original}
    if sparse:
        for name in [*stored]:
            _make_sparse(name, table, stored, taken=tensors)
    header = to_json({"sha256": _NO_DIGEST, "schema": SCHEMA, "tensors": table, "about": about})
    content = save(stored, {_KEY: header, "format": "pt"})  # transformers reads nothing without a format
    before, after = _around_digest(content)
    with atomically(path) as file:
        file.write(before)
        file.write(_digest(before, after).encode())
        file.write(after)


def read_model(path: Path) -> tuple[dict[str, Tensor], dict[str, Json]]:
    """Tensors and plain values in the file ``path``, which ``write_model`` wrote.

    Returns:
        The tensors in the order in which they were written, dense and on the CPU, the same object where they were the
        same; and ``about``.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
        ValueError: If it is not a safetensors file, not one of ours, of a newer schema, damaged or edited.
    """
    content = read_bytes(path)
    header = _header(path, content)
    if header["schema"] != SCHEMA:
        raise ValueError(
            f"{path} has schema {header['schema']!r} and this openwork reads schema {SCHEMA}; "
            "upgrade openwork, or restore the file from a copy if it should be of this version"
        )
    if header["sha256"] != _digest(*_around_digest(content)):
        raise ValueError(_DAMAGED.format(path))
    try:
        stored = load(content)
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} holds tensors that this safetensors cannot read ({error}); upgrade it") from error
    tensors: dict[str, Tensor] = {}
    for name, entry in cast("dict[str, dict[str, Json]]", header["tensors"]).items():
        if "same_as" in entry:
            tensors[name] = tensors[str(entry["same_as"])]
        elif "mask" in entry:
            tensors[name] = _made_dense(entry, stored[name], stored)
        else:
            tensors[name] = stored[name]
    return tensors, cast("dict[str, Json]", header["about"])


def _check_storable(path: Path, name: str, tensor: Tensor) -> None:
    """Refuse what the file could not give back.

    Raises:
        ValueError: If the name is taken, or the tensor has no entries to store, or they have no place in the format.
    """
    if name == _METADATA:
        raise ValueError(f"cannot write {path}: safetensors keeps the name {name!r} for itself; rename that tensor")
    if tensor.layout != torch.strided:
        raise ValueError(f"cannot write {path}: {name!r} has layout {tensor.layout}; call its to_dense() before")
    if tensor.dtype not in DTYPES:
        raise ValueError(
            f"cannot write {path}: {name!r} has type {tensor.dtype}, which safetensors cannot hold; convert it before"
        )
    if tensor.is_meta:
        raise ValueError(f"cannot write {path}: {name!r} is on the meta device and has no entries; load it before")


def _identity(tensor: Tensor) -> object:
    """Equal for tensors that are the same entries in the same order."""
    if tensor.numel() == 0:  # has no address
        return id(tensor)
    strides = [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, *strides, tensor.is_conj(), tensor.is_neg())


def _make_sparse(name: str, table: dict[str, Json], stored: dict[str, Tensor], taken: Mapping[str, Tensor]) -> None:
    """Store the tensor ``name`` as bits and values, if that is smaller."""
    tensor = stored[name]
    bits = _bits(tensor)
    negative_zero = bits == _sign(bits)
    kept = (bits != 0) & ~negative_zero
    parts = {"mask": _packed(kept), "signs": _packed(negative_zero[~kept]) if negative_zero.any() else None}
    values = bits[kept].view(tensor.dtype)
    if values.nbytes + sum(part.nbytes + ENTRY_BYTES for part in parts.values() if part is not None) >= tensor.nbytes:
        return
    entry: dict[str, Json] = {"shape": [*tensor.shape]}
    stored[name] = values
    for key, part in parts.items():
        entry[key] = None
        if part is not None:
            unused = f"{name}.{key}"
            while unused in taken or unused in stored:
                unused += "_"
            entry[key], stored[unused] = unused, part
    table[name] = entry


def _made_dense(entry: Mapping[str, Json], values: Tensor, stored: Mapping[str, Tensor]) -> Tensor:
    """The tensor that ``_make_sparse`` took apart."""
    shape = torch.Size(cast("list[int]", entry["shape"]))
    bits = torch.zeros(shape.numel(), dtype=_INTEGERS[values.element_size()])
    kept = _unpacked(stored[str(entry["mask"])], len(bits))
    bits[kept] = _bits(values)
    if entry["signs"] is not None:
        zeros = ~kept
        bits[zeros] = _unpacked(stored[str(entry["signs"])], int(zeros.sum())) * _sign(bits)
    return bits.view(values.dtype).reshape(shape)


def _bits(tensor: Tensor) -> Tensor:
    """The entries as integers of their size; shape ``(numel,)``."""
    return tensor.flatten().view(_INTEGERS[tensor.element_size()])


def _sign(bits: Tensor) -> Tensor:
    """Negative zero: the highest bit alone."""
    return torch.tensor(torch.iinfo(bits.dtype).min, dtype=bits.dtype)


def _packed(flags: Tensor) -> Tensor:
    """Eight booleans a byte, the first in the highest bit, the last byte filled up with zeros."""
    octets = torch.nn.functional.pad(flags, (0, -len(flags) % 8)).view(-1, 8)
    return (octets.to(torch.uint8) << torch.arange(7, -1, -1, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


def _unpacked(packed: Tensor, count: int) -> Tensor:
    """The ``count`` booleans that ``_packed`` packed."""
    octets = (packed.unsqueeze(1) >> torch.arange(7, -1, -1, dtype=torch.uint8)) & 1
    return octets.flatten()[:count].bool()


def _header(path: Path, content: bytes) -> dict[str, Json]:
    """Our part of the header.

    Raises:
        ValueError: If there is none.
    """
    size = int.from_bytes(content[:8], "little")
    try:
        outer: Json = json.loads(content[8 : 8 + size])
    except (ValueError, RecursionError):
        outer = None
    if not isinstance(outer, dict):
        raise ValueError(
            f"{path} is not a safetensors file, or its beginning is damaged or was cut short; "
            "use a file that openwork wrote, or restore it from a copy"
        )
    metadata = outer.get(_METADATA)
    if not isinstance(metadata, dict) or _KEY not in metadata:
        raise ValueError(
            f"{path} is a safetensors file without a model's description by openwork; "
            "write it with openwork, or read its tensors with safetensors.torch.load_file"
        )
    try:
        header: Json = json.loads(str(metadata[_KEY]))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or not {"sha256", "schema", "tensors", "about"} <= header.keys():
        raise ValueError(_DAMAGED.format(path))
    return header


def _around_digest(content: bytes) -> tuple[memoryview, memoryview]:
    start = content.find(_BEFORE_DIGEST) + len(_BEFORE_DIGEST)
    view = memoryview(content)
    return view[:start], view[start + len(_NO_DIGEST) :]


def _digest(before: memoryview, after: memoryview) -> str:
    computed = hashlib.sha256(before)
    computed.update(_NO_DIGEST.encode())
    computed.update(after)
    return computed.hexdigest()
