"""Machine code of the fused loops: made by LLVM once, kept on disk, and loaded from there."""

import ctypes
import hashlib
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

from openwork.files import write_bytes
from openwork.kernels.lowering import digest, loop, optimize

_lock = Lock()
# The engines own the memory that the functions lie in.
_engines: list[Any] = []


def function(precision: str, method: str) -> Callable[..., int]:
    """A compiled loop, which runs without the interpreter's lock.

    Args:
        precision: ``"float32"`` or ``"float64"``.
        method: One of ``lowering.LOOPS``.

    Returns:
        A function of whole numbers, then numbers in double precision; ``numba_loops`` says which.
    """
    with _lock:
        return _function(precision, method)


@cache
def _function(precision: str, method: str) -> Callable[..., int]:
    llvm: Any = import_module("llvmlite.binding")  # which has no types
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_default_triple().create_target_machine(cpu=cpu, features=features, opt=3, jit=True)
    file = cache_folder() / f"{precision}-{method}-{_key(cpu, features)}.o"
    known = _read(file)
    if known is None:
        known = _compile(precision, method, target)
        _write(file, *known)
    header, code = known
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address = engine.get_function_address(header["symbol"])
    if not address:
        raise RuntimeError(f"the compiled step {header['symbol']} has no address")
    _engines.append(engine)
    # A function of numba returns a status, and has a place for its result and for an exception first.
    numbers = [{"int64": ctypes.c_int64, "float64": ctypes.c_double}[kind] for kind in header["arguments"]]
    call = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *numbers)(address)
    result, failure = ctypes.c_void_p(), ctypes.c_void_p()
    places = ctypes.addressof(result), ctypes.addressof(failure)
    _engines.extend((result, failure))
    return lambda *arguments: call(*places, *arguments)


def _compile(precision: str, method: str, target: Any) -> tuple[dict[str, Any], bytes]:
    llvm: Any = import_module("llvmlite.binding")
    known = loop(precision, method)
    module = llvm.parse_bitcode(known.code)
    module.triple, module.data_layout = target.triple, str(target.target_data)
    optimize(module, target, level=3)
    return {"symbol": known.symbol, "arguments": known.arguments}, target.emit_object(module)


def cache_folder() -> Path:
    """Where compiled loops are kept: in OPENWORK_CACHE, or in the user's folder for caches."""
    if chosen := os.environ.get("OPENWORK_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "openwork" / "kernels"


def _key(*parts: str) -> str:
    whole = repr((digest(), parts, version("llvmlite")))
    return hashlib.sha256(whole.encode()).hexdigest()[:20]


def _read(file: Path) -> tuple[dict[str, Any], bytes] | None:
    """What was written, if it is there and whole."""
    try:
        line, _, code = file.read_bytes().partition(b"\n")
        header = json.loads(line)
        return (header, code) if header["digest"] == hashlib.sha256(code).hexdigest() else None
    except (OSError, ValueError, KeyError):
        return None


def _write(file: Path, header: dict[str, Any], code: bytes) -> None:
    """Keep it, if that is possible: without, the next process compiles again."""
    line = json.dumps({**header, "digest": hashlib.sha256(code).hexdigest()}).encode()
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, line + b"\n" + code)
