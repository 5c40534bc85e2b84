"""Time and memory of training steps with deep weight factorization inside the optimizer, beside dense SGD.

Every variant trains a network of its own on the same random batch (seed 0); they take turns, and the table gives
medians of the rounds and ratios to dense SGD in the same round. Forward and backward passes are those of the dense
network in all of them: only the step of the optimizer differs.
"""

import sys
from collections.abc import Callable
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import torch
from readme_table import Cell
from record import remembered, write_table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Optimizer

from openwork.models import lenet300, resnet18
from openwork.optim import FactorizedSGD

NAME = "dwf_cost"
THREADS, SEED = 2, 0
OPTIONS: dict[str, Any] = {"lr": 1e-3, "lam": 1e-4, "momentum": 0.9}


def wide() -> nn.Module:
    """Four linear layers of 1024 units."""
    return nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(1024, 1024), nn.ReLU())))


# A network, the shape of its batch, the rounds that are timed, and the depths; a step of the last takes seconds.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int, tuple[int, ...]]] = {
    "LeNet-300-100, batch 128": (lenet300, (128, 784), 60, (2, 3, 4)),
    "4 x Linear(1024), batch 512": (wide, (512, 1024), 25, (2, 3, 4)),
    "ResNet-18 at 32 x 32, batch 64": (lambda: resnet18(10), (64, 3, 32, 32), 7, (3,)),
}


def variants(depths: tuple[int, ...]) -> dict[str, Callable[[nn.Module], Optimizer]]:
    """Optimizers by what the table calls them."""
    return {
        "dense SGD": lambda model: SGD(model.parameters(), lr=1e-3, momentum=0.9),
        **{
            f"depth {depth}, {how}": lambda model, depth=depth, how=how: FactorizedSGD(
                model.parameters(), depth=depth, compile=how == "compiled", **OPTIONS
            )
            for depth in depths
            for how in ("eager", "compiled")
        },
        "depth 3, tied, eager": lambda model: FactorizedSGD(model.parameters(), depth=3, tied=True, **OPTIONS),
    }


def step(model: nn.Module, optimizer: Optimizer, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Seconds of one training step, and of the optimizer in it."""
    begin = perf_counter()
    optimizer.zero_grad()
    cross_entropy(model(inputs), targets).backward()
    middle = perf_counter()
    optimizer.step()
    end = perf_counter()
    return end - begin, end - middle


def measure(network: str) -> dict[str, Any]:
    """Times of all variants on one network, in turn."""
    build, shape, rounds, depths = NETWORKS[network]
    generator = torch.Generator().manual_seed(SEED)
    inputs = torch.randn(shape, generator=generator)
    targets = torch.randint(10, (shape[0],), generator=generator)
    makers = variants(depths)
    models = {name: build() for name in makers}
    optimizers = {name: make(models[name]) for name, make in makers.items()}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in makers}
    first: dict[str, float] = {}
    for round_ in range(rounds + 2):
        for name, optimizer in optimizers.items():
            taken = step(models[name], optimizer, inputs, targets)
            if round_ == 0:
                first[name] = taken[1]
            # The first two rounds compile, make state and warm caches.
            if round_ > 1:
                seconds[name].append(taken)
    found: dict[str, Any] = {}
    dense = seconds["dense SGD"]
    for name, taken in seconds.items():
        ratios = [one / other for (one, _), (other, _) in zip(taken, dense, strict=True)]
        quartiles = quantiles(ratios, n=4)
        weights = [p for p in models[name].parameters() if p.ndim > 1]
        state = sum(
            t.numel() * t.element_size()
            for p in weights
            for t in optimizers[name].state[p].values()
            if isinstance(t, Tensor) and t.ndim
        )
        found[name] = {
            "step_ms": 1e3 * median(one for one, _ in taken),
            "optimizer_ms": 1e3 * median(one for _, one in taken),
            "ratio": [median(ratios), quartiles[0], quartiles[2]],
            # With the weight and its gradient.
            "bytes": 8 + state / sum(p.numel() for p in weights),
            "first": first[name],
        }
        print(network, name, found[name], flush=True)
    return found


def main() -> None:
    """Measure and write the table."""
    torch.set_num_threads(THREADS)
    rows: list[list[Cell]] = []
    for at, network in enumerate(NETWORKS):
        part = f"network{at}"
        for name, one in remembered(NAME, part, lambda n=network: measure(n)).items():
            ratio = one["ratio"]
            rows.append(
                [
                    network,
                    name,
                    round(one["step_ms"], 1),
                    f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})",
                    round(one["optimizer_ms"], 2),
                    f"{one['bytes']:.0f}",
                    f"{one['first']:.1f}" if "compiled" in name else "",
                ]
            )
    columns = ["network", "optimizer", "training step, ms", "/ dense SGD (quartiles)", "optimizer step, ms",
               "bytes a weight", "first step, s"]  # fmt: skip
    write_table(
        NAME,
        "Time and memory of a training step with the factors in the optimizer",
        columns,
        rows,
        f"{THREADS} threads, float32, momentum 0.9; all variants take turns in one run, ratios are of one round each. "
        "Bytes a weight: the weight, its gradient, and what the optimizer keeps. The first step of a compiled one "
        "compiles it, or finds it compiled in a cache.",
    )


if __name__ == "__main__":
    main()
    sys.exit()
