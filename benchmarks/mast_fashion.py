"""LeNet-5 (6-16) on Fashion-MNIST, trained plainly, with dropout and under sketches, and then pruned to a fraction.

Sketches keep a random part of the units of every layer (channels and neurons, exactly K of each layer): half of them,
or a fraction drawn anew each time from 0.1, 0.2, ..., 1, the same for all layers. A batch is cut into eight parts, each
with a draw of its own, or has a single draw. Half of the units: what reads them is multiplied by 1 / p, so that the
dense network has the mean weights. The mixture is not scaled, since 1 / p = 10 in four layers in turn would drown
everything; the whole network is one of those that it trains. Dropout drops with probability one half at the same
places, whole channels in convolutions, each sample its own units: apart from that it minimizes what sketches of one
half do. All have the same start, order of samples, epochs and schedule.

6000 training images are held out. They choose the learning rate of each method, once, at seed 0, after one epoch, by
the accuracy of the whole network; and, for each point of a curve, whether what reads a pruned layer is multiplied by
1 / p or stays as it is. Test images give the numbers. Pruned at random, every 500 images meet another mask, the
same for all methods; by magnitude, a unit counts as the norm of what writes it times the norm of what reads it.
Nothing is trained after pruning, and there is no batch normalization to recalibrate.

Stopped, the script goes on after the last finished part (a minute or two each). With names of parts as arguments, such
as plain-s1, it computes these and writes no table, so that several processes can work at once; with "table" it writes
the table of what there is.
"""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, Literal

import torch
from readme_table import RESULTS, Cell
from record import data_dir, remembered, write_table
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from openwork.data import Batches, Data, Split, fashion_mnist
from openwork.factorizations.budget import learning_rates
from openwork.files import read_json
from openwork.models import lenet5
from openwork.sketches import Key, RandK, SketchedModule
from openwork.wiring import Coupling, inspect

NAME = "mast_fashion"
SEEDS = (0, 1, 2)
BATCH, EPOCHS, MOMENTUM, WARMUP = 256, 5, 0.9, 100
RATES = (0.01, 0.03, 0.1)


@dataclass(frozen=True)
class Sketches:
    """How a network is sketched.

    Args:
        ratios: Of which every draw takes one.
        draws: In each batch, for equal parts of it.
        scaled: Whether what is kept is multiplied by 1 / p.
    """

    ratios: tuple[float, ...]
    draws: int
    scaled: bool


METHODS: dict[str, Sketches | None] = {
    "plain": None,
    "dropout 0.5": None,
    "sketched 0.5": Sketches((0.5,), 8, scaled=True),
    "sketched 0.1 to 1": Sketches(tuple(k / 10 for k in range(1, 11)), 8, scaled=False),
    "sketched 0.5, one draw": Sketches((0.5,), 1, scaled=True),
}
RATIOS = (1.0, 0.9, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1)
PER_MASK = 500
Rule = Literal["random", "magnitude"]
RULES: tuple[Rule, ...] = ("random", "magnitude")


def train(method: str, lr: float, seed: int, epochs: int, data: Data) -> nn.Module:
    """Train once."""
    model = lenet5((6, 16), seed=seed).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    couplings = inspect(model, data.train.inputs[:2]).removable
    plan = METHODS[method]
    ratios, scaled = (plan.ratios, plan.scaled) if plan else ((), True)
    # One wrapper for each ratio around the same weights: all layers have the same ratio in a draw.
    sketched = [
        SketchedModule(model, RandK(r), shift="zero", granularity="units", groups=couplings, scaled=scaled)
        for r in ratios
    ]
    network = with_dropout(model) if method.startswith("dropout") else model
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=MOMENTUM)
    steps = len(data.train) // BATCH
    factor = learning_rates("cosine", epochs * steps, WARMUP)
    batches = Batches(data.train, BATCH, seed=seed, drop_last=True)
    which = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # of dropout
    loss = torch.tensor(0.0)
    for epoch in range(epochs):
        for at, (inputs, targets) in enumerate(batches.epoch(epoch)):
            step = epoch * steps + at
            for group in optimizer.param_groups:
                group["lr"] = lr * factor(step)
            optimizer.zero_grad()
            if plan:
                pieces = zip(inputs.chunk(plan.draws), targets.chunk(plan.draws), strict=True)
                for piece, (x, y) in enumerate(pieces):
                    wrapper = sketched[int(torch.randint(len(sketched), (), generator=which))]
                    with wrapper.draw(Key(seed, step, draw=piece)):
                        loss = cross_entropy(wrapper(x), y) / plan.draws
                    loss.backward()
            else:
                loss = cross_entropy(network(inputs), targets)
                loss.backward()
            optimizer.step()
        print(f"{method} lr {lr:g} seed {seed} epoch {epoch + 1}: loss {float(loss.detach()):.4f}", flush=True)
    return model


def with_dropout(model: nn.Module) -> nn.Sequential:
    """The same layers with dropout of whole channels and of neurons, wherever sketches act."""
    layers: list[nn.Module] = []
    flat = False
    for layer in model.children():
        layers.append(layer)
        flat = flat or isinstance(layer, nn.Flatten)
        if isinstance(layer, nn.MaxPool2d):
            layers.append(nn.Dropout2d(0.5))
        elif isinstance(layer, nn.ReLU) and flat:
            layers.append(nn.Dropout(0.5))
    return nn.Sequential(*layers)


@torch.no_grad()
def measured(model: nn.Module, split: Split, weights: Callable[[int], dict[str, Tensor]]) -> dict[str, float]:
    """Loss and accuracy, with other weights for every ``PER_MASK`` samples, by their number."""
    loss, right = 0.0, 0
    for at, (x, y) in enumerate(zip(split.inputs.split(PER_MASK), split.targets.split(PER_MASK), strict=True)):
        logits = functional_call(model, weights(at), (x.to(memory_format=torch.channels_last),))
        loss += float(cross_entropy(logits, y, reduction="sum"))
        right += int((logits.argmax(1) == y).sum())
    return {"loss": loss / len(split), "accuracy": right / len(split)}


def pruned(model: nn.Module, couplings: Sequence[Coupling], kept: Sequence[Tensor]) -> dict[str, Tensor]:
    """Weights that read the units of each coupling, multiplied by the numbers of the units."""
    found: dict[str, Tensor] = {}
    for coupling, ones in zip(couplings, kept, strict=True):
        for part in coupling.consumers:
            found[part.name] = found.get(part.name, model.get_parameter(part.name)) * part.spread(ones)
    return found


def units(model: nn.Module, coupling: Coupling) -> Tensor:
    """Norm of what writes a unit times the norm of what reads it."""
    norms = torch.ones(coupling.width)
    for side in (coupling.producers, coupling.consumers):
        squares = [part.sum(model.get_parameter(part.name).detach().square(), coupling.width) for part in side]
        norms = norms * torch.stack(squares).sum(0).sqrt()
    return norms


def curve(model: nn.Module, data: Data) -> dict[str, Any]:
    """Loss and accuracy at all ratios, by both rules."""
    model.eval()
    couplings = inspect(model, data.train.inputs[:2]).removable
    found: dict[str, Any] = {}
    for ratio in RATIOS:
        law = RandK(ratio)
        for rule in RULES:

            def weights(split: str, at: int, scaled: bool, law: RandK = law, rule: Rule = rule) -> dict[str, Tensor]:
                kept: list[Tensor] = []
                for coupling in couplings:
                    k = law.kept(coupling.width)
                    if rule == "random":
                        key = Key(0, at, family=f"{split} {coupling.name}")
                        ones = (law.sample(key, coupling.width).weights > 0).float()
                    else:
                        ones = torch.zeros(coupling.width)
                        ones[units(model, coupling).topk(k).indices] = 1.0
                    kept.append(ones * (coupling.width / k if scaled else 1.0))
                return pruned(model, couplings, kept)

            def at_scale(scaled: bool, split: Split, name: str, weights: Any = weights) -> dict[str, float]:
                return measured(model, split, lambda at: weights(name, at, scaled))

            if ratio == 1:
                found[f"{rule} {ratio:g}"] = {"scaled": False} | at_scale(False, data.test, "test")
                continue
            valid = {scaled: at_scale(scaled, data.valid, "valid")["accuracy"] for scaled in (False, True)}
            scaled = valid[True] > valid[False]
            found[f"{rule} {ratio:g}"] = {"scaled": scaled} | at_scale(scaled, data.test, "test")
    return found


def tuning(method: str, lr: float) -> str:
    """Name of a part."""
    return f"tune-{slug(method)}-lr{lr:g}"


def slug(method: str) -> str:
    """A method as part of a file name."""
    return re.sub(r"[^a-z0-9.]+", "-", method)


def rate(method: str) -> float:
    """The learning rate of the best validation accuracy."""
    found: dict[float, dict[str, Any]] = {
        lr: dict(read_json(RESULTS / NAME / f"{tuning(method, lr)}.json")) for lr in RATES
    }
    return max(RATES, key=lambda lr: found[lr]["accuracy"])


def parts(data: Data) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """All parts, in the order in which they matter."""

    def tune(method: str, lr: float) -> dict[str, Any]:
        return measured(train(method, lr, 0, 1, data).eval(), data.valid, lambda _: {})

    def whole(method: str, seed: int) -> dict[str, Any]:
        lr = rate(method)
        model = train(method, lr, seed, EPOCHS, data)
        valid = measured(model.eval(), data.valid, lambda _: {})["accuracy"]
        return {"lr": lr, "valid_accuracy": valid, "curve": curve(model, data)}

    for method in METHODS:
        for lr in RATES:
            yield tuning(method, lr), lambda m=method, lr=lr: tune(m, lr)
    for seed in SEEDS:
        for method in METHODS:
            yield f"{slug(method)}-s{seed}", lambda m=method, s=seed: whole(m, s)


def finished() -> dict[str, list[dict[str, Any]]]:
    """What has been trained, by method."""
    files = {m: [RESULTS / NAME / f"{slug(m)}-s{s}.json" for s in SEEDS] for m in METHODS}
    return {m: runs for m, by in files.items() if (runs := [dict(read_json(file)) for file in by if file.exists()])}


def spread(values: list[float]) -> str:
    """Mean and deviation, in percent."""
    return f"{100 * mean(values):.1f}" + (f" ± {100 * stdev(values):.1f}" if len(values) > 1 else "")


def table() -> None:
    """Write what there is."""
    runs = finished()
    rows: list[list[Cell]] = []
    for rule in RULES:
        for method, seeds in runs.items():
            cells = [spread([run["curve"][f"{rule} {ratio:g}"]["accuracy"] for run in seeds]) for ratio in RATIOS]
            rows.append([f"units, {rule}", method, f"{seeds[0]['lr']:g}", *cells, len(seeds)])
    write_table(
        NAME,
        "Prune curves of LeNet-5 on Fashion-MNIST: sketched training, dropout, plain training",
        ["pruned", "training", "learning rate", *(f"test accuracy at {ratio:g}, %" for ratio in RATIOS), "seeds"],
        rows,
        f"{EPOCHS} epochs of 54 000 images, batch {BATCH}, momentum {MOMENTUM}, {WARMUP} steps of warm-up and half a "
        "cosine; mean and deviation over the seeds. Sketched 0.5: scaled by 1 / p; 0.1 to 1: a mixture, not scaled; "
        "eight draws in a batch, each for 32 images, unless it says one. The ratio is that of units kept in every "
        "layer, rounded up (6, 16, 120 and 84 units: at 0.1 it is 1, 2, 12 and 9). Learning rate: the best of "
        f"{', '.join(f'{lr:g}' for lr in RATES)} after one epoch at seed 0, by the accuracy of the whole network on "
        "6000 held-out images, which also choose, point by point and for every method, whether the weights that read a "
        "pruned layer are multiplied by 1 / p. At random: 20 masks, each on 500 test images, the same for all methods. "
        "By magnitude: norm of what writes a unit times norm of what reads it. Not trained after pruning.",
        picture(runs),
    )


def picture(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Both curves."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    colors = ("#777777", "#4d7a2a", "#b5541c", "#1f5a7a", "#d9a441")
    with plt.rc_context({"svg.hashsalt": NAME, "font.size": 9}):
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
        for axis, rule in zip(axes, RULES, strict=True):
            for (method, seeds), color in zip(runs.items(), colors, strict=False):
                for at, run in enumerate(seeds):
                    points = [100 * run["curve"][f"{rule} {ratio:g}"]["accuracy"] for ratio in RATIOS]
                    label = None if at else method
                    axis.plot(RATIOS, points, "o-", ms=3, lw=1, color=color, label=label)
            axis.set(title=f"units pruned {'at random' if rule == 'random' else 'by magnitude'}", xlim=(1.03, 0.07))
            axis.set_xlabel("fraction of units kept in every layer")
            axis.grid(alpha=0.25)
        axes[0].set_ylabel("test accuracy, %")
        axes[0].legend(frameon=False)
        figure.savefig(RESULTS / NAME / "curves.svg", metadata={"Date": None})
        plt.close(figure)
    return f"{NAME}/curves.svg"


def main() -> None:
    """Train what is missing, and write the table."""
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    data = fashion_mnist(data_dir(), seed=0)
    if sys.argv[1:] == ["table"]:
        table()
        return
    wanted = sys.argv[1:]
    for part, compute in parts(data):
        if not wanted or part in wanted:
            print(part, remembered(NAME, part, compute), flush=True)
    if not wanted:
        table()


if __name__ == "__main__":
    main()
