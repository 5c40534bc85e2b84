"""Files that are either whole or not there: atomic writing, safe reading, append-only records."""

from openwork.files.digest import sha256, sha256_of
from openwork.files.json_files import Json, read_json, write_json
from openwork.files.models import read_model, write_model
from openwork.files.records import append_record, read_records, truncate_records
from openwork.files.tensors import State, read_tensors, write_tensors
from openwork.files.whole import atomically, read_bytes, read_text, write_bytes, write_text

__all__ = [
    "Json",
    "State",
    "append_record",
    "atomically",
    "read_bytes",
    "read_json",
    "read_model",
    "read_records",
    "read_tensors",
    "read_text",
    "sha256",
    "sha256_of",
    "truncate_records",
    "write_bytes",
    "write_json",
    "write_model",
    "write_tensors",
    "write_text",
]
