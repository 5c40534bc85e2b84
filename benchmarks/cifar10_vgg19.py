"""VGG19-BN on CIFAR-10 with RMDA and RAMDA at the paper's settings, as many epochs as there is time for.

    python benchmarks/cifar10_vgg19.py [EPOCHS [SECONDS]]      50 epochs of each, in 300 s
    python benchmarks/cifar10_vgg19.py tiny                    a few small steps anywhere; writes nothing

Settings are those of the RAMDA paper (Huang & Lee, NeurIPS 2024, arXiv:2403.14398, table 7 and the authors' experiment
repository) but for the number of epochs, 1000 there: batch 128, crops and flips, a tenth of the learning rate after
every fifth of the epochs. Steps are fused, on CUDA. The methods take turns, an epoch each, so that both are as far
when time is up. Every ten epochs and at the end a checkpoint is kept in benchmarks/results/cifar10_vgg19 beside what
has been logged, and the next call goes on from there; the table has what there is.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import torch
from readme_table import Cell
from record import FOLDER, data_dir, write_table
from torch import nn
from torch.nn.functional import cross_entropy

from openwork.data import CropFlip, Data, Split, cifar10
from openwork.files import read_json, write_json
from openwork.models import vgg19_bn
from openwork.optim import RAMDA, RMDA, ParamGroups, ProximalOptimizer, regularize
from openwork.penalties import GroupLasso
from openwork.training import Run, supervised
from openwork.training.checkpoint import Position, load_checkpoint, save_checkpoint

NAME = "cifar10_vgg19"
SEED, BATCH, EPOCHS, SECONDS, KEEP_EVERY = 0, 128, 50, 300.0, 10
FULL = 1000


@dataclass(frozen=True)
class Method:
    """A method with its published settings and results.

    Args:
        make: Optimizer of parameter groups.
        lam: Strength of the group lasso.
        accuracy: Percent of the test images, mean and deviation of three seeds.
        sparsity: Weighted group sparsity, likewise.
    """

    make: Callable[[ParamGroups], ProximalOptimizer]
    lam: float
    accuracy: str
    sparsity: str


METHODS = {
    "RMDA": Method(partial(RMDA, lr=0.1, averaging=0.1, fused=True), 1.5e-4, "93.13 ± 0.10", "90.22 ± 0.06"),
    "RAMDA": Method(partial(RAMDA, lr=0.01, averaging=0.01, fused=True), 8e-7, "92.89 ± 0.13", "86.31 ± 0.31"),
}


class Training:
    """One method's training, in its files.

    Args:
        name: Of the method.
        data: To train on.
        epochs: Of the whole training.
        build: Makes the network.
        batch: Images of a step.
        kept: Whether there are files.
    """

    def __init__(
        self, name: str, data: Data, epochs: int, build: Callable[[], nn.Module], batch: int = BATCH, kept: bool = True
    ) -> None:
        self.name, self.epochs, self.kept = name, epochs, kept
        self.log_file = FOLDER / NAME / f"{name}-{epochs}.json"
        self.checkpoint = self.log_file.with_suffix(".pt")
        method, network = METHODS[name], build()
        self.run: Run = supervised(
            network,
            cross_entropy,
            method.make(regularize(network, GroupLasso(method.lam))),
            data=data,
            epochs=epochs,
            milestones=sorted({epochs * fifth // 5 for fifth in range(1, 5)} - {0}),
            batch_size=batch,
            augment=CropFlip(),
            seed=SEED,
        )
        self.log: dict[str, Any] = {"epochs": [], "seconds": 0.0}
        self.position = Position()
        if kept and self.log_file.exists():
            self.log = dict(read_json(self.log_file))
            if not self.done and self.checkpoint.exists():
                self.position = load_checkpoint(self.checkpoint, self.run)
                del self.log["epochs"][self.position.records :]
                self.log["seconds"] = self.position.seconds
            elif not self.done:
                self.log = {"epochs": [], "seconds": 0.0}

    @property
    def done(self) -> bool:
        """Whether all epochs are over."""
        return "final" in self.log

    def epoch(self) -> None:
        """Train for one, and finish after the last."""
        begin = perf_counter()
        found = self.run.advance(self.run.period)
        seconds = perf_counter() - begin
        self.position = self.position.after(self.run.period, seconds).reported()
        self.log["seconds"] += seconds
        self.log["epochs"].append({key: value for key, value in found.items() if not isinstance(value, dict)})
        print(self.name, *(f"{key} {found.get(key)}" for key in SHOWN), f"{seconds:.2f} s", flush=True)
        if len(self.log["epochs"]) == self.epochs:
            final = self.run.evaluate(self.run.finish())
            self.log["final"] = {key: value for key, value in final.items() if not isinstance(value, dict)}
            self.keep()
            self.checkpoint.unlink(missing_ok=True)
        elif len(self.log["epochs"]) % KEEP_EVERY == 0:
            self.keep()

    def keep(self) -> None:
        """Write the log, and from where to go on."""
        if not self.kept:
            return
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        if not self.done:
            save_checkpoint(self.checkpoint, self.run, self.position)
        write_json(self.log_file, self.log)


SHOWN = ("epoch", "train_loss", "valid_accuracy", "structured_valid_accuracy", "weighted_group_sparsity", "averaging")


def row(training: Training) -> list[Cell]:
    """One line of the table."""
    method, epochs = METHODS[training.name], training.log["epochs"]
    last = epochs[-1] if epochs else {}
    found = training.log.get("final", {})

    def percent(value: object) -> Cell:
        return f"{100 * value:.2f}" if isinstance(value, float) else None

    return [
        training.name,
        f"{len(epochs)} of {training.epochs}",
        f"{method.lam:g}",
        percent(found.get("weighted_group_sparsity", last.get("weighted_group_sparsity"))),
        percent(found.get("valid_accuracy", last.get("structured_valid_accuracy"))),
        percent(last.get("valid_accuracy")),
        percent(found.get("test_accuracy")),
        last.get("averaging"),
        f"{training.log['seconds'] / len(epochs):.2f}" if epochs else None,
        method.sparsity,
        method.accuracy,
    ]


def main(epochs: int = EPOCHS, seconds: float = SECONDS) -> None:
    """Train until the time is up, and write the table.

    Args:
        epochs: Of each method's whole training.
        seconds: After which no epoch begins.

    Raises:
        SystemExit: If there is no CUDA.
    """
    end = perf_counter() + seconds
    if not torch.cuda.is_available():
        raise SystemExit(f"{NAME}: torch finds no CUDA, and an epoch takes hours without; `tiny` tries the script")
    torch.cuda.init()
    torch.backends.cudnn.benchmark = True
    data = cifar10(data_dir())
    trainings = [Training(name, data, epochs, lambda: vgg19_bn(seed=SEED)) for name in METHODS]
    while (some := [one for one in trainings if not one.done]) and perf_counter() < end:
        min(some, key=lambda one: len(one.log["epochs"])).epoch()
    for one in trainings:
        one.keep()
    note = (
        f"A {'whole' if epochs == FULL else f'schedule of {epochs} epochs instead of {FULL}, otherwise the'} training "
        "of the paper (Huang & Lee 2024, table 7): batch 128, crops and flips, learning rate to a tenth after every "
        "fifth of the epochs, group lasso on the input channels of every weight. One seed; the published numbers are "
        f"of three seeds, {FULL} epochs and all training images. Ours are {len(data.train)} training images, "
        f"{len(data.valid)} validation images and {len(data.test)} test images"
        f"{f' ({data.note})' if data.note else ''}; nothing was chosen. Convolutions may use TF32. The averaging is "
        "the fraction moved towards the prox point in the last step: below 1 the weights are not structured yet, and "
        "the structured ones, with batch normalization recalibrated, can be far behind."
    )
    write_table(
        NAME,
        f"CIFAR-10, VGG19-BN, group lasso: {epochs} epochs at the paper's settings",
        ["method", "epochs", "strength", "weighted group sparsity, %", "validation accuracy, structured, %",
         "of the weights, %", "test accuracy, structured, %", "averaging", "s/epoch", "published sparsity, %",
         "published test accuracy, %"],
        [row(one) for one in trainings],
        note,
    )  # fmt: skip


def tiny() -> None:
    """A network of two layers on random images, two epochs of each method."""
    some = Split(torch.randn(32, 3, 32, 32), torch.arange(32) % 10)
    data = Data("random images", some, some, some, classes=10)

    def build() -> nn.Module:
        torch.manual_seed(SEED)
        layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(16, 10))

    for name in METHODS:
        training = Training(name, data, 2, build, batch=8, kept=False)
        while not training.done:
            training.epoch()
        print(*row(training), sep="  ", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["tiny"]:
        tiny()
    else:
        numbers = sys.argv[1:3]
        main(*map(int, numbers[:1]), *map(float, numbers[1:]))
