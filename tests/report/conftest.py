"""Folders that look as if a run had written them."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import nn
from typing_extensions import override

from openwork.files import write_json
from openwork.metrics import pack_bits
from openwork.shrinking import ShrinkReport, shrink
from openwork.training import Recipe, fit, new_folder, rebuild, write_recipe

MakeRun = Callable[..., Path]


def records(epochs: int, layers: Mapping[str, int], seed: int = 0) -> list[dict]:
    """Numbers of a run whose groups die one after the other and then stand still."""
    generator = torch.Generator().manual_seed(seed)
    dies = {
        name: torch.where(
            torch.rand(groups, generator=generator) < 0.35,
            torch.inf,
            1 + torch.randn(groups, generator=generator).abs() * epochs / 6,
        )
        for name, groups in layers.items()
    }
    found = []
    for epoch in range(1, epochs + 1):
        t, averaging = (
            epoch / epochs,
            0.1 if epoch < epochs / 2 else min(1.0, 0.1 * math.sqrt(1 + 40 * (epoch - epochs / 2))),
        )
        accuracy = 0.972 - 0.6 * math.exp(-7 * t) + 0.004 * math.sin(epoch)
        lag = 0.4 * math.exp(-6 * t) * abs(math.sin(1.7 * epoch))
        kept = {name: dies[name] > epoch for name in layers}
        alive, total = sum(int(k.sum()) for k in kept.values()), sum(layers.values())
        found.append(
            {
                "unit": 45 * epoch,
                "epoch": epoch,
                "seconds": 0.69 * epoch,
                "train_loss": 2.3 * math.exp(-4 * t) + 0.05,
                "lr": 0.01 if epoch < epochs / 2 else 0.001,
                "averaging": averaging,
                "valid_loss": 2.2 * math.exp(-4 * t) + 0.11,
                "valid_accuracy": accuracy + 0.004,
                "test_loss": 2.2 * math.exp(-4 * t) + 0.13,
                "test_accuracy": accuracy,
                "structured_valid_loss": 2.2 * math.exp(-4 * t) + 0.11 + 30 * lag,
                "structured_valid_accuracy": accuracy - lag,
                "structured_test_loss": 2.2 * math.exp(-4 * t) + 0.13 + 30 * lag,
                "structured_test_accuracy": accuracy - lag - 0.001,
                "unstructured_sparsity": 0.9 * (1 - alive / total),
                "group_sparsity": 1 - alive / total,
                "weighted_group_sparsity": 1.05 * (1 - alive / total),
                "params": 33_610,
                "nonzero_params": 33_610 - round(30_000 * (1 - alive / total)),
                "alive": alive,
                "total": total,
                "residual": 1e-7 * math.exp(-3 * t) * (1 + 0.5 * math.sin(3 * epoch)),
                "steps_unchanged": 0 if t < 0.4 and epoch % 3 else max(4.0, 45 * (epoch - 0.4 * epochs)),
                "skipped": 0,
                "layers": {
                    name: {"alive": int(k.sum()), "total": layers[name], "size": 300, "kept": pack_bits(k)}
                    for name, k in kept.items()
                },
            }
        )
    return found


def make_run(
    folder: Path,
    *,
    epochs: int = 60,
    layers: Mapping[str, int] | None = None,
    complete: bool = True,
    seed: int = 0,
    recipe: str = "ramda_digits",
) -> Path:
    folder.mkdir(parents=True)
    lines = records(epochs, layers or {"0.weight": 64, "2.weight": 300, "4.weight": 100}, seed)
    heading = {
        "schema": 1,
        "recipe": recipe,
        "arguments": {"lam": 3e-4, "lr": 0.01, "epochs": epochs, "milestones": [30], "seed": seed, "name": None},
        "openwork": "0.1.0",
        "torch": "2.13.0",
        "python": "3.11.9",
        "machine": {"cpu": "AMD EPYC 7763", "cores": 2, "threads": 2},
        "created": "2026-11-22T03:58:00+00:00",
    }
    (folder / "recipe.json").write_text(json.dumps(heading))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if complete:
        final = {k: v for k, v in lines[-1].items() if not k.startswith("structured")}
        (folder / "final.json").write_text(json.dumps({**final, "test_accuracy": 0.9722222222222222}))
    return folder


@pytest.fixture
def new_run(tmp_path: Path) -> MakeRun:
    """Makes the folder of a run below the test's own folder, by name."""

    def make(name: str = "a", **options: object) -> Path:
        return make_run(tmp_path / name, **options)  # pyright: ignore[reportArgumentType]

    return make


class Prunable(nn.Module):
    """A small network in which everything happens that shrink can report."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.next = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 12, 3)
        self.branch = nn.Sequential(nn.Conv2d(12, 12, 1), nn.ReLU())
        self.wide, self.head = nn.Linear(12, 40), nn.Linear(40, 4)

    @override
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.next(self.norm(self.conv(x)).relu()).relu()
        return self.head(self.wide((x + self.branch(x)).mean(dim=(2, 3))))


def prunable() -> tuple[Prunable, torch.Tensor]:
    """Units, a branch, and rank to take out, and example inputs."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Prunable().eval()
    with torch.no_grad():
        model.next.weight[:, 3:] = 0
        model.branch.get_parameter("0.weight").zero_()
        model.wide.weight.copy_(torch.randn(40, 2, generator=generator) @ torch.randn(2, 12, generator=generator))
    return model, torch.randn(2, 1, 8, 8, generator=generator)


def shrink_record(report: ShrinkReport) -> dict:
    """What ``openwork shrink`` writes, times and scores made up."""

    def latency(batch: int, *, compiled: bool, times: float) -> dict:
        return {
            "batch": batch,
            "threads": 2,
            "compiled": compiled,
            "device": "cpu",
            "before_ms": {"median": 0.25 * times, "low": 0.24 * times, "high": 0.27 * times},
            "after_ms": {"median": 0.25, "low": 0.2375, "high": 0.2625},
            "speedup": {"median": times, "low": 0.96 * times, "high": 1.08 * times},
        }

    return {
        "schema": 1,
        "report": report.to_json(),
        "macs": [34_048, 10_380],
        "uncounted": ["aten._fft_r2c"],
        "latency": [
            latency(1, compiled=False, times=1.02),
            latency(128, compiled=False, times=1.75),
            latency(128, compiled=True, times=2.5),
        ],
        "accuracy": {"valid_accuracy": [0.9375, 0.9375], "test_accuracy": [0.9526, 0.9526], "perplexity": [3.5, None]},
        "same_predictions": True,
        "why": ["at batch 1 the time goes into starting operations"],
    }


@pytest.fixture(scope="session")
def shrunk_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ``ramda_digits``, trained for a few epochs, rebuilt, finished and shrunk."""
    folder = tmp_path_factory.mktemp("digits") / "digits"
    recipe = Recipe("ramda_digits", {"lam": 1e-3, "epochs": 6, "averaging": 0.2, "hidden": [32, 16]})
    write_recipe(new_folder(folder), recipe)
    fit(recipe.build(), folder, progress=False)
    run = rebuild(folder)
    write_json(folder / "shrink.json", shrink_record(shrink(run.finish(), run.example).report))
    return folder


@pytest.fixture(scope="session")
def shrink_report() -> ShrinkReport:
    """Of a small network in which everything happens."""
    return shrink(*prunable()).report


@pytest.fixture
def new_shrunk(new_run: MakeRun, shrink_report: ShrinkReport) -> MakeRun:
    """Makes the folder of a run that was shrunk, changed by a function if need be."""

    def make(name: str = "a", change: Callable[[dict], None] = lambda record: None, **options: object) -> Path:
        folder = new_run(name, **options)
        record = shrink_record(shrink_report)
        change(record)
        (folder / "shrink.json").write_text(json.dumps(record))
        return folder

    return make
