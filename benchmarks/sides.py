"""ResNet-18, half of its units zero on either side of the couplings: what goes, and at what accuracy?

The target is the same for both sides, a fraction of the units that run through the whole network, so that what differs
is which units are chosen and what they cost. CIFAR-10, 2000 training images scaled to 8 x 8, a few epochs: a sketch
of the comparison that fits a laptop, not a result on CIFAR-10. LeNet-5 is compared in fashion_lenet5.py.

Stopped, the script goes on after the last finished side.
"""

import sys
from typing import Any

import torch
from readme_table import Cell
from record import data_dir, remembered, write_table
from torch.nn.functional import avg_pool2d, cross_entropy

from openwork.data import Data, Split, cifar10
from openwork.metrics import compare_latency, macs
from openwork.models import resnet18
from openwork.optim import RMDA, regularize
from openwork.penalties import GroupLasso, Target
from openwork.shrinking import shrink
from openwork.training import supervised
from openwork.wiring import Side

NAME = "sides"
SEED, BATCH, EPOCHS, IMAGES, FRACTION = 0, 64, 2, 2000, 0.5
SIDES: tuple[Side | None, ...] = ("consumers", "producers")


def train(side: Side | None, data: Data) -> dict[str, Any]:
    """Train towards the target, and shrink."""
    network = resnet18(seed=SEED)
    x = data.train.inputs[:2]
    penalty = Target(GroupLasso(1.0), FRACTION)
    groups: Any = network.parameters() if side is None else regularize(network, penalty, x, side)
    run = supervised(
        network,
        cross_entropy,
        RMDA(groups, lr=0.1, averaging=0.3),  # in the last stage it grows to 1 within 12 steps
        data=data,
        epochs=EPOCHS,
        milestones=[EPOCHS // 2],
        batch_size=BATCH,
        seed=SEED,
    )
    for epoch in range(EPOCHS):
        print(side, epoch, run.advance(run.period), file=sys.stderr, flush=True)
    model = run.finish()
    found: dict[str, Any] = {"valid_accuracy": run.evaluate(model)["valid_accuracy"]}
    if side is None:
        return found
    shrunk = shrink(model, x, low_rank=False)
    measured = compare_latency(
        {"before": model, "after": shrunk.model}, data.valid.inputs[:BATCH], seconds=10, threads=2
    )
    speed = measured.speedups["after"]
    return found | {
        "params": shrunk.report.params,
        "macs": [macs(m, x[:1]).total for m in (model, shrunk.model)],
        "folded": shrunk.report.folded,
        "difference": shrunk.report.certificate.difference,
        "speedup": [speed.median, speed.low, speed.high],
    }


def small_images() -> Data:
    """The first images of CIFAR-10, at a sixteenth of the pixels."""
    full = cifar10(data_dir())

    def part(split: Split, count: int) -> Split:
        return Split(avg_pool2d(split.inputs[:count], 4), split.targets[:count])

    return Data(full.name, part(full.train, IMAGES), part(full.valid, 1000), part(full.test, 1000), full.classes)


def main() -> None:
    """Train what is missing, and write the table."""
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    wanted = sys.argv[1:]
    data = small_images()
    rows: list[list[Cell]] = []
    for side in SIDES:
        if wanted and str(side) not in wanted:
            continue
        found = remembered(NAME, str(side), lambda side=side: train(side, data))
        row: list[Cell] = [side or "no penalty", f"{100 * found['valid_accuracy']:.1f}"]
        if side is None:
            rows.append([*row, *[None] * 5])
            continue
        (p0, p1), (m0, m1) = found["params"], found["macs"]
        low, high = found["speedup"][1:]
        row += [f"{100 * p1 / p0:.1f}", f"{100 * m1 / m0:.1f}", str(found["folded"])]
        rows.append([*row, f"{found['speedup'][0]:.2f} ({low:.2f} to {high:.2f})", f"{found['difference']:.1e}"])
    if wanted:
        return
    columns = ["side", "validation accuracy, %", "parameters left, %", "MACs left, %",
               "constants folded", "faster at batch 64", "largest difference"]  # fmt: skip
    note = (
        f"RMDA with Target(GroupLasso, {FRACTION}) on the couplings, {EPOCHS} epochs of {IMAGES} images of CIFAR-10 "
        f"scaled to 8 x 8, batch {BATCH}, averaging 0.3, learning rate 0.1, a tenth in the second half; 1000 "
        "validation images; one seed. A short run that compares the sides, no result on CIFAR-10. Times on 2 threads."
    )
    write_table(NAME, "ResNet-18: half of the units zero, on either side", columns, rows, note)


if __name__ == "__main__":
    main()
