"""What a structured optimizer adds to a whole training step beside ``AdamW(fused=True)``, on CUDA.

    python benchmarks/whole_step.py [tiny]

ResNet-50 on random images of 224 x 224 pixels, 256 at a time, channels last; and GPT-2 with 124 million parameters on
16 random windows of 1024 tokens. Forward passes are in bfloat16, weights in float32. Every optimizer has a network of
its own that starts from the same weights (seed 0); all train in turn on the same batch, in one process, and nobody
waits for the device before all rounds are over. What is timed by events of the device is the whole step: gradients to
none, forward, backward, optimizer; and of that the optimizer's part. The overhead is that over AdamW's step of the same
round. Group lasso acts on the input features of every weight, embeddings excepted. ``tiny`` tries all that with small
networks where it is, on the CPU too, and writes nothing.
"""

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import torch
from readme_table import Cell
from record import remembered, write_table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW, Optimizer

from openwork.models import gpt, resnet50
from openwork.optim import RAMDA, RMDA, FactorizedSGD, ProxAdamW, regularize
from openwork.penalties import GroupLasso
from openwork.recipes.language import next_token_loss

NAME = "whole_step"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROUNDS, WARM_UP, SEED, LAM = 30, 5, 0, 1e-4
Task = tuple[nn.Module, Callable[[Tensor, Tensor], Tensor], Tensor, Tensor]


def images(number: int, pixels: int) -> Task:
    """ResNet-50 as it is for ImageNet, 25 557 032 parameters."""
    network = resnet50(1000, seed=SEED)
    stem = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
    network.stem = nn.Sequential(stem, nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1))
    network = network.to(DEVICE, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    x = torch.randn(number, 3, pixels, pixels, device=DEVICE).to(memory_format=torch.channels_last)
    return network, cross_entropy, x, torch.randint(1000, (number,), device=DEVICE)


def text(number: int, length: int, vocabulary: int = 50257, width: int = 768, depth: int = 12) -> Task:
    """GPT-2, 124 439 808 parameters; a head has 64 features."""
    network = gpt(vocabulary, length, width, depth, width // 64, seed=SEED).to(DEVICE)
    tokens = torch.randint(vocabulary, (number, length + 1), device=DEVICE)
    return network, next_token_loss, tokens[:, :-1], tokens[:, 1:]


TASKS: dict[str, Callable[[], Task]] = {
    "ResNet-50, 256 images": lambda: images(256, 224),
    "GPT-2 small, 16 x 1024 tokens": lambda: text(16, 1024),
}
TINY: dict[str, Callable[[], Task]] = {
    "ResNet-50, 2 images": lambda: images(2, 32),
    "GPT-2, 2 x 8 tokens": lambda: text(2, 8, 65, 64, 1),
}
OPTIMIZERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "AdamW": lambda model: AdamW(model.parameters(), lr=1e-4, fused=True),
    "RMDA": lambda model: RMDA(regularize(model, GroupLasso(LAM)), lr=1e-2, fused=True),
    "ProxAdamW": lambda model: ProxAdamW(regularize(model, GroupLasso(LAM)), lr=1e-4, fused=True),
    "RAMDA": lambda model: RAMDA(regularize(model, GroupLasso(LAM)), lr=1e-3, fused=True),
    "FactorizedSGD, depth 3": lambda model: FactorizedSGD(model.parameters(), lr=1e-3, depth=3, lam=1e-6, fused=True),
}


class Mark:
    """A point in time, on a device by the clock of that."""

    def __init__(self) -> None:
        self.host = perf_counter()
        self.event = torch.cuda.Event(enable_timing=True) if DEVICE == "cuda" else None
        if self.event is not None:
            self.event.record()

    def ms_to(self, end: "Mark") -> float:
        """Milliseconds to another, when both are over."""
        if self.event is None or end.event is None:
            return 1000 * (end.host - self.host)
        return self.event.elapsed_time(end.event)


@dataclass(frozen=True)
class Trained:
    """A network with its optimizer, and when its steps were at their beginning, before the optimizer, and over."""

    model: nn.Module
    optimizer: Optimizer
    marks: list[tuple[Mark, Mark, Mark]]

    def step(self, loss: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, targets: Tensor) -> None:
        """One step of training."""
        begin = Mark()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE, torch.bfloat16):
            value = loss(self.model(inputs), targets)
        value.backward()
        ready = Mark()
        self.optimizer.step()
        self.marks.append((begin, ready, Mark()))


def measure(build: Callable[[], Task], rounds: int, warm_up: int = WARM_UP) -> dict[str, Any]:
    """Milliseconds of whole steps and of optimizers, by optimizer and round.

    Args:
        build: Makes the network, its loss and a batch.
        rounds: That are measured.
        warm_up: Rounds before these, which make state, load kernels and choose algorithms.

    Raises:
        SystemExit: If a step was not taken.
    """
    torch.manual_seed(SEED)
    model, loss, inputs, targets = build()
    start = model.state_dict()
    compared: dict[str, Trained] = {}
    for name, optimizer in OPTIMIZERS.items():
        own = build()[0]
        own.load_state_dict(start)
        compared[name] = Trained(own, optimizer(own), [])
    for _ in range(rounds + warm_up):
        for trained in compared.values():
            trained.step(loss, inputs, targets)
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    found: dict[str, Any] = {}
    for name, trained in compared.items():
        # A step that is not taken costs nothing.
        if getattr(trained.optimizer, "skipped", 0) or not all(p.isfinite().all() for p in trained.model.parameters()):
            raise SystemExit(f"{name}: gradients or weights are not finite, so these are not times of training")
        marks = trained.marks[warm_up:]
        found[name] = {
            "ms": [begin.ms_to(end) for begin, _, end in marks],
            "optimizer_ms": [ready.ms_to(end) for _, ready, end in marks],
        }
    return found


def rows(task: str, found: dict[str, Any]) -> list[list[Cell]]:
    """Lines of the table: all optimizers on one task."""
    lines: list[list[Cell]] = []
    reference = found["AdamW"]["ms"]
    for name, times in found.items():
        overheads = [100 * (one / other - 1) for one, other in zip(times["ms"], reference, strict=True)]
        low, middle, high = quantiles(overheads, n=4)
        overhead = "" if name == "AdamW" else f"{middle:+.1f} ({low:+.1f} to {high:+.1f})"
        lines.append([task, name, f"{median(times['ms']):.2f}", overhead, f"{median(times['optimizer_ms']):.2f}"])
        print(*lines[-1], sep="  ", flush=True)
    return lines


def main() -> None:
    """Measure and write the table.

    Raises:
        SystemExit: If there is no CUDA.
    """
    if DEVICE == "cpu":
        raise SystemExit("whole_step: torch finds no CUDA, and a step on the CPU says nothing; `tiny` tries the script")
    torch.cuda.init()
    torch.backends.cudnn.benchmark = True
    lines: list[list[Cell]] = []
    for task, build in TASKS.items():
        part = task.partition(",")[0].lower().replace(" ", "-")
        lines += rows(task, remembered(NAME, part, lambda build=build: measure(build, ROUNDS)))
        gc.collect()
        torch.cuda.empty_cache()
    write_table(
        NAME,
        f"A whole training step on {torch.cuda.get_device_name()}",
        ["network", "optimizer", "step, ms", "over AdamW's step, % (quartiles)", "of that optimizer, ms"],
        lines,
        f"Medians of {ROUNDS} rounds in turn in one process, by events of the device. Forward passes in bfloat16, "
        "weights and state in float32, random inputs (seed 0), images channels last; every optimizer with `fused=True` "
        f"and a network of its own; group lasso {LAM:g} on input features, embeddings excepted.",
    )


def tiny() -> None:
    """Try both tasks, small, and print."""
    for task, build in TINY.items():
        rows(task, measure(build, rounds=2, warm_up=1))


if __name__ == "__main__":
    tiny() if sys.argv[1:] == ["tiny"] else main()
