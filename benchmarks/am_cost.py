"""Layer products and time of a sweep of alternating minimization, beside one forward and backward pass.

The sweep, the sweep with compiled code steps, and a forward and backward pass of the same network on the same samples
(all of them; no optimizer) take turns in one run, on the same threads. Products are those of matrices of the size of a
layer, counted as they are called: a sweep of L layers needs 2 L + 2 (L - 1) = 10, a step whose curvature was too small
one more, and every 20th sweep forms the residuals anew by L. Power iterations are products with vectors and not
counted. Sweeps are those of the default trainer, with all that belongs to them: test of the objective, balancing, and
series.

It takes ten minutes. Stopped, it goes on after the last finished part; delete benchmarks/results/am_cost to measure
anew.
"""

import os
from collections.abc import Callable
from copy import deepcopy
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import torch
from readme_table import Cell
from record import data_dir, remembered, write_table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from openwork.altmin import AMTrainer
from openwork.data import mnist

NAME = "am_cost"
SEED, WARM, MOST, SECONDS = 0, 4, 21, 15.0
MINIMUM = 10
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "ReLU": nn.ReLU,
    "leaky ReLU": nn.LeakyReLU,
    "ELU": nn.ELU,
    "tanh": nn.Tanh,
}
#: Hidden units, samples, threads, activations.
CASES = [
    (100, 2000, 2, ("ReLU", "leaky ReLU", "ELU", "tanh")),
    (100, 10_000, 2, ("ReLU", "leaky ReLU", "ELU", "tanh")),
    (100, 10_000, 1, ("ReLU", "leaky ReLU", "ELU", "tanh")),
    (100, 60_000, 2, ("ReLU", "tanh")),
    (1000, 2000, 2, ("ReLU", "tanh")),
    (1000, 10_000, 2, ("ReLU",)),
]


def network(width: int, activation: str) -> nn.Sequential:
    """784-width-width-10."""
    torch.manual_seed(SEED)
    make = ACTIVATIONS[activation]
    return nn.Sequential(nn.Linear(784, width), make(), nn.Linear(width, width), make(), nn.Linear(width, 10))


class Products:
    """Counts ``torch.mm`` while it is open."""

    def __enter__(self) -> "Products":
        self.count, self._true = 0, torch.mm

        def counted(left: Tensor, right: Tensor) -> Tensor:
            self.count += 1
            return self._true(left, right)

        torch.mm = counted
        return self

    def __exit__(self, *_: object) -> None:
        torch.mm = self._true


def seconds(call: Callable[[], object]) -> float:
    """How long it takes."""
    begin = perf_counter()
    call()
    return perf_counter() - begin


def measure(width: int, n: int, threads: int, activation: str, x: Tensor, y: Tensor) -> dict[str, Any]:
    """Times in turn, and products, of one network and number of samples."""
    torch.set_num_threads(threads)
    model = network(width, activation)
    twin = deepcopy(model)

    def backward() -> None:
        twin.zero_grad()
        cross_entropy(twin(x), y).backward()

    trainers = {"eager": AMTrainer(deepcopy(model)), "compiled": AMTrainer(deepcopy(model), compile=True)}
    first: dict[str, float] = {}
    for how, trainer in trainers.items():
        trainer.start(x, y)
        first[how] = seconds(trainer.sweep)
        for _ in range(WARM - 1):  # compiles what has a history, and warms caches
            trainer.sweep()
    backward()
    times: dict[str, list[float]] = {"backward": [], "eager": [], "compiled": []}
    products = dict.fromkeys(trainers, 0)
    begin = perf_counter()
    while len(times["backward"]) < MOST and (len(times["backward"]) < 3 or perf_counter() - begin < SECONDS):
        times["backward"].append(seconds(backward))
        for how, trainer in trainers.items():
            with Products() as counter:
                times[how].append(seconds(trainer.sweep))
            products[how] += counter.count
    found: dict[str, Any] = {"rounds": len(times["backward"]), "backward_ms": 1e3 * median(times["backward"])}
    found["load"] = os.getloadavg()[0]
    for how in trainers:
        ratios = [one / other for one, other in zip(times[how], times["backward"], strict=True)]
        low, _, high = quantiles(ratios, n=4)
        found[how] = {
            "ms": 1e3 * median(times[how]),
            "ratio": [median(ratios), low, high],
            "products": products[how] / found["rounds"],
            "first": first[how],
        }
    print(width, n, threads, activation, found, flush=True)
    return found


def main() -> None:
    """Measure and write the table."""
    samples = mnist(data_dir(), valid=0).train
    x, y = samples.inputs.flatten(1), samples.targets
    rows: list[list[Cell]] = []
    rounds: list[int] = []
    loads: list[float] = []
    for width, n, threads, activations in CASES:
        for activation in activations:
            part = f"{width}-{n}-{threads}-{activation.replace(' ', '-').lower()}"
            found = remembered(
                NAME,
                part,
                lambda w=width, n=n, t=threads, a=activation: measure(w, n, t, a, x[:n].contiguous(), y[:n]),
            )
            rounds.append(found["rounds"])
            loads.append(found["load"])
            for how in ("eager", "compiled"):
                one = found[how]
                ratio, low, high = one["ratio"]
                rows.append(
                    [
                        f"784-{width}-{width}-10",
                        f"{n:,}".replace(",", " "),
                        activation,
                        threads,
                        how,
                        f"{one['products']:.1f}",
                        round(one["ms"], 1),
                        round(found["backward_ms"], 1),
                        f"{ratio:.2f} ({low:.2f} to {high:.2f})",
                        f"{one['first']:.1f}",
                    ]
                )
    columns = ["network", "samples", "activation", "threads", "code steps", "products", "sweep, ms",
               "forward + backward, ms", "sweep / forward + backward (quartiles)", "first sweep, s"]  # fmt: skip
    write_table(
        NAME,
        "Alternating minimization: products and time of a sweep, beside a forward and backward pass",
        columns,
        rows,
        f"MNIST, float32, defaults of AMTrainer; {MINIMUM} products of the size of a layer are the least a sweep of "
        "three layers needs, each of the size of one in a forward and backward pass, which has 8. Medians of "
        f"{min(rounds)} to {max(rounds)} rounds in which all take turns; ratios are of one round each. The first sweep "
        "of compiled code steps compiles them, or finds them compiled in a cache. Load of the machine when a part "
        f"ended: {min(loads):.1f} to {max(loads):.1f}.",
    )


if __name__ == "__main__":
    main()
