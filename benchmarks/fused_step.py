"""Fused optimizer steps beside ``AdamW(fused=True)``: time, memory traffic, and the first step of a process.

On CUDA where torch finds it, and in a table of its own then; else on the CPU. Every optimizer steps the same random
gradients (seed 0, new ones for each step) in turn with AdamW, on two threads of the CPU; the table gives medians of the
ratios of neighboring rounds. Group lasso acts on the input features of every matrix and kernel; the rest is free.
The traffic is what a step must read and write, by definition, plus one more look at the gradients, which finds out
whether they are finite before anything changes (AdamW does not look). The first step is timed in processes of their
own, with an empty cache of compiled kernels and with a warm one.

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
from statistics import median
from time import perf_counter
from typing import Any, cast

import torch
from readme_table import Cell
from record import remembered, write_table
from step_time import LAM, MODELS, SEED, THREADS, groups, weights
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from openwork.optim import RAMDA, RMDA, FactorizedSGD, ProxAdamW
from openwork.penalties import GroupLasso

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAME = "fused_step_cuda" if DEVICE == "cuda" else "fused_step"
ROUNDS = 15
PENALTY = GroupLasso(LAM)

# Tensors that a step reads and writes, and how to build what takes it.
STEPS: dict[str, tuple[int, Callable[[str, list[nn.Parameter]], Optimizer]]] = {
    "RMDA": (6, lambda model, params: RMDA(groups(model, params, PENALTY), lr=0.1, fused=True)),
    "ProxAdamW": (7, lambda model, params: ProxAdamW(groups(model, params, PENALTY), fused=True)),
    "RAMDA": (8, lambda model, params: RAMDA(groups(model, params, PENALTY), fused=True)),
    "RAMDA, plain torch": (8, lambda model, params: RAMDA(groups(model, params, PENALTY), fused=False)),
    "FactorizedSGD, depth 3": (14, lambda model, params: FactorizedSGD(params, lr=0.1, depth=3, lam=1e-5, fused=True)),
}
ADAMW = 7
# The step reads its gradients once more.
LOOK = 1


def seconds(step: Callable[[], object]) -> float:
    """How long it takes, on a device by the clock of that."""
    if DEVICE == "cuda":
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        events[0].record()
        step()
        events[1].record()
        torch.cuda.synchronize()
        return events[0].elapsed_time(events[1]) / 1000
    begin = perf_counter()
    step()
    return perf_counter() - begin


def copy_bandwidth() -> float:
    """Bytes per second of a copy between two large tensors, read and write counted."""
    source = torch.ones(1 << 26, device=DEVICE)
    target = torch.empty_like(source)
    target.copy_(source)
    return 8 * source.numel() / median(seconds(lambda: target.copy_(source)) for _ in range(7))


def ratio_to_adamw(model: str, name: str) -> dict[str, Any]:
    """Medians over rounds in which AdamW and the other step in turn."""
    params = [nn.Parameter(x.detach().to(DEVICE)) for x in weights(model)]
    others = [nn.Parameter(p.detach().clone()) for p in params]
    generator = torch.Generator(DEVICE).manual_seed(SEED)
    for param, other in zip(params, others, strict=True):
        param.grad = other.grad = torch.empty_like(param)
    reference, stepper = AdamW(params, fused=True), STEPS[name][1](model, others)
    bandwidth = copy_bandwidth()
    pairs: list[tuple[float, float]] = []
    for round in range(ROUNDS + 2):
        for param in params:
            cast("Tensor", param.grad).normal_(0, 1e-3, generator=generator)
        pair = seconds(reference.step), seconds(stepper.step)
        # The first two rounds make state, load kernels and warm caches.
        if round > 1:
            pairs.append(pair)
    entries = sum(p.numel() for p in params)
    adamw, own = (median(pair[side] for pair in pairs) for side in (0, 1))
    del reference, stepper
    gc.collect()
    return {
        "adamw_ms": 1000 * adamw,
        "ms": 1000 * own,
        "ratio": median(other / one for one, other in pairs),
        "fraction": 4 * (STEPS[name][0] + LOOK) * entries / own / bandwidth,
        "adamw_fraction": 4 * ADAMW * entries / adamw / bandwidth,
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
    # Kernels are loaded or compiled where the optimizer is built.
    print(json.dumps(seconds(lambda: RAMDA([param], penalty=PENALTY, fused=fused).step())))


def cold_start() -> dict[str, Any]:
    """First steps with an empty cache, with a warm one, and in plain torch."""
    found: dict[str, list[float]] = {"empty": [], "warm": [], "plain": []}
    for _ in range(5):
        with tempfile.TemporaryDirectory() as cache:
            found["empty"].append(first_step(cache, fused=True))
            found["warm"].append(first_step(cache, fused=True))
            found["plain"].append(first_step(cache, fused=False))
    return {name: median(values) for name, values in found.items()} | {"load": os.getloadavg()[0]}


def milliseconds(x: float) -> Cell:
    """A time as the table has it."""
    return round(x) if DEVICE == "cpu" else f"{x:.2f}"


def main() -> None:
    """Measure and write the table."""
    rows: list[list[Cell]] = []
    for model in MODELS:
        for name, (tensors, _) in STEPS.items():
            part = f"{model}-{name}".lower().replace(" ", "-").replace(",", "")
            found = remembered(NAME, part, lambda model=model, name=name: ratio_to_adamw(model, name))
            traffic = f"{4 * tensors} + {4 * LOOK}"
            rows.append(
                [
                    model,
                    name,
                    milliseconds(found["ms"]),
                    milliseconds(found["adamw_ms"]),
                    f"{found['ratio']:.2f}",
                    traffic if "plain" not in name else "",
                    f"{(tensors + LOOK) / ADAMW:.2f}" if "plain" not in name else "",
                    f"{found['fraction']:.2f}" if "plain" not in name else "",
                    f"{found['adamw_fraction']:.2f}",
                ]
            )
            print(*rows[-1], sep="  ", flush=True)
    start = remembered(NAME, "cold-start", cold_start)
    write_table(
        NAME,
        f"Fused optimizer steps on {'the CPU' if DEVICE == 'cpu' else torch.cuda.get_device_name()}",
        [
            "weights",
            "optimizer",
            "ms",
            "AdamW fused, ms",
            "/ AdamW fused",
            "bytes per weight",
            "bytes / AdamW's",
            "of copy bandwidth",
            "AdamW's",
        ],
        rows,
        f"Medians of {ROUNDS} rounds in turn with torch.optim.AdamW(fused=True), and of the ratios of neighbors, "
        f"{f'{THREADS} threads, ' if DEVICE == 'cpu' else ''}float32, group lasso {LAM:g} on input features, random "
        f"weights and gradients (seed {SEED}). Bytes per weight: what a step reads and writes at least, each tensor "
        "once, plus one more look at the gradients that finds out whether they are finite; bytes / AdamW's is the "
        "ratio that a step limited by memory alone would have. Of copy bandwidth: these bytes over the time, against a "
        "plain copy in the same run. "
        f"The first step of a process takes {start['empty']:.2g} s with an empty cache of compiled kernels (RAMDA, "
        f"float32), {start['warm']:.2g} s with a warm one and {start['plain']:.2g} s in plain torch (medians of 5).",
    )


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    if sys.argv[1:2] == ["first"]:
        print_first_step(sys.argv[2] == "1")
    else:
        main()
