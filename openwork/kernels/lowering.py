"""The fused loops between source and machine code: as LLVM's bitcode, which is the same for all machines.

numba makes it, in ten seconds for a loop. So it lies in the package, in ``loops.zip``: users need llvmlite only, which
makes machine code of it in one second. Where the sources of the loops have changed since, numba is asked again;
``python -m openwork.kernels.lowering`` writes the file anew.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_args
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from openwork.kernels.fused import Method

# What the loops are made from.
SOURCES = ("numba_loops.py", "numba_factors.py", "numba_finite.py", "numba_memory.py", "tables.py")
ARCHIVE = Path(__file__).with_name("loops.zip")
PRECISIONS = ("float32", "float64")
# Loops: steps, and what comes before them.
FINITE = "all_finite"
LOOPS = (*get_args(Method), FINITE)


@dataclass(frozen=True)
class Loop:
    """A loop for any machine.

    Args:
        symbol: Name of its function.
        arguments: Their types, ``"int64"`` or ``"float64"``; a result and an exception of numba come before them.
        code: Bitcode.
    """

    symbol: str
    arguments: list[str]
    code: bytes


def loop(precision: str, method: str) -> Loop:
    """A loop of the present sources, from the package if it is there, and else by numba.

    Args:
        precision: ``"float32"`` or ``"float64"``.
        method: One of ``LOOPS``.

    Raises:
        RuntimeError: If it is in neither way there.
    """
    # One that is damaged, in whatever way, is as good as none.
    with suppress(Exception), ZipFile(ARCHIVE) as archive:
        if archive.read("digest").decode() == digest():
            name = _name(precision, method)
            return Loop(**json.loads(archive.read(f"{name}.json")), code=archive.read(f"{name}.bc"))
    try:
        return lowered(precision, method)
    except ImportError as error:
        raise RuntimeError(
            f"{ARCHIVE.name} is damaged or not of these sources, and numba, which makes it, is not there"
        ) from error


def digest() -> str:
    """What tells the present sources from others."""
    found = hashlib.sha256()
    for name in SOURCES:
        found.update((Path(__file__).parent / name).read_bytes())
    return found.hexdigest()


def lowered(precision: str, method: str) -> Loop:
    """A loop, made by numba.

    Args:
        precision: ``"float32"`` or ``"float64"``.
        method: One of ``LOOPS``.
    """
    numba: Any = import_module("numba")  # which has no types
    from openwork.kernels.numba_factors import factor_loops
    from openwork.kernels.numba_finite import finite_loop
    from openwork.kernels.numba_loops import loops

    name, _, depth = method.rpartition("_")
    if name == "factorized_sgd":
        source, arguments = factor_loops(precision, int(depth))
    elif method == FINITE:
        source, arguments = finite_loop(precision)
    else:
        source, arguments = loops(precision, method)
    options: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "error_model": "numpy"}
    compiled: Any = numba.njit(arguments, **options)(source)
    symbol, code = _simplified(compiled.inspect_llvm(compiled.signatures[0]))
    return Loop(symbol, [str(kind) for kind in arguments], code)


def _simplified(text: str) -> tuple[str, bytes]:
    """Name and bitcode of the one function that is needed, with what it calls, for no machine in particular."""
    llvm: Any = import_module("llvmlite.binding")
    module = llvm.parse_assembly(text)
    symbol = next(f.name for f in module.functions if not f.is_declaration and "step" in f.name)
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name != symbol:
            value.linkage = "internal"
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    optimize(module, llvm.Target.from_default_triple().create_target_machine(), level=1)
    lines = str(module).splitlines()
    general = [line for line in lines if not line.startswith(("target ", "source_filename", "; ModuleID"))]
    return symbol, llvm.parse_assembly("\n".join(general)).as_bitcode()


def optimize(module: Any, target: Any, *, level: int) -> None:
    """Have LLVM improve a module.

    Args:
        module: Of llvmlite.
        target: Machine.
        level: 1 for what is good on any machine, 3 for all, vectors of this machine included.
    """
    llvm: Any = import_module("llvmlite.binding")
    tuning = llvm.create_pipeline_tuning_options(speed_level=level)
    tuning.loop_vectorization = tuning.slp_vectorization = tuning.loop_unrolling = level == 3
    builder = llvm.create_pass_builder(target, tuning)
    builder.getModulePassManager().run(module, builder)


def _name(precision: str, method: str) -> str:
    return f"{precision}-{method}"


def _members() -> Iterator[tuple[str, bytes]]:
    yield "digest", digest().encode()
    for precision in PRECISIONS:
        for method in LOOPS:
            made = asdict(lowered(precision, method))
            name, code = _name(precision, method), made.pop("code")
            yield f"{name}.json", json.dumps(made).encode()
            yield f"{name}.bc", code


def write_archive() -> None:
    """Make all loops, and write them into the package."""
    with ZipFile(ARCHIVE, "w", ZIP_DEFLATED) as archive:
        for name, content in _members():
            archive.writestr(ZipInfo(name), content, ZIP_DEFLATED)


if __name__ == "__main__":
    # Before numba is imported: what it makes faster is for this machine.
    os.environ["NUMBA_OPT"] = "0"
    write_archive()
