"""Folders that look as if a run had written them."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from openwork.metrics import pack_bits

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
