"""Time and memory of one optimizer step, side by side, on weights shaped like ResNet-50 and like GPT-2 small.

Every optimizer steps the same random weights with the same random gradients (seed 0), in turn, on two threads; the
table gives medians of the rounds and ratios to AdamW measured in the same run. Group lasso acts on the input features
of every matrix and kernel; biases, norms and (in GPT-2) embeddings are free. Peak memory is measured in a fresh process
per optimizer, as the growth of the resident set over weights and gradients.
"""

import ctypes
import gc
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from record import write_table
from torch import nn
from torch.optim import AdamW, Optimizer

from openwork.optim import RAMDA, RMDA, ProxAdamW, ProximalOptimizer
from openwork.penalties import DiagonalProx, GroupLasso, ProximalGradient

THREADS, ROUNDS, SEED = 2, 7, 0
# Strong enough that some groups die, so that the zero test is exercised.
LAM = 1e-4


def resnet50() -> list[tuple[int, ...]]:
    """Shapes of ResNet-50 for ImageNet, 25.6 million entries."""
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7), (64,), (64,)]
    channels = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            kernels = [(width, channels, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)]
            kernels += [(4 * width, channels, 1, 1)] if block == 0 else []
            shapes += [shape for kernel in kernels for shape in (kernel, (kernel[0],), (kernel[0],))]
            channels = 4 * width
    return [*shapes, (1000, channels), (1000,)]


def gpt2() -> list[tuple[int, ...]]:
    """Shapes of GPT-2 small with tied embeddings, 124 million entries; the first two are the embeddings."""
    shapes: list[tuple[int, ...]] = [(50257, 768), (1024, 768)]
    for _ in range(12):
        for rows, columns in ((2304, 768), (768, 768), (3072, 768), (768, 3072)):
            shapes += [(rows, columns), (rows,)]
        shapes += [(768,)] * 4
    return [*shapes, (768,), (768,)]


def llama() -> list[tuple[int, ...]]:
    """Shapes of Llama 3.2 1B with tied embeddings, 1.24 billion entries; the first is the embedding."""
    shapes: list[tuple[int, ...]] = [(128256, 2048)]
    for _ in range(16):
        shapes += [(2048, 2048), (512, 2048), (512, 2048), (2048, 2048)]
        shapes += [(8192, 2048), (8192, 2048), (2048, 8192), (2048,), (2048,)]
    return [*shapes, (2048,)]


def small() -> list[tuple[int, ...]]:
    """Some shapes to try a script with."""
    return [(8, 3, 3, 3), (8,), (16, 8, 3, 3), (16,), (10, 16), (10,)]


# Shapes, and how many of the first ones are free.
LISTS = {"ResNet-50": (resnet50, 0), "GPT-2 small": (gpt2, 2), "Llama 3.2 1B": (llama, 1), "small": (small, 0)}
MODELS = ("ResNet-50", "GPT-2 small")


def weights(model: str, device: str = "cpu") -> list[nn.Parameter]:
    """Random weights of a model's shapes, with random gradients, drawn where they are."""
    generator = torch.Generator(device).manual_seed(SEED)
    params: list[nn.Parameter] = []
    for shape in LISTS[model][0]():
        params.append(nn.Parameter(0.02 * torch.randn(shape, generator=generator, device=device)))
        params[-1].grad = 1e-3 * torch.randn(shape, generator=generator, device=device)
    return params


def free_and_penalized(model: str, params: list[nn.Parameter]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Embeddings and vectors, and matrices and kernels."""
    first = LISTS[model][1]
    penalized = [p for p in params[first:] if p.ndim > 1]
    return [*params[:first], *(p for p in params[first:] if p.ndim == 1)], penalized


def groups(model: str, params: list[nn.Parameter], penalty: DiagonalProx) -> list[dict[str, object]]:
    """Matrices and kernels with the penalty, the rest without."""
    free, penalized = free_and_penalized(model, params)
    return [{"params": penalized, "penalty": penalty}, {"params": free}]


def optimizers(model: str, params: list[nn.Parameter]) -> dict[str, Callable[[], Optimizer]]:
    """What is compared, by name."""
    lasso = GroupLasso(LAM)
    # The solver the paper describes, run to its bound: this tolerance never stops it early.
    gradient = ProximalGradient(lasso, tolerance=1e-30, max_iterations=100)
    return {
        "AdamW(foreach=True)": lambda: AdamW(params, foreach=True),
        "AdamW(fused=True)": lambda: AdamW(params, fused=True),
        "RMDA": lambda: RMDA(groups(model, params, lasso), lr=0.1),
        "ProxAdamW": lambda: ProxAdamW(groups(model, params, lasso)),
        "RAMDA": lambda: RAMDA(groups(model, params, lasso)),
        "RAMDA, 100 proximal gradient iterations": lambda: RAMDA(groups(model, params, gradient)),
    }


def step_seconds(model: str) -> dict[str, float]:
    """Median seconds of a step of every optimizer, measured in turn; the slow reference is measured once."""
    params = weights(model)
    makers = optimizers(model, params)
    slow = next(name for name in makers if "100" in name)
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    made = {name: make() for name, make in makers.items() if name != slow}
    for round in range(ROUNDS + 2):
        for name, optimizer in made.items():
            begin = perf_counter()
            optimizer.step()
            # The first two rounds make state and warm caches.
            if round > 1:
                seconds[name].append(perf_counter() - begin)
    made.clear()
    gc.collect()
    reference = makers[slow]()
    begin = perf_counter()
    reference.step()
    seconds[slow].append(perf_counter() - begin)
    return {name: median(values) for name, values in seconds.items()}


def resident_megabytes(field: str) -> float:
    """A line of this process's status, such as VmRSS (now) or VmHWM (peak)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith(field)).split()[1]) / 1024


def print_memory(model: str, name: str) -> None:
    """Print state and peak memory of three steps, over weights and gradients, and that of the backup, in MiB."""
    # What torch loads at the first step of any optimizer is not this one's.
    tiny = nn.Parameter(torch.zeros(2, 2))
    tiny.grad = torch.ones(2, 2)
    for warm_up in (AdamW([tiny]), AdamW([tiny], fused=True), RAMDA([tiny], penalty=GroupLasso(LAM))):
        warm_up.step()
    params = weights(model)
    gc.collect()
    # Memory that is freed but not given back would hide what a step needs.
    ctypes.CDLL(None).malloc_trim(0)
    before = resident_megabytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak starts anew
    optimizer = optimizers(model, params)[name]()
    for _ in range(3):
        optimizer.step()
    state = sum(
        value.numel() * value.element_size()
        for entry in optimizer.state.values()
        for value in entry.values()
        if isinstance(value, torch.Tensor)
    )
    peak = resident_megabytes("VmHWM") - before
    ctypes.CDLL(None).malloc_trim(0)
    before = resident_megabytes("VmRSS")
    with optimizer.structured() if isinstance(optimizer, ProximalOptimizer) else nullcontext():
        ctypes.CDLL(None).malloc_trim(0)
        print(state / 2**20, peak, resident_megabytes("VmRSS") - before)


def memory(model: str, name: str) -> tuple[float, float, float]:
    """State, peak of a step and growth inside ``structured()``, of an optimizer in a fresh process, in MiB."""
    command = [sys.executable, __file__, "memory", model, name]
    state, peak, backup = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(state), float(peak), float(backup)


def main() -> None:
    """Measure and write the table."""
    rows: list[list[object]] = []
    for model in MODELS:
        size = 4 * sum(p.numel() for p in weights(model)) / 2**20
        seconds = step_seconds(model)
        for name, value in seconds.items():
            ratios = [value / seconds[f"AdamW({kind}=True)"] for kind in ("foreach", "fused")]
            memories = ["", "", ""]
            if "100" not in name:
                state, peak, backup = memory(model, name)
                memories = [f"{state / size:.2f}", f"{max(backup, 0.0) / size:.2f}", round(max(peak - state, 0.0))]
            rows.append([model, name, round(1000 * value), *(f"{ratio:.2f}" for ratio in ratios), *memories])
            print(*rows[-1], sep="  ", flush=True)
    write_table(
        "step_time",
        "Time and memory of one optimizer step",
        [
            "weights",
            "optimizer",
            "ms",
            "/ AdamW foreach",
            "/ AdamW fused",
            "state / weights",
            "backup / weights",
            "scratch, MiB",
        ],
        rows,  # pyright: ignore[reportArgumentType]
        f"Medians of {ROUNDS} rounds in turn in one run (the reference with 100 proximal gradient iterations: one "
        f"step), {THREADS} threads, float32, group lasso {LAM:g} on input features, random weights and gradients "
        f"(seed {SEED}). State is what the optimizer keeps, backup the growth of the resident set inside structured(), "
        "scratch its peak beyond the state during a step: bounded, whatever the model.",
    )


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    if sys.argv[1:2] == ["memory"]:
        print_memory(*sys.argv[2:])
    else:
        main()
