"""What the tests of several processes run in each: every check in turn, results to a file of the rank.

``python -m torch.distributed.run --nproc-per-node 2 tests/sketches/processes.py FOLDER [CHECK...]``
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, Optimizer

from openwork import models
from openwork.sketches import (
    Identity,
    ISTTrainer,
    Key,
    PermK,
    PermKAggregator,
    RandK,
    ReduceAggregator,
    ShardedPermK,
    Sketch,
    SketchedModule,
    Traffic,
    compress,
    start_workers,
)
from openwork.sketches.choosing import Granularity
from openwork.sketches.module import Mode
from openwork.sketches.shifts import Shift

STEPS = 8
LONG = 50  # steps of one case, "gathered for long"
SIZE = 100  # parameters of the model, of which 2 and 4 workers have equally many
TAU = 3
NOTHING = torch.zeros(0)
ROUNDS = 3
LR = 0.02  # of all optimizers but Adam


@dataclass
class Result:
    """What a check leaves; not every one leaves all."""

    weights: Tensor = NOTHING
    stale: Tensor = NOTHING
    losses: Tensor = NOTHING
    bytes: float = 0.0
    steps: float = 0.0
    messages: dict[str, str] = field(default_factory=dict[str, str])


Case = tuple[Granularity, Shift, Callable[[int], Sketch], Callable[[list[nn.Parameter]], Optimizer]]


def sgd(parameters: list[nn.Parameter]) -> Optimizer:
    return SGD(parameters, lr=LR, momentum=0.9, weight_decay=1e-3)


def adam(parameters: list[nn.Parameter]) -> Optimizer:
    return Adam(parameters, lr=0.01)


def plain(parameters: list[nn.Parameter]) -> Optimizer:
    return SGD(parameters, lr=LR)


GATHERED: dict[str, Case] = {
    "perm-k model": ("model", "init", PermK, sgd),
    "perm-k tensor": ("tensor", "zero", PermK, adam),
    "perm-k units": ("units", "zero", PermK, sgd),
    "perm-k units, shift": ("units", "init", PermK, sgd),
    "perm-k shares": ("model", "init", lambda n: PermK(n, tuple(2 * (i + 1) / (n * (n + 1)) for i in range(n))), sgd),
    "rand-k": ("model", "init", lambda n: RandK(0.3), sgd),
    "identity": ("model", "init", lambda n: Identity(), sgd),
}
REDUCED: dict[str, Case] = {"rand-k": GATHERED["rand-k"]}
IST = ("perm-k model", "perm-k shares", "perm-k units")
SHARDED: dict[str, Case] = {
    "perm-k model, plain": ("model", "init", PermK, plain),
    "perm-k model": ("model", "init", PermK, sgd),
    "perm-k tensor": ("tensor", "zero", PermK, adam),
}


def sketched(case: Case, workers: int, worker: int = 0, seed: int = 3, mode: Mode = "mask") -> SketchedModule:
    granularity, shift, law, _ = case
    torch.manual_seed(0)
    model = models.mlp([7, 8, 4]).double()
    example = torch.zeros(2, 7, dtype=torch.float64)
    key = Key(seed).at(worker=worker)
    return SketchedModule(
        *(model, law(workers)),
        shift=shift,
        granularity=granularity,
        example_inputs=example,
        mode=mode,
        key=key,
    ).train()


def batch(step: int, worker: int, size: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 * step + worker)
    x = torch.randn(size, 7, generator=generator, dtype=torch.float64)
    return x, torch.randint(4, (size,), generator=generator)


def loss(model: nn.Module, step: int, worker: int) -> Tensor:
    x, y = batch(step, worker)
    return nn.functional.cross_entropy(model(x), y)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def summary(model: nn.Module, traffic: Traffic) -> Result:
    in_steps = {name: sent for name, sent in traffic.sent.items() if name != "broadcast"}
    return Result(weights=weights(model), bytes=float(sum(in_steps.values())), steps=float(traffic.steps))


def aggregated(
    kind: type[PermKAggregator | ReduceAggregator], case: Case, rank: int, size: int, steps: int = STEPS
) -> Result:
    model = sketched(case, size)
    aggregator = kind(model)
    optimizer = case[3](list(model.parameters()))
    aggregator.traffic.sent.clear()
    for step in range(steps):
        optimizer.zero_grad()
        loss(model, step, rank).backward()
        aggregator.reduce_()
        optimizer.step()
        model.advance()
    return summary(model, aggregator.traffic)


def sharded(case: Case, rank: int, size: int) -> Result:
    model = sketched(case, size)
    optimizer = case[3](list(model.parameters()))
    trainer = ShardedPermK(model, optimizer)
    trainer.traffic.sent.clear()
    for step in range(STEPS):
        optimizer.zero_grad()
        loss(model, step, rank).backward()
        trainer.step()
    result = summary(model, trainer.traffic)
    stale = weights(model)
    trainer.gather_()
    return replace(result, weights=weights(model), stale=stale)


def ist(case: Case, rank: int, size: int, tau: int) -> Result:
    model = sketched(case, size)
    return rounds(model, ISTTrainer(model, plain, local_steps=tau), rank, tau)


def ist_sliced(rank: int, size: int, tau: int) -> Result:
    """On networks that are really smaller."""
    model = sketched(GATHERED["perm-k units"], size, mode="slice")
    trainer = ISTTrainer(model, plain, local_steps=tau, submodel=SketchedModule.submodel)
    return rounds(model, trainer, rank, tau)


def rounds(model: SketchedModule, trainer: ISTTrainer, rank: int, tau: int) -> Result:
    trainer.traffic.sent.clear()
    for turn in range(ROUNDS):
        steps = iter(range(tau * turn, tau * (turn + 1)))
        trainer.round(lambda local, steps=steps: loss(local, next(steps), rank))
    return summary(model, trainer.traffic)


def shared(rank: int, size: int, kind: str) -> Result:
    """One draw for all workers, and one batch split among them."""
    case: Case = ("model", "init", lambda n: RandK(0.25), sgd)
    model = sketched(case, size)
    traffic, trained = Traffic(), model
    if kind == "fsdp":
        from torch.distributed.fsdp import fully_shard  # takes long, and the network's test goes without

        fully_shard(model)
    else:
        trained = DistributedDataParallel(model)
    if kind == "ddp, kept" and isinstance(trained, DistributedDataParallel):
        traffic = compress(trained)
    optimizer = case[3](list(trained.parameters()))
    losses: list[float] = []
    for step in range(STEPS):
        x, y = batch(step, 0, size=8)
        mine = slice(rank * 8 // size, (rank + 1) * 8 // size)
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(trained(x[mine]), y[mine])
        value.backward()
        optimizer.step()
        model.advance()
        mean = value.detach().clone()
        dist.all_reduce(mean)
        losses.append(mean.item() / size)
    from torch.distributed.tensor import DTensor

    whole = [p.full_tensor() if isinstance(p, DTensor) else p for p in model.parameters()]
    return Result(
        weights=torch.cat([p.detach().flatten() for p in whole]),
        losses=torch.tensor(losses, dtype=torch.float64),
        bytes=float(traffic.total),
    )


def no_sync(rank: int, size: int) -> Result:
    """A draw for each worker beside DistributedDataParallel, whose own reduction is off."""
    case = GATHERED["perm-k model"]
    model = sketched(case, size)
    wrapped = DistributedDataParallel(model)
    aggregator = PermKAggregator(model)
    optimizer = case[3](list(model.parameters()))
    for step in range(STEPS):
        optimizer.zero_grad()
        with wrapped.no_sync():
            loss(wrapped, step, rank).backward()
        aggregator.reduce_()
        optimizer.step()
        model.advance()
    return summary(model, aggregator.traffic)


def errors(rank: int, size: int) -> Result:
    """Messages of what goes wrong on all workers alike."""
    case = GATHERED["perm-k model"]

    def message(act: Callable[[], object]) -> str:
        try:
            act()
        except (TypeError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return "no error"

    def outside() -> None:
        model = sketched(case, size)
        aggregator = PermKAggregator(model)
        (loss(model, 0, rank) + weights_of(model)).backward()
        aggregator.reduce_()

    def weights_of(model: nn.Module) -> Tensor:
        return torch.stack([p.square().sum() for p in model.parameters()]).sum()

    aggregator = PermKAggregator(sketched(case, size))
    units = sketched(GATHERED["perm-k units"], size)

    def layers_sharded() -> None:
        from torch.distributed.fsdp import fully_shard

        model = sketched(case, size)
        for layer in model.module.children():
            if isinstance(layer, nn.Linear):
                fully_shard(layer)
        fully_shard(model)
        loss(model, 0, rank)

    messages = {
        "layers sharded": message(layers_sharded),
        "workers": message(lambda: PermKAggregator(sketched(case, size + 1))),
        "seed": message(lambda: PermKAggregator(sketched(case, size, seed=rank))),
        "outside": message(outside),
        "resumed workers": message(lambda: aggregator.load_state_dict({"workers": size + 1, "seed": 3, "step": 5})),
        "resumed seed": message(lambda: aggregator.load_state_dict({"workers": size, "seed": 4, "step": 5})),
        "sharded units": message(lambda: ShardedPermK(units, sgd(list(units.parameters())))),
        "compressed": message(lambda: compress(DistributedDataParallel(nn.Linear(2, 2)))),
        "compressed worker": message(lambda: compress(DistributedDataParallel(sketched(case, size, worker=1)))),
    }
    return Result(messages=messages, steps=float(aggregator.state_dict()["step"]))


def checks(rank: int, size: int) -> dict[str, Callable[[], Result]]:
    found: dict[str, Callable[[], Result]] = {}
    found |= {
        f"gathered {name}": partial(aggregated, PermKAggregator, case, rank, size) for name, case in GATHERED.items()
    }
    found["gathered for long"] = partial(aggregated, PermKAggregator, GATHERED["perm-k model"], rank, size, LONG)
    found |= {
        f"reduced {name}": partial(aggregated, ReduceAggregator, case, rank, size) for name, case in REDUCED.items()
    }
    found |= {f"sharded {name}": partial(sharded, case, rank, size) for name, case in SHARDED.items()}
    for name in IST:
        found |= {f"ist {name}, {tau}": partial(ist, GATHERED[name], rank, size, tau) for tau in (1, TAU)}
    found |= {f"ist sliced, {tau}": partial(ist_sliced, rank, size, tau) for tau in (1, TAU)}
    found |= {kind: partial(shared, rank, size, kind) for kind in ("ddp", "ddp, kept", "fsdp")}
    return {**found, "no_sync": partial(no_sync, rank, size), "errors": partial(errors, rank, size)}


def main(folder: Path, names: Sequence[str] = ()) -> None:
    # As in a recipe under `accelerate launch`, which has made the group before.
    PartialState(cpu=True, timeout=timedelta(seconds=60))
    workers = start_workers()
    all_checks = checks(workers.rank, workers.size)
    results = {name: vars(all_checks[name]()) for name in names or all_checks}
    torch.save(results, folder / f"{workers.rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sys.argv[2:])
