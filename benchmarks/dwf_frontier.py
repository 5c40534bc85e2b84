"""Accuracy against compression ratio: deep weight factorization and one-shot magnitude pruning, on the MNIST family.

Everything is chosen on validation images: the learning rate once per depth and network (and of the dense networks), at
one budget; and for each run, beside the usual threshold of 1.2e-7, the largest of a few
that costs at most a tenth of a point. Test images give the numbers of the table. A strength is given by its collapse
budget B: ``lam = B (1 - momentum) / (2 sum lr)``. Budgets below 25 leave few exact zeros, but many weights that a
larger threshold can take away.

With an argument such as ``0/2`` a process computes every second missing part and writes no table, so that two can work
at once; without one it computes what is missing and writes the table.
"""

import re
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product
from statistics import mean, stdev
from typing import Any

import torch
from factorized import BATCH, MOMENTUM, THRESHOLDS, Plan, accuracy, at_accuracy, prune_, train
from readme_table import RESULTS, Cell
from record import data_dir, remembered, write_table
from torch import nn

from openwork.data import Data, fashion_mnist, kmnist, mnist
from openwork.factorizations import plan_budget
from openwork.files import read_json
from openwork.models import he_normal_, lenet5, lenet300

NAME = "dwf_frontier"
EPOCHS = {"lenet300": 40, "lenet5": 10}
# LeNet-5 diverges where LeNet-300-100 learns best.
RATES = {"lenet300": (0.25, 0.5, 1.0, 2.0), "lenet5": (0.1, 0.25, 0.5)}
# The budget at which learning rates are compared.
TUNE_AT = {"lenet300": 28.0, "lenet5": 9.0}
DEPTHS = {"lenet300": (3, 2, 4), "lenet5": (3, 2)}
DENSE_RATES = (0.02, 0.05, 0.1)
SMALL = (5.0, 9.0, 16.0)
BUDGETS = (28.0, 38.0, 52.0, 72.0, 105.0, 160.0)
# Of those, the ones of the shorter sweeps, and of the second and third seed.
FEW = (5.0, 9.0, 16.0, 28.0)
REPEATED = (*FEW, 52.0, 105.0)
# The most accurate at the smallest budget, but training diverges at most of the others: shown, and not used elsewhere.
UNSTABLE = {("lenet300", 2, 2.0)}
# Points of accuracy that a smaller network may lose.
LOSSES = (1, 2, 5)
ALLOWED = 0.001
RATIOS = (2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 350)


def fast(model: nn.Module) -> nn.Module:
    """Convolutions that run faster on this kind of machine."""
    return model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


DATA: dict[str, Callable[..., Data]] = {"mnist": mnist, "fashion": fashion_mnist, "kmnist": kmnist}
MODELS: dict[str, Callable[[int], nn.Module]] = {
    "lenet300": lambda seed: he_normal_(lenet300(seed=seed), seed=seed),
    "lenet5": lambda seed: fast(he_normal_(lenet5((6, 16), seed=seed), seed=seed)),
}
_loaded: dict[str, Data] = {}


def data(name: str) -> Data:
    """A data set with a tenth of its training images held out."""
    if name not in _loaded:
        _loaded[name] = DATA[name](data_dir(), seed=0)
    return _loaded[name]


def strength(network: str, size: int, lr: float, budget: float) -> float:
    """The strength that has a budget."""
    steps = size // BATCH
    plan = plan_budget(1.0, lr, EPOCHS[network] * steps, momentum=MOMENTUM, schedule="cosine", warmup=steps)
    return budget / plan.budget


def factorized(name: str, network: str, depth: int, lr: float, budget: float, seed: int) -> dict[str, Any]:
    """Train once."""
    samples = data(name)
    lam = strength(network, len(samples.train), lr, budget)
    model = MODELS[network](seed)
    trajectory = train(model, samples, Plan(depth, lam, lr, EPOCHS[network], seed=seed))
    weights = [p for p in model.parameters() if p.ndim > 1]
    total = sum(p.numel() for p in weights)
    at: list[dict[str, Any]] = []
    for threshold in THRESHOLDS:
        with torch.no_grad():
            for p in weights:
                p.masked_fill_(p.abs() < threshold, 0.0)
        nonzero = [int(p.count_nonzero()) for p in weights]
        at.append(
            {
                "threshold": threshold,
                "ratio": total / sum(nonzero) if sum(nonzero) else 0.0,
                "valid_accuracy": accuracy(model, samples.valid),
                "test_accuracy": accuracy(model, samples.test),
                "nonzero": nonzero,
            }
        )
    return {
        "lam": lam,
        "lr": lr,
        "budget": trajectory[-1]["budget"],
        "finite": trajectory[-1]["norm"] < 1e6,
        "valid_accuracy": at[0]["valid_accuracy"],
        "at": at,
    }


def chosen(run: dict[str, Any]) -> dict[str, Any]:
    """What a run is at the largest threshold that validation allows."""
    exact, *others = run["at"]
    return next((o for o in reversed(others) if o["valid_accuracy"] >= exact["valid_accuracy"] - ALLOWED), exact)


def dense(name: str, network: str, lr: float, seed: int) -> dict[str, Any]:
    """Train the dense network, and prune it once to several ratios."""
    samples = data(name)
    model = MODELS[network](seed)
    train(model, samples, Plan(1, 0.0, lr, EPOCHS[network], seed=seed, weight_decay=5e-4))
    total = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    found: dict[str, Any] = {
        "lr": lr,
        "valid_accuracy": accuracy(model, samples.valid),
        "test_accuracy": accuracy(model, samples.test),
        "pruned": {},
    }
    for ratio in RATIOS:
        prune_(model, round(total / ratio))
        found["pruned"][str(ratio)] = accuracy(model, samples.test)
    return found


def best_rate(network: str, depth: int) -> float:
    """The learning rate with the largest validation accuracy on Fashion-MNIST; depth 1 is dense."""
    rates = DENSE_RATES if depth == 1 else RATES[network]
    found = {lr: read_json(RESULTS / NAME / f"{tuning(network, depth, lr)}.json") for lr in rates}
    stable = [lr for lr in rates if (network, depth, lr) not in UNSTABLE]
    return max(stable, key=lambda lr: float(found[lr]["valid_accuracy"]))  # pyright: ignore[reportArgumentType]


def tuning(network: str, depth: int, lr: float) -> str:
    """Name of a part."""
    return f"tune-fashion-{network}-d{depth}-lr{lr:g}"


def run_name(name: str, network: str, depth: int, lr: float, budget: float, seed: int) -> str:
    """Name of a part."""
    return f"{name}-{network}-d{depth}-lr{lr:g}-b{budget:g}-s{seed}"


def first_parts() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Parts that choose learning rates, all on Fashion-MNIST: the other data sets take them over."""
    for network, depths in DEPTHS.items():
        for lr, depth in product(RATES[network], depths):
            yield (
                tuning(network, depth, lr),
                lambda k=network, d=depth, lr=lr: factorized("fashion", k, d, lr, TUNE_AT[k], 0),
            )
        for lr in DENSE_RATES:
            yield tuning(network, 1, lr), lambda k=network, lr=lr: dense("fashion", k, lr, 0)


def sweeps() -> list[tuple[str, str, tuple[int, ...], tuple[float, ...], tuple[int, ...]]]:
    """Data, network, depths, budgets and seeds, in the order in which they matter."""
    return [
        ("fashion", "lenet300", (3, 2, 4), (*SMALL, *BUDGETS), (0,)),
        ("kmnist", "lenet300", (3,), FEW, (0,)),
        ("fashion", "lenet5", (3, 2), FEW, (0,)),
        ("mnist", "lenet300", (3,), FEW, (0,)),
        ("fashion", "lenet300", (3, 2, 4), REPEATED, (1,)),
        ("fashion", "lenet300", (3, 2, 4), REPEATED, (2,)),
    ]


def parts() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Parts of the table, when the learning rates are chosen."""
    for name, network, depths, budgets, seeds in sweeps():
        for seed in seeds:
            lr = best_rate(network, 1)
            yield f"{name}-{network}-dense-s{seed}", lambda n=name, k=network, lr=lr, s=seed: dense(n, k, lr, s)
            for budget, depth in product(budgets, depths):
                lr = best_rate(network, depth)
                yield (
                    run_name(name, network, depth, lr, budget, seed),
                    lambda n=name, k=network, d=depth, lr=lr, b=budget, s=seed: factorized(n, k, d, lr, b, s),
                )


def found(part: str) -> dict[str, Any] | None:
    """A part if it was computed."""
    file = RESULTS / NAME / f"{part}.json"
    return dict(read_json(file)) if file.exists() else None


def main() -> None:
    """Train what is missing, and write the table."""
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    share = re.fullmatch(r"(\d+)/(\d+)", sys.argv[1]) if sys.argv[1:] else None
    mine, workers = (int(share[1]), int(share[2])) if share else (0, 1)
    for stage in (first_parts, parts) if share or not sys.argv[1:] else ():
        for at, (part, compute) in enumerate(stage()):
            if at % workers == mine:
                result = remembered(NAME, part, compute)
                print(part, result, flush=True)
        while not all(found(part) for part, _ in first_parts()):
            time.sleep(5)
    if not share:
        table()


def table() -> None:
    """Write what there is."""
    rows: list[list[Cell]] = []
    for name, network in dict.fromkeys((name, network) for name, network, *_ in sweeps()):
        seeds = sorted({s for n, k, _, _, ss in sweeps() if (n, k) == (name, network) for s in ss})
        depths = next(d for n, k, d, _, _ in sweeps() if (n, k) == (name, network))
        budgets = next(b for n, k, _, b, _ in sweeps() if (n, k) == (name, network))
        denses = {s: d for s in seeds if (d := found(f"{name}-{network}-dense-s{s}"))}
        if not denses:
            continue
        once = {s: [(1.0, d["test_accuracy"]), *((float(r), a) for r, a in d["pruned"].items())]
                for s, d in denses.items()}  # fmt: skip
        rows.append([name, network, "dense, pruned once", f"{next(iter(denses.values()))['lr']:g}", "",
                     spread([100 * d["test_accuracy"] for d in denses.values()], 2), "1", "", "",
                     *reaches(once, denses), len(denses)])  # fmt: skip
        rates = [(depth, best_rate(network, depth)) for depth in sorted(depths)]
        for depth, lr in [*rates, *((d, lr) for k, d, lr in UNSTABLE if (name, network) == ("fashion", k))]:
            points = {s: {b: f for b in budgets if (f := found(run_name(name, network, depth, lr, b, s)))}
                      for s in denses}  # fmt: skip
            trained = [s for s, by in points.items() if by]
            best = {s: [(o["ratio"], o["test_accuracy"]) for o in map(chosen, points[s].values())] for s in trained}
            reach = reaches(best, denses) if trained else ["" for _ in LOSSES]
            for b in budgets:
                these = [by[b] for by in points.values() if b in by]
                if these:
                    strength_ = f"{these[0]['lam']:.2g} ({b:g})"
                    cut = [chosen(f) for f in these]
                    rows.append([name, network, f"depth {depth}", f"{these[0]['lr']:g}", strength_,
                                 spread([100 * f["at"][0]["test_accuracy"] for f in these], 2),
                                 spread([f["at"][0]["ratio"] for f in these], 1),
                                 spread([100 * o["test_accuracy"] for o in cut], 2),
                                 spread([o["ratio"] for o in cut], 1),
                                 *(reach if b == budgets[0] else ["" for _ in LOSSES]), len(these)])  # fmt: skip
    columns = ["data", "network", "method", "learning rate", "strength (budget)", "test accuracy, %",
               "compression ratio", "test accuracy at the chosen threshold, %", "ratio there",
               *(f"ratio at -{loss} point{'s' if loss > 1 else ''}" for loss in LOSSES), "seeds"]  # fmt: skip
    write_table(
        NAME,
        "Accuracy against compression ratio: deep weight factorization and magnitude pruning",
        columns,
        rows,
        f"{EPOCHS['lenet300']} epochs (LeNet-300-100) or {EPOCHS['lenet5']} (LeNet-5 with 6 and 16 channels) of 54 000 "
        f"images, batch {BATCH}, momentum {MOMENTUM}, an epoch of warm-up and half a cosine, He-normal start; weights "
        "below 1.2e-7 are zero, and nothing is trained afterwards. Chosen threshold: the largest of 1e-5, 1e-3 and "
        "1e-2 that costs at most 0.1 point of validation accuracy. Learning rates were chosen on 6000 held-out images "
        "of Fashion-MNIST, once for each network and depth: LeNet-300-100 of 0.25, 0.5, 1 and 2 at a budget of 28, "
        "LeNet-5 of 0.1, 0.25 and 0.5 at 9, the dense networks of 0.02, 0.05 and 0.1 (weight decay 0.0005); the other "
        "data sets take them over. "
        "Compression ratio: weights over nonzero weights, biases not counted. Ratio at -1 point: where the frontier of "
        "a seed, at the chosen thresholds, crosses the accuracy of its dense network less one point; empty if even the "
        "smallest strength is below, a lower bound where no run is. Mean and deviation over the seeds that are there; "
        "where the deviation is tens of points, or accuracy is that of guessing, training has diverged: the picture "
        "leaves these runs out.",
        picture(),
    )


def reaches(curves: dict[int, list[tuple[float, float]]], denses: dict[int, dict[str, Any]]) -> list[str]:
    """Ratios at which frontiers, by seed, have lost some points of their dense networks' accuracy."""
    found: list[str] = []
    for loss in LOSSES:
        wanted = {s: denses[s]["test_accuracy"] - loss / 100 for s in curves}
        ratios = [at_accuracy(curve, wanted[s]) for s, curve in curves.items()]
        # Where even the smallest network measured is accurate enough, the ratio may be larger still.
        open_ = any(
            r == max((x for x, a in c if a > 0.2), default=None) for r, c in zip(ratios, curves.values(), strict=True)
        )
        found.append(f"{'≥ ' if open_ else ''}{spread(ratios, 1)}")
    return found


def spread(values: list[float | None], digits: int) -> str:
    """Mean and deviation of what there is."""
    there = [v for v in values if v is not None]
    if not there or len(there) < len(values):
        return ""
    deviation = f" ± {stdev(there):.{digits}f}" if len(there) > 1 else ""
    return f"{mean(there):.{digits}f}{deviation}"


def picture() -> str:
    """The frontier on Fashion-MNIST with LeNet-300-100."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = NAME
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for depth, color in ((2, "#4d7a2a"), (3, "#1f5a7a"), (4, "#b5541c")):
        for seed in (0, 1, 2):
            lr = best_rate("lenet300", depth)
            names = [run_name("fashion", "lenet300", depth, lr, b, seed) for b in (*SMALL, *BUDGETS)]
            runs = [run for name in names if (run := found(name))]
            by = sorted((o["ratio"], 100 * o["test_accuracy"]) for o in map(chosen, runs) if o["test_accuracy"] > 0.5)
            label = f"depth {depth}" if seed == 0 else None
            axes.plot([r for r, _ in by], [a for _, a in by], "o-", ms=3, lw=1, color=color, label=label)
    for seed in (0, 1, 2):
        if d := found(f"fashion-lenet300-dense-s{seed}"):
            points = [(1.0, d["test_accuracy"]), *((float(r), a) for r, a in d["pruned"].items())]
            axes.plot([r for r, _ in points], [100 * a for _, a in points], "s--", ms=3, lw=1, color="#777777",
                      label="magnitude pruning, once" if seed == 0 else None)  # fmt: skip
    axes.set_xscale("log")
    axes.set_ylim(70, 92)
    axes.set_xlabel("compression ratio")
    axes.set_ylabel("test accuracy, %")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(RESULTS / NAME / "frontier.svg", metadata={"Date": None})
    plt.close(figure)
    return f"{NAME}/frontier.svg"


if __name__ == "__main__":
    main()
