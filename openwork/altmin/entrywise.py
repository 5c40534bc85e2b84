"""How functions of single entries are computed: for some rows at a time, so that the cache holds what comes between."""

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from openwork.altmin.elementwise import Activation
from openwork.kernels import Scalar

# Entries per thread that are computed at a time on the CPU.
RUN = 1 << 15

Step = Callable[..., tuple[Tensor, ...]]


class Entrywise(Protocol):
    """A way to compute a function of single entries."""

    def __call__(
        self, step: Step, activation: Activation, numbers: Sequence[Scalar], entries: Sequence[Tensor | None]
    ) -> tuple[Tensor, ...]:
        """What ``step(activation, numbers, *entries)`` gives.

        Args:
            step: A function of this module's kind, known by its name and free of state.
            activation: Its first argument.
            numbers: Its second argument; numbers that change from call to call are best given as they are.
            entries: The rest: tensors of one shape, the first of which is there.
        """
        ...


def eager(
    step: Step, activation: Activation, numbers: Sequence[Scalar], entries: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """The step itself; see ``Entrywise``."""
    first = entries[0]
    if first is not None and first.device.type == "cpu":
        # A number in a tensor would take the slow way of a tensor.
        numbers = [float(number) for number in numbers]
    return in_runs(lambda *run: step(activation, tuple(numbers), *run), *entries)


def in_runs(step: Step, *entries: Any) -> tuple[Tensor, ...]:
    """What ``step`` gives for all rows, computed for some rows at a time where that is faster.

    Args:
        step: A function of tensors, row by row; per-channel numbers may stand along dimension 1. It returns tensors of
            the shape of the first.
        entries: Its arguments: tensors with equally many rows, or None; the first is a tensor.
    """
    first = entries[0]
    if torch.compiler.is_compiling() or first.device.type != "cpu" or first.ndim < 2:
        return step(*entries)
    run = RUN * torch.get_num_threads()
    if first.numel() <= run:
        return step(*entries)
    rows = max(1, run * len(first) // first.numel())
    outs: tuple[Tensor, ...] = ()
    for start in range(0, len(first), rows):
        found = step(*(None if x is None else x[start : start + rows] for x in entries))
        outs = outs or tuple(torch.empty_like(first) for _ in found)
        for out, part in zip(outs, found, strict=True):
            out[start : start + rows] = part
    return outs


class Compiled:
    """Steps compiled by ``torch.compile``: one loop that reads and writes every tensor once.

    All trainers of a process share the compiled code, which is made once per step and kind of activation, takes
    seconds, and fits any number of samples and units. Where it cannot be made, for want of a C++ compiler say, this is
    ``eager``.
    """

    def __init__(self) -> None:
        self._failed = False

    def __call__(
        self, step: Step, activation: Activation, numbers: Sequence[Scalar], entries: Sequence[Tensor | None]
    ) -> tuple[Tensor, ...]:
        """The step; see ``Entrywise``.

        Warns:
            UserWarning: Once, if it cannot be compiled.
        """
        first = entries[0]
        if not self._failed and first is not None:
            # Each new number would be compiled for itself; a zero leaves out what it multiplies.
            held = tuple(x if isinstance(x, Tensor) or not x else first.new_tensor(x) for x in numbers)
            try:
                return _compiled(step)(activation, held, *entries)
            except RuntimeError as error:
                self._failed = True
                reason = str(error).strip().partition("\n")[0]
                warnings.warn(
                    f"AMTrainer: compile=True runs uncompiled, since torch.compile failed: {reason}", stacklevel=2
                )
        return eager(step, activation, numbers, entries)


@cache
def _compiled(step: Step) -> Step:
    # One function serves all layers, and is compiled for each kind of activation.
    # (The overloads of torch 2.13 forget the last argument.)
    return torch.compile(step, fullgraph=True, dynamic=True, recompile_limit=128)  # pyright: ignore[reportCallIssue]
