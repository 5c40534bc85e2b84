"""Fused steps on CUDA devices, in Triton: as many launches for a thousand tensors as for one, and nobody waits."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels.device_tables import Table, device_tables
from openwork.kernels.fused import NEWTON, Descent, Found, FusedKernels, Method, capturing
from openwork.kernels.group_norm import Scalar
from openwork.kernels.regions import Plan, Region, Term

# Passes over groups that still move after the first one, which is rare where the last step's roots are near; what is
# left then is solved by one program for each block of groups.
PASSES = 2
# Tables of addresses that are remembered: gradients may come to lie elsewhere, and come back.
MOST_ADDRESSES = 8

EARLY = "a fused step was captured without a step just before; take one step outside of the capture first"


class CUDAKernels(FusedKernels):
    """Fused steps in Triton; see ``FusedKernels``."""

    @override
    def obstacle(self, method: Method, dtype: torch.dtype, plan: Plan) -> str | None:
        """Why there is no such step; see ``FusedKernels``."""
        if dtype not in (torch.float32, torch.float64):
            return f"of {dtype} on CUDA"
        return _failure(method, dtype)

    @override
    def all_finite(self, tensors: Sequence[Tensor]) -> bool | None:
        """None, since it would have to wait; see ``FusedKernels``."""
        return None

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
        if not isinstance(descent.gate, Tensor) and not descent.gate:
            return
        device = params[0].device
        known = _known(plan, device)
        if known.runs is None:
            return
        numbers = _vector((descent.gate, descent.sign, lr, decay, momentum), device)
        addresses = known.lists.of(_addresses((params, grads, *factors, *momentums)))
        with _on(device):
            _loops("factors").factors[(len(known.runs),)](
                known.runs,
                addresses,
                numbers,
                depth=len(factors),
                moving=bool(momentums),
                nesterov=nesterov,
                real=_loops("entries").REALS[params[0].dtype],
                num_warps=8,
                enable_fp_fusion=True,
            )

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
        device, dtype = lists[0][0].device, lists[0][0].dtype
        if not isinstance(descent.gate, Tensor) and not descent.gate:
            return 0.0
        known, told = _known(plan, device), found.kept.view(torch.uint8)
        scalars = _vector((descent.gate, descent.sign, descent.decay, penalty_weight, averaging, *numbers), device)
        addresses, starts = known.lists.of(_addresses(lists)), known.starts.of(found.starts(plan))
        # Whether products are fused with sums is said, since the default depends on the version.
        which = {"method": method, "real": _loops("entries").REALS[dtype], "num_warps": 4, "enable_fp_fusion": True}
        squares = torch.zeros(
            max(1, 0 if known.blocks is None else len(known.blocks)), dtype=torch.float64, device=device
        )
        with _on(device):
            if known.runs is not None:
                _loops("entries").entries[(len(known.runs),)](
                    known.runs, addresses, scalars, known.strengths, told, **which
                )
            if known.tiles is not None and known.blocks is not None:
                loops = _loops("groups")
                tiles, blocks = (known.tiles, addresses, scalars, known.strengths), (known.blocks, known.places)
                by_tiles, by_blocks = (len(known.tiles),), (len(known.blocks),)
                # Without Newton's method, a slot has one sum.
                sums = torch.empty(
                    (loops.SUMS.value if method in NEWTON else 1) * known.slots, dtype=torch.float64, device=device
                )
                roots = torch.empty(known.groups, dtype=torch.float64, device=device)
                moves = torch.empty(known.groups, dtype=torch.int32, device=device)
                solved = sums, roots, moves
                solving = starts, scalars, known.strengths, *solved
                loops.first_pass[by_tiles](known.tiles, addresses, starts, scalars, known.strengths, sums, **which)
                loops.solve[by_blocks](*blocks, *solving, first=True, **which)
                for _ in range(PASSES if method in NEWTON else 0):
                    loops.next_pass[by_tiles](*tiles, *solved, **which)
                    loops.solve[by_blocks](*blocks, *solving, first=False, **which)
                if method in NEWTON or dtype == torch.float64:
                    loops.solve_alone[by_blocks](*blocks, addresses, scalars, known.strengths, roots, moves, **which)
                loops.last_pass[by_tiles](*tiles, sums, roots, **which)
                loops.certify[by_blocks](*blocks, starts, scalars, known.strengths, sums, roots, told, squares, **which)
        return squares.sum()


def _addresses(lists: Sequence[Sequence[Tensor]]) -> list[int]:
    """Where all tensors are, those of one weight side by side."""
    return [x.data_ptr() for row in zip(*lists, strict=True) for x in row]


def _vector(numbers: Sequence[Scalar], device: torch.device) -> Tensor:
    """Numbers as one tensor in double precision; those from the host by kernels, since a copy could not be captured."""
    return torch.stack(
        [
            x.detach().to(torch.float64).reshape(())
            if isinstance(x, Tensor) and x.device == device
            else torch.full((), float(x), dtype=torch.float64, device=device)
            for x in numbers
        ]
    )


@cache
def _failure(method: Method, dtype: torch.dtype) -> str | None:
    """Why the kernels of a step cannot be compiled or run, which is tried once, on a few numbers.

    Raises:
        RuntimeError: If that is in a capture.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if capturing(device):
        raise RuntimeError(EARLY)
    try:
        _try(method, dtype, device)
    except Exception as error:
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        return (
            "on this machine, since Triton, which torch for CUDA brings, or the C compiler that it needs, is missing "
            f"or broken ({type(error).__name__}: {why})"
        )
    return None


def _try(method: Method, dtype: torch.dtype, device: torch.device) -> None:
    """Take a step of a matrix of two groups, and of one without groups."""
    kernels, descent = CUDAKernels(), Descent(1.0, 0.0, 1.0)
    entries = Region(0, 0, (1, 4, 1), (0, 1, 0))

    def lists(number: int, length: int) -> list[list[Tensor]]:
        return [[torch.ones(2, 2, dtype=dtype, device=device) for _ in range(length)] for _ in range(number)]

    if method.startswith("factorized_sgd"):
        depth = int(method[-1])
        params, grads, *others = lists(2 + 2 * depth, 1)
        kernels.factorized_sgd(
            params,
            grads,
            others[:depth],
            others[depth:],
            plan=Plan((Term("free", (entries,)),)),
            descent=descent,
            lr=0.1,
            decay=0.1,
            momentum=0.9,
            nesterov=False,
        )
        return
    groups = Region(1, 0, (2, 2, 1), (2, 1, 0))
    kernels._step(  # pyright: ignore[reportPrivateUsage]
        method,
        lists(5, 2),
        plan=Plan((Term("entries", (entries,), 0.1, 0.0, (2, 2)), Term("groups", (groups,), 0.1, 0.1, (2,)))),
        found=Found(
            torch.zeros(6, dtype=torch.bool, device=device),
            {1: torch.zeros(2, dtype=dtype, device=device)} if method in NEWTON else {},
        ),
        descent=descent,
        penalty_weight=1.0,
        averaging=1.0,
        numbers=(1.0,) * 6,
    )


def _loops(what: Literal["entries", "groups", "factors"]) -> Any:
    return import_module(f"openwork.kernels.triton_{what}")


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Launch kernels on a device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


# -- tables ---------------------------------------------------------------------------------------------------------


@dataclass
class _Addresses:
    """Tables of addresses on a device, which are sent there only where they are new.

    A captured copy reads its source again at every replay, and neither page-locked memory can be made in a capture nor
    a table be given back that a graph reads. So every step outside of a capture leaves a spare table with its source
    for the next capture in which there are new addresses (those of gradients, mostly), and both stay from then on.
    """

    device: torch.device
    known: dict[tuple[int, ...], Tensor] = field(default_factory=dict[tuple[int, ...], Tensor])
    captured: dict[tuple[int, ...], tuple[Tensor, ...]] = field(
        default_factory=dict[tuple[int, ...], tuple[Tensor, ...]]
    )
    spare: tuple[Tensor, Tensor] | None = None

    def of(self, addresses: Sequence[int]) -> Tensor:
        """The table of some addresses.

        Raises:
            RuntimeError: If they are new in a capture, and there was no step between this one and the last.
        """
        key = tuple(addresses)
        found = self.known.get(key)
        if not capturing(self.device):
            if found is None:
                if len(self.known) == MOST_ADDRESSES:
                    del self.known[next(iter(self.known))]
                found = self.known[key] = _sent(key, torch.int64, self.device)
            if self.spare is None or len(self.spare[0]) != len(key):
                self.spare = _host([0] * len(key), torch.int64, self.device), torch.empty_like(found)
            return found
        if key not in self.captured and found is not None:
            self.captured[key] = (found,)
        elif key not in self.captured:
            if self.spare is None or len(self.spare[0]) != len(key):
                raise RuntimeError(EARLY)
            (host, table), self.spare = self.spare, None
            host.copy_(torch.tensor(key, dtype=torch.int64))
            self.captured[key] = table, host
        table, *sources = self.captured[key]
        for host in sources:
            # In every graph, since no other one may have been replayed.
            table.copy_(host, non_blocking=True)
        return table


@dataclass
class _OnDevice:
    """What a plan is on one device; tables without rows are None.

    Args:
        groups: Number of groups of all terms.
        slots: Number of slots.
        tiles: Of groups.
        blocks: Of groups.
        places: Of groups.
        runs: Of entries.
        strengths: Of the terms.
        lists: Where the tensors of a step are.
        starts: Where the roots of each term are.
    """

    groups: int
    slots: int
    tiles: Tensor | None
    blocks: Tensor | None
    places: Tensor | None
    runs: Tensor | None
    strengths: Tensor
    lists: _Addresses
    starts: _Addresses


_plans: WeakKeyDictionary[Plan, dict[torch.device, _OnDevice]] = WeakKeyDictionary()
# Those of which a graph reads the tables.
_captured: set[Plan] = set()


def _known(plan: Plan, device: torch.device) -> _OnDevice:
    """The tables of a plan on a device, made once.

    Raises:
        RuntimeError: If that is in a capture.
    """
    by_device = _plans.setdefault(plan, {})
    if device not in by_device:
        if capturing(device):
            raise RuntimeError(EARLY)
        tables = device_tables(plan)
        by_device[device] = _OnDevice(
            tables.groups,
            tables.slots,
            _rows(tables.tiles, device),
            _rows(tables.blocks, device),
            _rows(tables.places, device),
            _rows(tables.runs, device),
            _sent(tables.strengths, torch.float64, device),
            _Addresses(device),
            _Addresses(device),
        )
    if capturing(device):
        _captured.add(plan)
    return by_device[device]


def _host(numbers: Sequence[float] | Table, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers on the host, from where they can be sent without waiting."""
    return torch.tensor(numbers, dtype=dtype, pin_memory=device.type == "cuda")


def _rows(table: Table, device: torch.device) -> Tensor | None:
    return _sent(table, torch.int64, device) if len(table) else None


def _sent(numbers: Sequence[float] | Table, dtype: torch.dtype, device: torch.device) -> Tensor:
    return _host(numbers, dtype, device).to(device, non_blocking=True)
