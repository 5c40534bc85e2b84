"""Time and memory of a training step on half of the units, beside the dense step.

The dense network, the masked one, the sliced one whose gradients are as large as the whole ("dense" semantics), and
submodels with parameters of their own ("compact leaves") train on the same random batch (seed 0) by SGD with momentum.
They take turns in one run, with a new draw in every step; times of submodels include loading slices and momentum of
the draw and writing both back. Bytes are those of what the backward pass needs and of the optimizer's state.
"""

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import torch
from readme_table import Cell
from record import write_table
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.optim import SGD

from openwork.models.gpt import Block
from openwork.sketches import Key, RandK, SketchedModule
from openwork.sketches.module import Mode
from openwork.sketches.submodel import BigState

NAME = "slice_step"
THREADS, ROUNDS, SEED, RATIO = 2, 11, 0, 0.5
OPTIONS: dict[str, Any] = {"lr": 1e-4, "momentum": 0.9}


def mlp() -> tuple[nn.Module, Tensor]:
    """One hidden layer of 4096 units."""
    return nn.Sequential(nn.Linear(1024, 4096), nn.ReLU(), nn.Linear(4096, 1024)), torch.randn(1024, 1024)


def deep() -> tuple[nn.Module, Tensor]:
    """Two hidden layers of 4096 units, whose middle matrix is cut on both sides."""
    layers = [nn.Linear(1024, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1024)]
    return nn.Sequential(*layers), torch.randn(1024, 1024)


def block() -> tuple[nn.Module, Tensor]:
    """A block of GPT-2 small: 12 heads and 3072 hidden units."""
    return Block(768, 12, 0.0), torch.randn(4, 256, 768)


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "MLP 1024-4096-1024, batch 1024": mlp,
    "MLP 1024-4096-4096-1024, batch 1024": deep,
    "GPT-2 block, 4 x 256 tokens": block,
}


def loss_of(module: nn.Module, x: Tensor) -> Tensor:
    """A number to minimize."""
    return module(x).square().mean()


class Whole:
    """Steps on all weights, of a network that is dense, masked or sliced."""

    def __init__(self, module: nn.Module, x: Tensor) -> None:
        self.module, self.x = module, x
        self.optimizer = SGD(module.parameters(), **OPTIONS)

    def weights(self) -> list[Tensor]:
        """All that trains."""
        return list(self.module.parameters())

    def forward(self, key: Key) -> Tensor:
        """The loss under a draw."""
        self.optimizer.zero_grad()
        if not isinstance(self.module, SketchedModule):
            return loss_of(self.module, self.x)
        with self.module.draw(key):
            return loss_of(self.module, self.x)

    def update(self) -> None:
        """A step of the optimizer, after the backward pass."""
        self.optimizer.step()

    def state(self) -> list[Tensor]:
        """What the optimizer keeps."""
        return tensors(self.optimizer.state.values())


class Compact:
    """Steps on submodels with parameters of their own, whose momentum starts anew, or is that of the whole network."""

    def __init__(self, sketched: SketchedModule, x: Tensor, *, carried: bool) -> None:
        self.sketched, self.x, self.carried = sketched, x, carried
        self.whole: BigState = {}
        self.submodel = sketched.submodel(Key(SEED))
        self.optimizer = SGD(self.submodel.module.parameters(), **OPTIONS)

    def weights(self) -> list[Tensor]:
        """All that trains, and what is written back."""
        return [*self.submodel.module.parameters(), *self.sketched.parameters()]

    def forward(self, key: Key) -> Tensor:
        """The loss under a draw, whose slices are loaded."""
        self.submodel.redraw_(key)
        self.submodel.load_state(self.optimizer, self.whole)
        self.optimizer.zero_grad()
        return loss_of(self.submodel.module, self.x)

    def update(self) -> None:
        """A step of the optimizer, after the backward pass, written back."""
        self.optimizer.step()
        self.submodel.write_back_()
        if self.carried:
            self.submodel.save_state(self.optimizer, self.whole)

    def state(self) -> list[Tensor]:
        """What the optimizer keeps."""
        return tensors([*self.optimizer.state.values(), *self.whole.values()])


def tensors(states: Iterable[Mapping[str, object]]) -> list[Tensor]:
    """Those among the entries of some states."""
    return [value for state in states for value in state.values() if isinstance(value, Tensor)]


def forms(build: Callable[[], tuple[nn.Module, Tensor]]) -> dict[str, Whole | Compact]:
    """What is compared, each with a network of its own."""

    def sketched(mode: Mode) -> tuple[SketchedModule, Tensor]:
        torch.manual_seed(SEED)
        module, x = build()
        example = x[:2, :8] if x.ndim > 2 else x[:2]
        law = RandK(RATIO)
        return SketchedModule(
            module, law, shift="zero", granularity="units", example_inputs=example, scaled=False, mode=mode
        ), x

    torch.manual_seed(SEED)
    return {
        "dense": Whole(*build()),
        "mask": Whole(*sketched("mask")),
        "slice, large gradients": Whole(*sketched("slice")),
        "submodel, fresh momentum": Compact(*sketched("slice"), carried=False),
        "submodel, carried momentum": Compact(*sketched("slice"), carried=True),
    }


def size(some: Iterable[Tensor]) -> int:
    """Bytes of the storages of some tensors, each once."""
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in some}
    return sum(storages.values())


def saved_bytes(form: Whole | Compact, key: Key) -> int:
    """Bytes that a backward pass needs besides inputs and weights."""
    saved: list[Tensor] = []

    def pack(x: Tensor) -> Tensor:
        saved.append(x)
        return x

    with saved_tensors_hooks(pack, lambda x: x):
        loss = form.forward(key)
    loss.backward()
    known = {x.untyped_storage().data_ptr() for x in (form.x, *form.weights())}
    return size(x for x in saved if x.untyped_storage().data_ptr() not in known)


def measure(build: Callable[[], tuple[nn.Module, Tensor]], rounds: int) -> dict[str, dict[str, Any]]:
    """Times in turn, and bytes, of all forms on one network."""
    compared = forms(build)
    seconds: dict[str, list[float]] = {name: [] for name in compared}
    for round_ in range(rounds + 2):
        for name, form in compared.items():
            begin = perf_counter()
            form.forward(Key(SEED, round_)).backward()
            form.update()
            # The first two rounds make state and warm caches.
            if round_ > 1:
                seconds[name].append(perf_counter() - begin)
    found: dict[str, dict[str, Any]] = {}
    for name, form in compared.items():
        ratios = [one / other for one, other in zip(seconds[name], seconds["dense"], strict=True)]
        quartiles = quantiles(ratios, n=4)
        # Before another draw drops what it does not need.
        state = size(form.state())
        saved = saved_bytes(form, Key(SEED))
        gradients = size(p.grad for p in form.weights() if p.grad is not None)
        found[name] = {
            "ms": 1e3 * median(seconds[name]),
            "ratio": (median(ratios), quartiles[0], quartiles[2]),
            "bytes": (saved, state, size(form.weights()) + gradients),
        }
    return found


def main(rounds: int = ROUNDS) -> None:
    """Measure and write the table, or only print it if there are fewer rounds."""
    torch.set_num_threads(THREADS)
    load = os.getloadavg()[0]
    rows: list[list[Cell]] = []
    for network, build in NETWORKS.items():
        for name, one in measure(build, rounds).items():
            middle, low, high = one["ratio"]
            saved, state, weights = (n / 2**20 for n in one["bytes"])
            rows.append([network, name, round(one["ms"], 1), f"{middle:.2f} ({low:.2f} to {high:.2f})"])
            rows[-1] += [round(saved + state, 1), round(saved, 1), round(state, 1), round(weights, 1)]
            print(*rows[-1], sep="  ", flush=True)
    if rounds < ROUNDS:
        return
    write_table(
        NAME,
        "Time and memory of a training step on half of the units",
        ["network", "step", "training step, ms", "/ dense (quartiles)",
         "saved + state, MiB", "saved, MiB", "state, MiB", "weights and gradients, MiB"],
        rows,
        f"Medians of {ROUNDS} rounds in turn in one run, {THREADS} threads, float32, SGD with momentum 0.9, "
        f"RandK({RATIO}) over hidden units and heads, a new draw in every step. Mask: all units are computed and half "
        "of them multiplied by zero. Slice, large gradients: a network without them, gradients and momentum as large "
        "as the whole. Submodel: parameters of its own, loaded and written back in every step, which is part of its "
        "time; momentum starts anew with every draw, or is carried along in a copy as large as the whole, which is "
        "loaded and written back too. Saved: what the backward pass needs besides inputs and weights. State: all "
        "momentum. Weights and gradients of a submodel count those of the whole network too. The one-minute load of "
        f"the machine was {load:.1f} at the start.",
    )  # fmt: skip


if __name__ == "__main__":
    # A number of rounds below the usual one prints, and writes nothing.
    main(*map(int, sys.argv[1:2]))
