"""Fused steps on the CPU."""

from array import array
from collections.abc import Callable, Sequence
from functools import cache
from threading import local

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels.fused import Descent, Found, FusedKernels, Method
from openwork.kernels.group_norm import Scalar
from openwork.kernels.lowering import FINITE
from openwork.kernels.native import function
from openwork.kernels.regions import Plan, dense
from openwork.kernels.tables import CHUNK_ENTRIES, GROUP, LANE, ROW, WIDEST, Tables, ranges, tables
from openwork.kernels.threads import run

_memory = local()


class CPUKernels(FusedKernels):
    """Fused steps as machine code; see ``FusedKernels``."""

    @override
    def obstacle(self, method: Method, dtype: torch.dtype, plan: Plan) -> str | None:
        """Why there is no such step; see ``FusedKernels``."""
        if dtype not in (torch.float32, torch.float64):
            return f"of {dtype} on the CPU"
        if tables(plan) is None:
            return "for groups that lie so in memory"
        return _failure(method, dtype)

    @override
    def all_finite(self, tensors: Sequence[Tensor]) -> bool | None:
        """Whether all numbers are finite; see ``FusedKernels``."""
        dtype = tensors[0].dtype
        if any([x.dtype != dtype or not _is_dense(x) for x in tensors]):
            return None
        if dtype not in (torch.float32, torch.float64) or _failure(FINITE, dtype) is not None:
            return None
        pieces, lengths = array("q"), list[int]()
        size = dtype.itemsize
        for x in tensors:
            address, length = x.data_ptr(), x.numel()
            while length > CHUNK_ENTRIES:
                pieces.extend((address, CHUNK_ENTRIES))
                lengths.append(CHUNK_ENTRIES)
                address, length = address + size * CHUNK_ENTRIES, length - CHUNK_ENTRIES
            pieces.extend((address, length))
            lengths.append(length)
        found = torch.empty(len(lengths), dtype=torch.float64)
        call = function(_name(dtype), FINITE)
        _run(ranges(lengths), lambda begin, end: call(begin, end, _address(pieces), found.data_ptr()))
        return not bool(found.any())

    @override
    def factorized_sgd(
        self,
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        factors: Sequence[Sequence[Tensor]],
        momentums: Sequence[Sequence[Tensor]],
        *,
        plan: Plan,
        descent: Descent,
        lr: Scalar,
        decay: Scalar,
        momentum: Scalar,
        nesterov: bool,
    ) -> None:
        """One step on factors; see ``FusedKernels``."""
        if not descent.gate:
            return
        known = _tables(plan)
        addresses = array("q", [x.data_ptr() for xs in (params, grads, *factors, *momentums) for x in xs])
        call = function(_name(params[0].dtype), f"factorized_sgd_{len(factors)}")
        moves = bool(momentums), nesterov
        numbers = [float(x) for x in (descent.sign, lr, decay, momentum)]

        def work(begin: int, end: int) -> None:
            places = (_address(x) for x in (known.tiles, known.panels, addresses))
            call(begin, end, *places, len(params), *moves, *numbers)

        _run(known.ranges, work)

    @override
    def _step(
        self,
        method: Method,
        lists: Sequence[Sequence[Tensor]],
        *,
        plan: Plan,
        found: Found,
        descent: Descent,
        penalty_weight: Scalar,
        averaging: Scalar,
        numbers: Sequence[Scalar],
    ) -> Scalar:
        if not descent.gate:
            return 0.0
        known = _tables(plan)
        first = lists[0][0]
        addresses = array("q", [x.data_ptr() for xs in lists for x in xs])
        starts = array("q", found.starts(plan))
        bits = found.kept.data_ptr()
        bools = array("q", [bits + begin for begin in plan.kept[:-1]])
        residuals = torch.empty(len(known.entries), dtype=torch.float64)
        call = function(_name(first.dtype), method)
        scalars = [float(x) for x in (penalty_weight, averaging, descent.sign, descent.decay, *numbers)]
        scalars += [0.0] * (10 - len(scalars))
        scratch_bytes = WIDEST * GROUP * 8 + (5 * LANE + 9 * ROW + known.metrics) * first.element_size()

        def work(begin: int, end: int) -> None:
            places = (_address(x) for x in (known.tiles, known.panels, known.strengths, addresses))
            memory = _scratch(scratch_bytes)
            call(
                begin,
                end,
                *places,
                len(lists[0]),
                _address(starts),
                _address(bools),
                residuals.data_ptr(),
                memory.data_ptr(),
                *scalars,
            )

        _run(known.ranges, work)
        return float(residuals.sum())


@cache
def _failure(method: str, dtype: torch.dtype) -> str | None:
    """Why a step cannot be compiled or loaded, which is tried once."""
    try:
        function(_name(dtype), method)
    except Exception as error:
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        return (
            "on this machine, since llvmlite, which pip install 'openwork[fused]' brings, or the package's own file is "
            f"missing or broken ({type(error).__name__}: {why})"
        )
    return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _tables(plan: Plan) -> Tables:
    known = tables(plan)
    if known is None:
        raise ValueError("the groups of this plan have no fused step on the CPU; ask obstacle() first")
    return known


def _run(ranges: Sequence[tuple[int, int]], work: Callable[[int, int], object]) -> None:
    """Do pieces of work, a range at a time."""
    run(lambda number: work(*ranges[number]), len(ranges))


def _is_dense(x: Tensor) -> bool:
    """Whether its entries lie side by side, in whatever order."""
    return x.is_contiguous() or dense(0, x.shape, x.stride()) is not None


def _address(numbers: array) -> int:  # pyright: ignore
    return numbers.buffer_info()[0]


def _scratch(size: int) -> Tensor:
    """Memory of this thread."""
    held: Tensor | None = getattr(_memory, "scratch", None)
    if held is None or held.numel() < size:
        held = _memory.scratch = torch.empty(size, dtype=torch.uint8)
    return held
