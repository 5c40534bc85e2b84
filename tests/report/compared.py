"""The folder of a comparison, as if ``openwork compare`` had written it."""

import json
import math
import re
from pathlib import Path
from statistics import fmean, stdev

import torch

from openwork.metrics import pack_bits

PARAMS, MACS = 26_660, 26_610
UNITS = {"0.weight": 64, "2.weight": 30, "4.weight": 10}
EVIL = 'pkg.module:<b>evil</b> & "co"'
METHODS = ("dense", "ramda", "magnitude", EVIL)


def network(method: str, level: int, seed: int, strength: float) -> dict:
    """One result; the more methods before it, the worse."""
    n, epochs = METHODS.index(method), 4
    density = 1.0 if method == "dense" else 0.4 / 4**level
    left = math.sqrt(density)
    accuracy = 0.95 - (0.0 if method == "dense" else 0.005 * n * (1 + 2 * level**2)) + 0.001 * seed
    macs = round(MACS * (1 if method == "magnitude" else density))
    cell = {
        "method": method,
        "settings": {"lr": 0.1, "note": "<i>"},
        "strength": strength,
        "seed": seed,
        "epochs": epochs,
    }
    return {
        "cell": {**cell, "trial": None},
        "accuracy": accuracy,
        "loss": 2 * (1 - accuracy),
        "valid_accuracy": accuracy + 0.002,
        "valid_loss": 2 * (0.998 - accuracy),
        "unstructured": 1 - density,
        "group": None if method in ("dense", "magnitude") else 1 - left,
        "weighted_group": None if method in ("dense", "magnitude") else 1 - left**1.5,
        "params": [PARAMS, round(PARAMS * density)],
        "nonzero": round(PARAMS * density) - seed,
        "bytes": [107_000, 400 + round(107_000 * density)],
        "macs": [MACS, macs],
        "seconds": 20.5 + level + seed,
        "memory_mib": 12.25 + n,
        "constant": False,
        "test_unequal": 1.5e-7,
        "latency_ms": None if method == EVIL and level == 1 else [0.12, 0.02 + 0.1 * macs / MACS],
        "layers": {name: [round(640 * density) - seed, 640] for name in UNITS},
        "widths": {} if method == "dense" else {name: [units, round(units * left)] for name, units in UNITS.items()},
        "curves": {
            "epoch": [*range(1, epochs + 1)],
            "train_loss": [2 / (t + 1) for t in range(epochs)],
            "valid_accuracy": [accuracy - 0.1 / (t + 1) for t in range(epochs)],
            "unstructured_sparsity": [(1 - density) * (t + 1) / epochs for t in range(epochs)],
        },
        "notes": ["the last stage is <short>"] if method == "ramda" else [],
    }


def row(results: list[dict], failures: list[dict]) -> dict:
    """What a table says of the networks of one method and strength."""

    def mean(values: list) -> dict | None:
        if None in values:
            return None
        return {"mean": fmean(values), "std": stdev(values) if len(values) > 1 else None}

    cell = (results or failures)[0]["cell"]
    alone = ("accuracy", "loss", "valid_accuracy", "valid_loss", "unstructured", "group", "weighted_group")
    alone = (*alone, "seconds", "memory_mib")
    times = [one["latency_ms"] or [None, None] for one in results]
    return {
        "method": cell["method"],
        "settings": cell["settings"],
        "strength": {"mean": cell["strength"], "std": None},
        "seeds": len(results),
        "epochs": cell["epochs"],
        **{key: mean([one[key] for one in results]) for key in alone if results},
        **{key: mean([one[key][1] for one in results]) for key in ("params", "bytes", "macs") if results},
        "compression": mean([PARAMS / one["nonzero"] for one in results]) if results else None,
        "latency_ms": mean([after for _, after in times]) if results else None,
        "speedup": mean([before and before / after for before, after in times]) if results else None,
        "failures": [f"seed {one['cell']['seed']}: {one['reason']}" for one in failures],
        "notes": [],
    }


def comparison(*, levels: int = 3, seeds: int = 2) -> dict:
    """Everything in ``comparison.json``: the last network of one method failed."""
    results, failures, rows = [], [], []
    for method in METHODS:
        for level in range(1 if method == "dense" else levels):
            strength = 0.0 if method == "dense" else 1e-4 * 7.0**level
            own = [network(method, level, seed, strength) for seed in range(seeds)]
            lost = []
            if (method, level) == ("ramda", levels - 1) and seeds > 1:
                lost = [{"cell": own.pop()["cell"], "reason": "loss is not finite <after> epoch 3"}]
            results, failures, rows = results + own, failures + lost, [*rows, row(own, lost)]
    trial = {
        "cell": {**results[-1]["cell"], "trial": 1},
        "valid_accuracy": 0.875,
        "valid_loss": 0.5,
        "unstructured": 0.25,
    }
    return {
        "schema": 1,
        "openwork": "0.1.0",
        "task": "digits <small>",
        "budget": "4 epochs",
        "configuration": {"batch_size": 64, "strengths": levels, "search": 1},
        "methods": {name: {"refused": "", "about": "About <it>.", "baseline": name == "magnitude"} for name in METHODS},
        "machine": {"cpu": "AMD EPYC <7763>", "cores": 2, "threads": 2},
        "results": results,
        "failures": failures,
        "searched": [{**trial, "seconds": 3.5}],
        "rows": rows,
        "notes": ["rigl is left out: it needs <more> epochs"],
    }


def write_comparison(folder: Path, said: dict) -> Path:
    """The folder of a comparison, with the groups that were alive at each epoch of its runs."""
    generator = torch.Generator().manual_seed(0)
    for result in said["results"]:
        cell = result["cell"]
        run = folder / "runs" / re.sub(r"[^\w.-]+", "-", f"{cell['method']}-{cell['strength']:.6g}-s{cell['seed']}")
        run.mkdir(parents=True)
        (run / "cell.json").write_text(json.dumps(cell))
        lines = []
        for epoch in range(1, cell["epochs"] + 1):
            kept = {n: torch.rand(units, generator=generator) < 1 / epoch for n, units in UNITS.items()}
            layers = {
                n: {"alive": int(k.sum()), "total": len(k), "size": 8, "kept": pack_bits(k)} for n, k in kept.items()
            }
            lines.append(json.dumps({"epoch": epoch, "layers": layers if result["group"] is not None else {}}) + "\n")
        (run / "metrics.jsonl").write_text("".join(lines))
    (folder / "comparison.json").write_text(json.dumps(said))
    return folder
