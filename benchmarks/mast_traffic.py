"""Bytes and seconds of a step when workers train 1 / n of the weights each, against a dense all-reduce.

Every worker is a process with one thread in a network namespace of its own, behind a link whose sending rate is limited
by ``tc``. What the collectives were given is counted, and compared with the formulas and with what the kernel has sent
on the link. Where the machine allows no namespaces, processes share the loopback device, and the time of a link is
computed from the bytes.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' way to start processes in namespaces

import torch
import torch.distributed as dist
from readme_table import Cell
from record import write_table
from torch import nn
from torch.optim import SGD

from openwork import models
from openwork.sketches import (
    Identity,
    ISTTrainer,
    Key,
    PermK,
    PermKAggregator,
    ReduceAggregator,
    ShardedPermK,
    SketchedModule,
    Traffic,
    replicated_bytes,
    ring_bytes,
    sharded_bytes,
    start_workers,
)
from tests.sketches.launch import torchrun
from tests.sketches.network import across_namespaces, namespaces_work

NAME = "mast_traffic"
RATE_MBIT = 50.0
STEPS = 6
TAU = 4
WIDTHS = [784, 512, 216, 10]
SCHEMES: dict[str, Callable[[int, int], float]] = {
    "dense all-reduce (ring)": ring_bytes,
    "Perm-K, replicated": replicated_bytes,
    "Perm-K, sharded": sharded_bytes,
    f"IST, {TAU} local steps": lambda size, workers: replicated_bytes(size, workers) / TAU,
}


def trainer(
    scheme: str, model: SketchedModule
) -> tuple[Callable[[Callable[[nn.Module], torch.Tensor]], None], Traffic]:
    """What takes a step of a scheme, and counts."""
    optimizer = SGD(model.parameters(), lr=0.01)
    if scheme.startswith("IST"):
        rounds = ISTTrainer(model, lambda parameters: SGD(parameters, lr=0.01), local_steps=TAU)
        return lambda loss: void(rounds.round(loss)), rounds.traffic
    if scheme == "Perm-K, sharded":
        sharded = ShardedPermK(model, optimizer)

        def move(loss: Callable[[nn.Module], torch.Tensor]) -> None:
            optimizer.zero_grad()
            loss(model).backward()
            sharded.step()

        return move, sharded.traffic
    aggregator = (PermKAggregator if scheme.startswith("Perm-K") else ReduceAggregator)(model)

    def reduce(loss: Callable[[nn.Module], torch.Tensor]) -> None:
        optimizer.zero_grad()
        loss(model).backward()
        aggregator.reduce_()
        optimizer.step()
        model.advance()

    return reduce, aggregator.traffic


def void(_: object) -> None:
    """A step gives nothing back."""


def worker(folder: Path) -> None:
    """One process: all schemes in turn."""
    torch.set_num_threads(1)
    workers = start_workers(timeout_s=120)
    found: dict[str, dict[str, float]] = {}
    x, y = torch.randn(64, 784), torch.randint(10, (64,))
    for scheme in SCHEMES:
        torch.manual_seed(0)
        law = Identity() if scheme.startswith("dense") else PermK(workers.size)
        model = SketchedModule(models.mlp(WIDTHS), law, granularity="model", key=Key(0)).train()
        step, traffic = trainer(scheme, model)
        step(lambda local: nn.functional.cross_entropy(local(x), y))
        dist.barrier()
        before = traffic.total, wire(), time.perf_counter()
        for _ in range(STEPS):
            step(lambda local: nn.functional.cross_entropy(local(x), y))
        dist.barrier()
        done = STEPS * TAU if scheme.startswith("IST") else STEPS
        found[scheme] = {
            "size": sum(p.numel() for p in model.parameters()),
            "bytes": (traffic.total - before[0]) / done,
            "wire": (wire() - before[1]) / done,
            "seconds": (time.perf_counter() - before[2]) / done,
        }
    (folder / f"{workers.rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def wire() -> int:
    """Bytes that this namespace has sent on its link; 0 if there is none."""
    counter = Path("/sys/class/net/wire/statistics/tx_bytes")
    return int(counter.read_text()) if counter.exists() else 0


def measured(workers: int, rate_mbit: float | None) -> list[dict[str, dict[str, float]]]:
    """Results of all processes.

    Raises:
        SystemExit: If one fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        if namespaces_work(rate_mbit):
            done = across_namespaces(workers, Path(__file__), folder, rate_mbit=rate_mbit)
        else:
            done = torchrun(workers, str(Path(__file__)), folder)
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(workers)]


def mean(results: list[dict[str, dict[str, float]]], scheme: str, what: str) -> float:
    """Over workers."""
    return sum(result[scheme][what] for result in results) / len(results)


def rows_of(workers: int) -> list[list[Cell]]:
    """One for each scheme."""
    limited, free = measured(workers, RATE_MBIT), measured(workers, None)
    isolated = namespaces_work(RATE_MBIT)
    rows: list[list[Cell]] = []
    for scheme, formula in SCHEMES.items():
        size = int(limited[0][scheme]["size"])
        counted, expected = mean(limited, scheme, "bytes"), formula(size, workers)
        unlimited = mean(free, scheme, "seconds")
        seconds = mean(limited, scheme, "seconds") if isolated else unlimited + counted * 8e-6 / RATE_MBIT
        rows.append(
            [
                *(workers, scheme, round(counted), round(expected), round(counted / ring_bytes(size, workers), 4)),
                *(round(mean(limited, scheme, "wire")) if isolated else None, round(seconds, 3), round(unlimited, 3)),
            ]
        )
    return rows


def main() -> None:
    """Measure with two and four processes."""
    rows = [row for workers in (2, 4) for row in rows_of(workers)]
    size = sum(a * b + b for a, b in pairwise(WIDTHS))
    link = (
        f"one network namespace per process, veth links limited to {RATE_MBIT:.0f} Mbit/s each way out by tc tbf"
        if namespaces_work(RATE_MBIT)
        else f"no namespaces here: seconds at {RATE_MBIT:.0f} Mbit/s are those without a limit plus bytes over the rate"
    )
    columns: list[str] = ["workers", "scheme", "counted bytes", "formula", "of the ring", "bytes on the wire"]
    write_table(
        NAME,
        f"Traffic of a step per worker, multilayer perceptron of {size} float32 weights",
        [*columns, f"s at {RATE_MBIT:.0f} Mbit/s", "s without limit"],
        rows,
        f"Means over workers and {STEPS} steps (rounds of IST, per local step), batch of 64, gloo; {link}. "
        "Seconds include the backward pass and the draws, of processes that share the cores of one machine. The "
        "formula of shards is a mean over draws. Bytes on the wire have headers and acknowledgements on top, and those "
        "of a barrier.",
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        worker(Path(sys.argv[1]))
    else:
        main()
