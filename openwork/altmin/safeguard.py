"""What happens when a sweep raises the objective: it is taken back and done again without inertia."""

from collections.abc import Sequence
from math import isfinite
from typing import Literal, NamedTuple

import torch

from openwork.altmin.blocks import PLAIN, Blocks, Snapshot
from openwork.altmin.inertia import Inertia
from openwork.altmin.measurement import Measurement, measure
from openwork.altmin.sweep import WholeBlocks

Safeguard = Literal["sweep", "block", "none"]
# What the weight of the links grows by when the objective is not finite.
RESCUE = 10.0


class Outcome(NamedTuple):
    """A sweep that was accepted.

    Args:
        measured: After it.
        repeats: Sweeps, or blocks, that were done again.
        restarted: Whether the clock of the inertia starts again.
        growth: What ``rho`` was multiplied by.
    """

    measured: Measurement
    repeats: int = 0
    restarted: bool = False
    growth: float = 1.0


def guarded_sweep(blocks: Blocks, inertia: Inertia, safeguard: Safeguard, before: float) -> Outcome:
    """Sweep once.

    With inertia a sweep may raise the objective; without, only rounding can. Blocks are repeated one by one, or the
    sweep as a whole from the bits it started from: the third step never lowers the objective of a block that is
    minimized exactly, and a test per block rejects it nearly always.

    Args:
        blocks: Of the problem.
        inertia: Of this sweep.
        safeguard: What is repeated.
        before: The objective.

    Returns:
        What came of it.

    Raises:
        FloatingPointError: If the objective is not finite even without inertia and with ``rho`` ten times as large, or
            if no step size fits a block; the blocks are then as before.
    """
    slack = 1e-12 if blocks.problem.x.dtype == torch.float64 else 1e-6
    saved = blocks.snapshot()
    try:
        repeats = 0
        if safeguard == "block" and isinstance(blocks, WholeBlocks):
            repeats = blocks.guarded_sweep(inertia, slack)
        else:
            blocks.sweep(inertia)
        outcome = Outcome(measure(blocks), repeats)
        fell = outcome.measured.objective <= before + slack * abs(before)
        if safeguard == "sweep" and not fell and not inertia.none:
            outcome = _repeat(blocks, saved, 1.0)
        if not isfinite(outcome.measured.objective):
            outcome = _repeat(blocks, saved, RESCUE)
        if not isfinite(outcome.measured.objective):
            raise FloatingPointError(
                f"AMTrainer: the objective is {outcome.measured.objective}, even without inertia and with rho ten "
                "times as large; scale the inputs to about unit size, or take a larger mu"
            )
    except BaseException:  # an interrupt or a lack of memory as well
        blocks.restore(saved)
        raise
    return outcome


def _repeat(blocks: Blocks, saved: Sequence[Snapshot], growth: float) -> Outcome:
    """Go back and sweep without inertia."""
    blocks.restore(saved)
    blocks.forget()
    blocks.weigh(growth)
    blocks.sweep(PLAIN)
    return Outcome(measure(blocks), 1, True, growth)
