"""What a penalty on sharded parameters exchanges between processes: counted with real ones, and extrapolated.

    python benchmarks/sharded_traffic.py

Groups are the input features of every weight, and ``fully_shard`` divides rows, so that every group is divided among
all processes. A step of RAMDA then exchanges, for as many weights at once as are solved together, two numbers per group
for each evaluation of the secular equation, two before for the scales and two for the start, and one number that says
whether gradients are finite. The number of evaluations is that of the slowest group on the CPU, and fixed on devices.
"""

import multiprocessing
import socket
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from readme_table import Cell
from record import write_table
from torch import Tensor, nn

from openwork.kernels import group_norm
from openwork.optim import RAMDA
from openwork.penalties import GroupLasso
from openwork.penalties.pieces import pack
from openwork.penalties.sharded import ENTRIES_TOGETHER
from openwork.sharding import shares

STEPS = 5
COUNTED = (2, 4)
BYTES = 4
ON_DEVICES = group_norm.FIXED_ITERATIONS + 1


@dataclass(frozen=True)
class Transformer:
    """A decoder with the weights that a penalty is given: all but embeddings and normalizations.

    Args:
        name: What it is called.
        width: Of the residual stream.
        hidden: Of the feed-forward part.
        layers: How many.
        keys: Width of keys and of values.
        gated: Whether the feed-forward part has a gate.
    """

    name: str
    width: int
    hidden: int
    layers: int
    keys: int
    gated: bool = True

    def shapes(self) -> list[tuple[int, int]]:
        """Of the weights, rows first."""
        attention = [
            (self.width, self.width),
            (self.keys, self.width),
            (self.keys, self.width),
            (self.width, self.width),
        ]
        inner = [(self.hidden, self.width)] * (2 if self.gated else 1)
        return self.layers * [*attention, *inner, (self.width, self.hidden)]


SMALL = Transformer("small decoder", 64, 256, 2, 64)
MODELS = (
    Transformer("GPT-2 (124 M)", 768, 3072, 12, 768, gated=False),
    Transformer("Llama 2 7B", 4096, 11008, 32, 4096),
    Transformer("Llama 2 13B", 5120, 13824, 40, 5120),
    Transformer("Llama 2 70B", 8192, 28672, 80, 1024),
)
PROCESSES = (8, 64, 512)


def weights(model: Transformer) -> list[Tensor]:
    """Small weights of a model, the same in all processes."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) * 0.05 for shape in model.shapes()]


def gradients(step: int, model: Transformer) -> list[Tensor]:
    """Noise, larger in some columns."""
    generator = torch.Generator().manual_seed(step + 1)
    return [
        torch.randn(shape, generator=generator) * torch.rand(shape[1], generator=generator) for shape in model.shapes()
    ]


def train(params: list[nn.Parameter], model: Transformer, after: Callable[[], None]) -> None:
    """Some steps; ``after`` is called after each."""
    optimizer = RAMDA(params, lr=0.1, penalty=GroupLasso(0.02))
    for step in range(STEPS):
        for param, grad in zip(params, gradients(step, model), strict=True):
            how = getattr(param, "device_mesh", None)
            param.grad = grad if how is None else divided(grad, how)
        optimizer.step()
        after()


def divided(x: Tensor, mesh: Any) -> Tensor:
    """A tensor whose rows are divided among the processes of a mesh."""
    from torch.distributed.tensor import Shard, distribute_tensor

    return distribute_tensor(x, mesh, [Shard(0)])


def count(rank: int, size: int, port: int, results: Any) -> None:
    """Collectives and bytes of each step in one of several processes."""
    from torch.distributed.device_mesh import init_device_mesh

    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    mesh = init_device_mesh("cpu", (size,))
    params = [nn.Parameter(divided(weight, mesh)) for weight in weights(SMALL)]
    plain, found, now = dist.all_reduce, [], [0, 0]

    def counting(x: Tensor, *rest: Any, **options: Any) -> Any:
        now[0] += 1
        now[1] += x.nbytes
        return plain(x, *rest, **options)

    def note() -> None:
        found.append(tuple(now))
        now[:] = [0, 0]

    dist.all_reduce = counting
    train(params, SMALL, note)
    dist.all_reduce = plain
    results.put((rank, found))
    dist.destroy_process_group()


def counted(size: int) -> list[tuple[int, int]]:
    """The same for ``size`` processes.

    Raises:
        SystemExit: If they do not agree.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=count, args=(rank, size, port, results)) for rank in range(size)]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=600) for _ in processes)
    for process in processes:
        process.join()
    if any(own != found[0] for own in found.values()):
        raise SystemExit("processes do not agree on what they exchanged")
    return found[0]


def evaluations() -> list[int]:
    """How often the slowest weight's secular equation is evaluated in each step, in a single process."""
    plain, found, most = group_norm.group_sum_and, [], [0, 0]
    solve = group_norm.solve_group_norm

    def summing(*arguments: Any) -> Any:
        most[0] += 1
        return plain(*arguments)

    def solving(*arguments: Any) -> Any:
        most[0] = 0
        solution = solve(*arguments)
        most[1] = max(most[1], most[0] - 1)  # one of them makes the start
        return solution

    def note() -> None:
        found.append(most[1])
        most[:] = [0, 0]

    from openwork.penalties import group_lasso

    group_norm.group_sum_and, group_lasso.solve_group_norm = summing, solving
    train([nn.Parameter(weight) for weight in weights(SMALL)], SMALL, note)
    group_norm.group_sum_and, group_lasso.solve_group_norm = plain, solve
    return found


def formula(model: Transformer, size: int, evaluated: int) -> tuple[int, int]:
    """Collectives and bytes of one step, as each process hands them to all-reduce."""
    local = ((shape, prod(shape) // shape[0] * shares(shape[0], size)[0][1]) for shape in model.shapes())
    together = list(pack(local, ENTRIES_TOGETHER))
    groups = sum(shape[1] for shape in model.shapes())
    return 1 + len(together) * (2 + evaluated), BYTES + 2 * groups * BYTES * (2 + evaluated)


def row(model: Transformer, size: int, evaluated: int, seen: tuple[int, int] | None) -> list[Cell]:
    """One row of the table."""
    shapes = model.shapes()
    parameters, groups = sum(map(prod, shapes)), sum(shape[1] for shape in shapes)
    calls, payload = formula(model, size, evaluated)
    ring = 2 * (size - 1) / size * payload
    # Weights in bfloat16 are collected before the forward and the backward pass, and gradients added up after it.
    sharding = 3 * 2 * parameters * (size - 1) / size
    return [
        model.name,
        parameters / 1e6,
        size,
        groups,
        evaluated,
        None if seen is None else seen[0],
        calls,
        None if seen is None else seen[1] / 1e6,
        payload / 1e6,
        ring / 1e6,
        100 * ring / sharding,
    ]


def main() -> None:
    """Count, compare with the formula, extrapolate, and write the table.

    Raises:
        SystemExit: If the formula is wrong.
    """
    evaluated = evaluations()
    rows: list[list[Cell]] = []
    for size in COUNTED:
        seen = counted(size)
        for step, (own, times) in enumerate(zip(seen, evaluated, strict=True)):
            if own != formula(SMALL, size, times):
                raise SystemExit(f"{size} processes, step {step}: counted {own}, formula {formula(SMALL, size, times)}")
        rows.append(row(SMALL, size, evaluated[-1], seen[-1]))
    rows += [row(model, size, ON_DEVICES, None) for model in MODELS for size in PROCESSES]
    write_table(
        "sharded_traffic",
        "What RAMDA with a group lasso exchanges between processes in a step, on a model after `fully_shard`",
        [
            "model",
            "penalized parameters, M",
            "processes",
            "groups",
            "evaluations",
            "all-reduces, counted",
            "all-reduces",
            "MB each, counted",
            "MB each",
            "MB sent by each (ring)",
            "% of what fully_shard sends",
        ],
        rows,
        "Groups are the input features of every weight, all of them divided among all processes. The first rows are "
        f"counted with real gloo processes in {STEPS} steps on the CPU, where each step stops with its slowest group; "
        "every step of every process is exactly what the formula says, with the number of evaluations that a single "
        "process needs. The others are the formula, with the fixed number of evaluations on devices and float32. A "
        f"process solves up to 2^{ENTRIES_TOGETHER.bit_length() - 1} of its entries together; with more it needs "
        "further all-reduces, of as many bytes in all. `fully_shard` is taken to send bfloat16: weights twice, "
        "gradients once. No time is measured here, and none is claimed.",
    )


if __name__ == "__main__":
    main()
