"""LeNet-5 (20-50) on Fashion-MNIST, from training to a smaller network: accuracy, parameters, time.

Dense training, and RMDA and RAMDA with group lasso on couplings, on either side; then a refit (epochs without penalty,
zeros stay) and shrink. 6000 training images are held out; the test set chooses nothing. What is quoted is the strongest
penalty whose validation accuracy is within half a point of the dense network's.

Stopped, the script goes on after the last finished part (ten minutes each on one thread).
"""

import sys
from copy import deepcopy
from typing import Any, Literal

import torch
from readme_table import Cell
from record import data_dir, remembered, write_table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from openwork.data import Data, Split, fashion_mnist
from openwork.metrics import compare_latency, macs
from openwork.models import lenet5
from openwork.optim import RAMDA, RMDA, regularize
from openwork.penalties import GroupLasso
from openwork.shrinking import NothingZero, shrink
from openwork.training import supervised

NAME = "fashion_lenet5"
SEED, BATCH, EPOCHS, REFIT = 0, 128, 8, 3
Side = Literal["consumers", "producers"]
OPTIMIZERS = {"RMDA": (RMDA, 0.1), "RAMDA": (RAMDA, 0.01)}
RUNS: tuple[tuple[str, Side, float], ...] = (
    ("RMDA", "consumers", 0.0),
    ("RMDA", "consumers", 5e-4),
    ("RAMDA", "consumers", 1e-4),
    ("RAMDA", "consumers", 3e-4),
    ("RAMDA", "producers", 1e-4),
)
ALLOWED = 0.005


def train(method: str, side: Side, lam: float, data: Data) -> dict[str, Any]:
    """Train with the penalty, then without; for both what the finished and shrunk network is like."""
    network = lenet5((20, 50), seed=SEED)
    groups: Any = regularize(network, GroupLasso(lam), data.train.inputs[:2], side) if lam else network.parameters()
    kind, lr = OPTIMIZERS[method]
    optimizer = kind(groups, lr=lr, averaging=0.1)
    run = supervised(
        network.to(memory_format=torch.channels_last),  # pyright: ignore[reportCallIssue]
        cross_entropy,
        optimizer,
        data=data,
        epochs=EPOCHS,
        milestones=[EPOCHS // 2],
        batch_size=BATCH,
        refit=REFIT,
        seed=SEED,
    )
    history: list[Any] = []
    found: dict[str, Any] = {}
    for epoch in range(EPOCHS + REFIT):
        history.append(run.advance(run.period).get("structured_valid_accuracy"))
        print(f"{method} {side} {lam:g} epoch {epoch + 1}: {history[-1]}", file=sys.stderr, flush=True)
        if epoch + 1 == EPOCHS:
            with optimizer.structured():
                found["trained"] = described(deepcopy(network), data)
    found["refitted"] = described(run.finish(), data)
    return found | {"history": history}


def described(model: nn.Module, data: Data) -> dict[str, Any]:
    """Accuracies, what shrinking leaves, proof that predictions stay, and times side by side."""
    model = model.to(memory_format=torch.contiguous_format).eval()  # pyright: ignore[reportCallIssue]
    try:
        shrunk = shrink(model, data.valid.inputs[:2])
    except NothingZero:
        shrunk = None
    small = model if shrunk is None else shrunk.model
    x = data.test.inputs[:BATCH]
    found: dict[str, Any] = {
        "valid_accuracy": accuracy(model, data.valid),
        "test_accuracy": accuracy(model, data.test),
        "widths": [len(p) for p in small.parameters() if p.ndim > 1],
        "params": [sum(p.numel() for p in m.parameters()) for m in (model, small)],
        "macs": [macs(m, x[:1]).total for m in (model, small)],
    }
    if shrunk is not None:
        with torch.no_grad():
            pairs = [(model(part).argmax(1), small(part).argmax(1)) for part in data.test.inputs.split(1000)]
        found["same_predictions"] = all(torch.equal(a, b) for a, b in pairs)
        found["difference"] = shrunk.report.certificate.difference
        measured = compare_latency({"before": model, "after": small}, x, seconds=6.0, threads=2)
        found["ms"] = [measured.latencies[name].ms.median for name in ("before", "after")]
        speedup = measured.speedups["after"]
        found["speedup"] = [speedup.median, speedup.low, speedup.high]
    return found


@torch.no_grad()
def accuracy(model: nn.Module, split: Split) -> float:
    """Fraction of right predictions."""
    batches = zip(split.inputs.split(1000), split.targets.split(1000), strict=True)
    right: list[Tensor] = [(model(x).argmax(1) == y).sum() for x, y in batches]
    return int(sum(right)) / len(split.inputs)


def main() -> None:
    """Train what is missing, and write the table."""
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    data = fashion_mnist(data_dir(), seed=SEED)
    rows: list[list[Cell]] = []
    wanted = sys.argv[1:]  # such as RMDA-consumers-0.0005, to train some parts only, in several processes at once
    for method, side, lam in RUNS:
        part = f"{method}-{side}-{lam:g}"
        if wanted and part not in wanted:
            continue
        found = remembered(NAME, part, lambda m=method, s=side, lam=lam: train(m, s, lam, data))
        for phase in ("trained", "refitted"):
            rows.append([method, *row(side if lam else "dense", lam, phase, found[phase])])
    if wanted:
        return
    columns = ["method", "side", "strength", "phase", "validation accuracy, %", "test accuracy, %", "widths",
               "parameters, %", "MACs, %", "faster at batch 128", "same predictions", "largest difference"]  # fmt: skip
    note = (
        f"{EPOCHS} epochs of {len(data.train.inputs)} images with group lasso on couplings (all that reads a channel: "
        f"consumers; all that writes it: producers), then a refit of {REFIT} epochs without penalty; dense is the same "
        f"without a penalty. Batch {BATCH}, learning rate 0.1 (RMDA) and 0.01 (RAMDA), a tenth in the second half and "
        "in the refit. One seed. Parameters and MACs are those of the shrunk network, in percent of the dense one's; "
        "times are medians of interleaved rounds on 2 threads, as a ratio with quartiles."
    )
    write_table(NAME, "LeNet-5 on Fashion-MNIST: trained, refitted, shrunk", columns, rows, note)


def row(side: str, lam: float, phase: str, found: dict[str, Any]) -> list[Cell]:
    """One line of the table."""
    share = [found[key][1] / found[key][0] for key in ("params", "macs")]
    speed = found.get("speedup")
    return [
        side,
        f"{lam:g}" if lam else "",
        phase,
        f"{100 * found['valid_accuracy']:.2f}",
        f"{100 * found['test_accuracy']:.2f}",
        "-".join(map(str, found["widths"])),
        f"{100 * share[0]:.1f}",
        f"{100 * share[1]:.1f}",
        f"{speed[0]:.2f} ({speed[1]:.2f} to {speed[2]:.2f})" if speed else "",
        {True: "yes", False: "NO", None: ""}[found.get("same_predictions")],
        f"{found['difference']:.1e}" if "difference" in found else "",
    ]


if __name__ == "__main__":
    main()
