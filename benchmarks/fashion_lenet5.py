"""LeNet-5 (20-50) on Fashion-MNIST, from training to a smaller network: accuracy, parameters, time.

Dense training, and RMDA and RAMDA with group lasso on couplings, on either side, at a path of strengths; then shrink,
with and without a refit (epochs without penalty, zeros stay). One seed for the path; 5000 training images are held out,
and what is quoted is the strongest penalty whose validation accuracy is within half a point of the dense network's.
The test set is looked at once per trained network and chooses nothing.

Stopped, the script goes on after the last finished part (about two minutes each).
"""

from typing import Any, Literal

import torch
from readme_table import Cell
from record import data_dir, remembered, write_table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from openwork.data import Data, fashion_mnist
from openwork.metrics import compare_latency, macs
from openwork.models import lenet5
from openwork.optim import RAMDA, RMDA, ProximalOptimizer, regularize
from openwork.penalties import GroupLasso
from openwork.shrinking import NothingZero, shrink
from openwork.training import supervised

NAME = "fashion_lenet5"
SEED, BATCH, EPOCHS, REFIT = 0, 128, 12, 4
EXAMPLE = torch.zeros(2, 1, 28, 28)
Side = Literal["consumers", "producers"]
METHODS: dict[str, type[RMDA] | type[RAMDA]] = {"RMDA": RMDA, "RAMDA": RAMDA}
RATES = {"RMDA": 0.1, "RAMDA": 0.01}
PATHS: dict[tuple[str, Side], tuple[float, ...]] = {
    ("RMDA", "consumers"): (2e-4, 4e-4, 8e-4),
    ("RMDA", "producers"): (2e-4, 4e-4, 8e-4),
    ("RAMDA", "consumers"): (2e-4, 4e-4, 8e-4),
    ("RAMDA", "producers"): (2e-4, 4e-4, 8e-4),
}
ALLOWED = 0.005


def train(method: str, side: Side, lam: float, refit: int, data: Data) -> dict[str, Any]:
    """Train, finish, shrink; accuracies of the finished network, and what is left of it."""
    network = lenet5((20, 50), seed=SEED)
    groups: Any = regularize(network, GroupLasso(lam), EXAMPLE, side) if lam else network.parameters()
    optimizer: ProximalOptimizer = METHODS[method](groups, lr=RATES[method], averaging=0.1)
    run = supervised(
        network,
        cross_entropy,
        optimizer,
        data=data,
        epochs=EPOCHS,
        milestones=[EPOCHS // 2],
        batch_size=BATCH,
        refit=refit,
        seed=SEED,
    )
    history = [run.advance(run.period) for _ in range(run.units // run.period)]
    model = run.finish()
    found: dict[str, Any] = {
        "valid": [row.get("structured_valid_accuracy") for row in history],
        "valid_accuracy": accuracy(model, data.valid),
        "test_accuracy": accuracy(model, data.test),
    }
    return found | reduced(model, data)


def reduced(model: nn.Module, data: Data) -> dict[str, Any]:
    """What shrinking leaves, proof that predictions stay, and times side by side."""
    try:
        shrunk = shrink(model, data.valid.inputs[:2])
    except NothingZero:
        shrunk = None
    small = model if shrunk is None else shrunk.model
    x = data.test.inputs[:BATCH]
    found: dict[str, Any] = {
        "widths": [tuple(p.shape)[0] for p in small.parameters() if p.ndim > 1],
        "params": [sum(p.numel() for p in m.parameters()) for m in (model, small)],
        "macs": [macs(m, x[:1]).total for m in (model, small)],
    }
    if shrunk is not None:
        with torch.no_grad():
            pairs = [(model(part).argmax(1), small(part).argmax(1)) for part in data.test.inputs.split(1000)]
        found["same_predictions"] = all(torch.equal(a, b) for a, b in pairs)
        found["difference"] = shrunk.report.certificate.difference
        threads = torch.get_num_threads()
        measured = compare_latency({"before": model, "after": small}, x, seconds=6.0, threads=2)
        torch.set_num_threads(threads)
        found["ms"] = [measured.latencies[name].ms.median for name in ("before", "after")]
        speedup = measured.speedups["after"]
        found["speedup"] = [speedup.median, speedup.low, speedup.high]
    return found


@torch.no_grad()
def accuracy(model: nn.Module, split: Any) -> float:
    """Fraction of right predictions."""
    inputs: Tensor = split.inputs
    right = [int((model(x).argmax(1) == y).sum()) for x, y in zip(inputs.split(1000), split.targets.split(1000))]  # noqa: B905
    return sum(right) / len(inputs)


def main() -> None:
    """Train what is missing, and write the table."""
    torch.set_flush_denormal(True)
    data = fashion_mnist(data_dir(), seed=SEED)
    dense = {m: remembered(NAME, f"{m}-dense", lambda m=m: train(m, "consumers", 0.0, 0, data)) for m in METHODS}
    rows = [row(f"{m}, dense", "", 0.0, 0, dense[m]) for m in METHODS]
    best = max(d["valid_accuracy"] for d in dense.values())
    for (method, side), path in PATHS.items():
        fits: list[tuple[float, dict[str, Any]]] = []
        for lam in path:
            part = f"{method}-{side}-{lam:g}"
            found = remembered(NAME, part, lambda m=method, s=side, lam=lam: train(m, s, lam, 0, data))
            rows.append(row(method, side, lam, 0, found))
            fits.append((lam, found))
        good = [lam for lam, found in fits if found["valid_accuracy"] >= best - ALLOWED]
        for lam in [max(good)] if good else []:
            part = f"{method}-{side}-{lam:g}-refit"
            found = remembered(NAME, part, lambda m=method, s=side, lam=lam: train(m, s, lam, REFIT, data))
            rows.append(row(method, side, lam, REFIT, found))
    columns = ["method", "side", "strength", "refit, epochs", "validation accuracy, %", "test accuracy, %", "widths",
               "parameters, %", "MACs, %", "faster, batch 128", "same predictions", "largest difference"]  # fmt: skip
    note = (
        f"{EPOCHS} epochs of 55 000 images, batch {BATCH}, learning rate {RATES['RMDA']:g} (RMDA) and "
        f"{RATES['RAMDA']:g} (RAMDA), a tenth in the second half; a refit adds {REFIT} epochs. One seed. Group lasso on "
        "couplings: all that reads a channel (consumers), or all that writes it (producers). Parameters and MACs are "
        "those of the shrunk network, in percent of the dense one's; times are medians of interleaved rounds on 2 "
        "threads, as a ratio. Refitted is the strongest penalty within half a point of the best dense validation "
        "accuracy."
    )
    write_table(NAME, "LeNet-5 on Fashion-MNIST: trained, shrunk, refitted", columns, rows, note)


def row(method: str, side: str, lam: float, refit: int, found: dict[str, Any]) -> list[Cell]:
    """One line of the table."""
    share = [found[key][1] / found[key][0] for key in ("params", "macs")]
    speed = found.get("speedup")
    return [
        method,
        side,
        f"{lam:g}" if lam else "",
        str(refit) if refit else "",
        f"{found['valid_accuracy']:.2%}".rstrip("%"),
        f"{found['test_accuracy']:.2%}".rstrip("%"),
        "-".join(map(str, found["widths"])),
        f"{share[0]:.1%}".rstrip("%"),
        f"{share[1]:.1%}".rstrip("%"),
        f"{speed[0]:.2f} ({speed[1]:.2f} to {speed[2]:.2f})" if speed else "",
        {True: "yes", False: "NO", None: ""}[found.get("same_predictions")],
        f"{found['difference']:.1e}" if "difference" in found else "",
    ]


if __name__ == "__main__":
    main()
