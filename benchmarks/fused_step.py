"""Fused optimizer steps beside ``AdamW(fused=True)``: time, memory traffic, and the first step of a process.

    python benchmarks/fused_step.py [tiny]

On CUDA where torch finds it, with a list of a billion weights more, and in a table of its own then; else on the CPU.
Every optimizer steps the same random gradients (seed 0, new ones for each step) in turn with AdamW, on two threads of
the CPU; the table gives medians of the ratios of neighboring rounds. On a device its own time is measured, with the
host ahead as it is in training, and the host's beside it. Group lasso acts on the input features of every matrix and
kernel; the rest is free. The first step is timed in processes of their own, with an empty cache of compiled kernels and
with a warm one. ``tiny`` tries all that on a few weights, and writes nothing.

Bytes are counted from what the loops read and write, in ``kernels/numba_loops.py`` and, by the same passes, in
``kernels/triton_groups.py``. First of all a step looks at its gradients: are all of them finite? Then a weight without
a group takes one pass, which touches each of its tensors once. A weight in a group takes two, and where groups are
input features, a tile of them is larger than the caches:

    what the first pass touches                               what the last pass touches
    RMDA       G, W0, V read, V written                       W0, V, W read, W written
    RAMDA      G, W0, V, U read, V, U written                 W0, V, U, W read, W written
    ProxAdamW  G, W, m, v read, m, v written                  W, m, v read, W written

On the CPU the first pass also leaves the metrics that it makes of U or v to the last one, which reads them instead: one
tensor more, which is read too before it is written, as is all that a CPU writes. Of groups that are output features, or
rows, it takes so few at a time that the last pass finds all in the caches.

Not counted are further passes over groups that Newton's method has not solved by then (three tensors read, rare where
the last step's roots are near), nor that the CPU finds in its caches some of what the first pass has left there. The
minimum is each tensor once, and no look at the gradients. Bytes over time are compared with an update of one large
tensor in place, which reads and writes each byte once, as an optimizer does: a copy's target would be read too on a CPU
before it is written.

A part that was measured is remembered; delete its file in benchmarks/results/fused_step (or fused_step_cuda) to measure
it again.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any, cast

import torch
from readme_table import Cell
from record import remembered, write_table
from step_time import LAM, LISTS, MODELS, SEED, THREADS, free_and_penalized, groups, weights
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from openwork.optim import RAMDA, RMDA, FactorizedSGD, ProxAdamW
from openwork.partitions import Slices
from openwork.penalties import GroupLasso

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAME = "fused_step_cuda" if DEVICE == "cuda" else "fused_step"
MEASURED = (*MODELS, "Llama 3.2 1B") if DEVICE == "cuda" else MODELS
# First steps are the compiler's work on a device, and differ little.
ROUNDS, STARTS = 15, 1 if DEVICE == "cuda" else 5
PENALTY, OUTPUTS = GroupLasso(LAM), GroupLasso(LAM, Slices(0))
# What it takes to leave a weight's metric to the last pass.
METRIC = 2 if DEVICE == "cpu" else 0
# Cycles that a device is kept busy while the host runs ahead, some 30 ms.
AHEAD = 50_000_000


@dataclass(frozen=True)
class Step:
    """What is measured, and the float32 numbers that it reads and writes for one weight.

    Args:
        build: The optimizer of a list and its parameters.
        least: Each tensor once; also what a weight without a group takes, after the look at its gradient.
        grouped: What a weight in a group takes; 0 where nobody has counted.
    """

    build: Callable[[str, list[nn.Parameter]], Optimizer]
    least: int
    grouped: int

    def bytes_per_weight(self, model: str) -> float:
        """Over all weights of a list, the look at gradients included."""
        with torch.device("meta"):
            params = [nn.Parameter(torch.empty(shape)) for shape in LISTS[model][0]()]
        free, penalized = (sum(p.numel() for p in some) for some in free_and_penalized(model, params))
        return 4 * (LOOK + (self.least * free + self.grouped * penalized) / (free + penalized))


STEPS = {
    "RMDA": Step(lambda model, params: RMDA(groups(model, params, PENALTY), lr=0.1, fused=True), 6, 4 + 4),
    "ProxAdamW": Step(lambda model, params: ProxAdamW(groups(model, params, PENALTY), fused=True), 7, 6 + 4 + METRIC),
    "RAMDA": Step(lambda model, params: RAMDA(groups(model, params, PENALTY), fused=True), 8, 6 + 5 + METRIC),
    # The last pass over rows finds all in the caches of a CPU.
    "RMDA, output features": Step(
        lambda model, params: RMDA(groups(model, params, OUTPUTS), lr=0.1, fused=True), 6, 6 if DEVICE == "cpu" else 8
    ),
    "RAMDA, output features": Step(
        lambda model, params: RAMDA(groups(model, params, OUTPUTS), fused=True), 8, 8 if DEVICE == "cpu" else 11
    ),
    "RAMDA, plain torch": Step(lambda model, params: RAMDA(groups(model, params, PENALTY), fused=False), 8, 0),
    # No groups: the gradient, and the weight, factors and momentums.
    "FactorizedSGD, depth 3": Step(
        lambda model, params: FactorizedSGD(params, lr=0.1, depth=3, lam=1e-5, fused=True), 14, 14
    ),
}
ADAMW = 7
# The step reads its gradients once more.
LOOK = 1


def timed(step: Callable[[], object]) -> tuple[float, float]:
    """How many seconds a step takes, on a device by the clock of that, and how many the host."""
    if DEVICE == "cpu":
        begin = perf_counter()
        step()
        seconds = perf_counter() - begin
        return seconds, seconds
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(AHEAD)
    begin.record()
    host = perf_counter()
    step()
    host = perf_counter() - host
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000, host


def update_bandwidth(entries: int = 1 << 26) -> float:
    """Bytes per second of an update in place of one tensor, larger than all caches; read and write counted."""
    x = torch.ones(entries, device=DEVICE)
    x.mul_(1.0)
    return 8 * entries / median(timed(lambda: x.mul_(1.0))[0] for _ in range(7))


def ratio_to_adamw(model: str, name: str, rounds: int) -> dict[str, Any]:
    """Medians over rounds in which AdamW and the other step in turn."""
    params = weights(model, DEVICE)
    others = [nn.Parameter(p.detach().clone()) for p in params]
    generator = torch.Generator(DEVICE).manual_seed(SEED)
    for param, other in zip(params, others, strict=True):
        other.grad = param.grad
    reference, stepper = AdamW(params, fused=True), STEPS[name].build(model, others)
    bandwidth = update_bandwidth()
    pairs: list[tuple[tuple[float, float], tuple[float, float]]] = []
    for round in range(rounds + 2):
        for param in params:
            cast("Tensor", param.grad).normal_(0, 1e-3, generator=generator)
        pair = timed(reference.step), timed(stepper.step)
        # The first two rounds make state, load kernels and warm caches.
        if round > 1:
            pairs.append(pair)
    adamw, own, adamw_host, host = (1000 * median(p[side][clock] for p in pairs) for clock in (0, 1) for side in (0, 1))
    del reference, stepper, params, others
    gc.collect()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
    return {
        "adamw_ms": adamw,
        "ms": own,
        "adamw_host_ms": adamw_host,
        "host_ms": host,
        "ratio": median(other[0] / one[0] for one, other in pairs),
        "update_bandwidth": bandwidth,
        "load": os.getloadavg()[0],
    }


def first_step(cache: str, fused: bool) -> float:
    """Seconds of the first step of a process."""
    command = [sys.executable, __file__, "first", str(int(fused))]
    environment = {**os.environ, "OPENWORK_CACHE": cache, "TRITON_CACHE_DIR": cache}
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    return float(json.loads(told))


def print_first_step(fused: bool) -> None:
    """Time the first step of this process; what any optimizer of torch loads at its first step is loaded before."""
    param = nn.Parameter(torch.randn(64, 64, device=DEVICE))
    param.grad = torch.randn(64, 64, device=DEVICE)
    AdamW([param], fused=True).step()
    begin = perf_counter()
    # Kernels are loaded or compiled where the optimizer is built.
    RAMDA([param], penalty=PENALTY, fused=fused).step()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    print(json.dumps(perf_counter() - begin))


def cold_start() -> dict[str, Any]:
    """First steps with an empty cache, with a warm one, and in plain torch."""
    found: dict[str, list[float]] = {"empty": [], "warm": [], "plain": []}
    for _ in range(STARTS):
        with tempfile.TemporaryDirectory() as cache:
            found["empty"].append(first_step(cache, fused=True))
            found["warm"].append(first_step(cache, fused=True))
            found["plain"].append(first_step(cache, fused=False))
    return {name: median(values) for name, values in found.items()} | {"load": os.getloadavg()[0]}


def milliseconds(x: float) -> Cell:
    """A time as the table has it."""
    return round(x) if DEVICE == "cpu" else f"{x:.2f}"


def row(model: str, name: str, found: dict[str, Any]) -> dict[str, Cell]:
    """One line of the table, by column."""
    step = STEPS[name]
    cells: dict[str, Cell] = {"weights": model, "optimizer": name}
    cells |= {"ms": milliseconds(found["ms"]), "AdamW fused, ms": milliseconds(found["adamw_ms"])}
    cells["/ AdamW fused"] = f"{found['ratio']:.2f}"
    if DEVICE == "cuda":
        cells["host, ms"] = milliseconds(found["host_ms"])
        cells["AdamW's host, ms"] = milliseconds(found["adamw_host_ms"])
    touched = step.bytes_per_weight(model) if step.grouped else None
    cells["bytes per weight"] = "" if touched is None else f"{touched:.0f}"
    cells["at least"] = 4 * step.least if touched is not None else ""
    cells["bytes / AdamW's"] = "" if touched is None else f"{touched / (4 * ADAMW):.2f}"
    # What was measured before there was this number goes without.
    if "update_bandwidth" in found:
        entries = sum(torch.Size(shape).numel() for shape in LISTS[model][0]())
        fraction = 1000 * entries / found["update_bandwidth"]
        cells["of an update's speed"] = "" if touched is None else f"{touched * fraction / found['ms']:.2f}"
        cells["AdamW's"] = f"{4 * ADAMW * fraction / found['adamw_ms']:.2f}"
    return cells


def main() -> None:
    """Measure and write the table."""
    if DEVICE == "cuda":
        torch.cuda.init()
    rows: list[dict[str, Cell]] = []
    for model in MEASURED:
        for name in STEPS:
            part = f"{model}-{name}".lower().replace(" ", "-").replace(",", "")
            found = remembered(NAME, part, lambda model=model, name=name: ratio_to_adamw(model, name, ROUNDS))
            rows.append(row(model, name, found))
            print(*rows[-1].values(), sep="  ", flush=True)
    columns = [name for name in rows[0] if all(name in cells for cells in rows)]
    start = remembered(NAME, "cold-start", cold_start)
    speed = (
        " Of an update's speed: these bytes over the time, against an update in place of one large tensor in the same "
        "run, which also reads and writes each byte once."
        if "of an update's speed" in columns
        else ""
    )
    where = (
        f"{THREADS} threads, "
        if DEVICE == "cpu"
        else "times of the device by its own events, with the host ahead, and those of the host beside them, "
    )
    write_table(
        NAME,
        f"Fused optimizer steps on {'the CPU' if DEVICE == 'cpu' else torch.cuda.get_device_name()}",
        columns,
        [[cells[name] for name in columns] for cells in rows],
        f"Medians of {ROUNDS} rounds in turn with torch.optim.AdamW(fused=True), and of the ratios of neighbors, "
        f"{where}float32, group lasso {LAM:g} on input features, or on output features where it says so, random "
        f"weights and gradients (seed {SEED}). Bytes per weight: what the passes of a step read and write, over all "
        "weights; those in groups take two passes, the others one"
        f"{', and what the second finds in the caches, of output features, does not count' * (DEVICE == 'cpu')}; all "
        "gradients are looked at once more, to find out whether they are finite. Further passes "
        "over groups that two have not solved are not counted. At least: each tensor once, and no such look. "
        f"Bytes / AdamW's is the ratio that a step limited by memory alone would have.{speed} "
        f"The first step of a process takes {start['empty']:.2g} s with an empty cache of compiled kernels (RAMDA, "
        f"float32), {start['warm']:.2g} s with a warm one and {start['plain']:.2g} s in plain torch "
        f"({f'medians of {STARTS}' if STARTS > 1 else 'once each'}).",
    )


def tiny() -> None:
    """Try all steps, and print."""
    for name in STEPS:
        print(*row("small", name, ratio_to_adamw("small", name, rounds=2)).values(), sep="  ", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    match sys.argv[1:]:
        case ["first", fused]:
            print_first_step(fused == "1")
        case ["tiny"]:
            tiny()
        case _:
            main()
