"""What the tests compare several processes with: one process that is all workers in turn."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from openwork.sketches import DSGD, SketchedModule
from openwork.sketches.families import Units
from tests.sketches.processes import LR, ROUNDS, STEPS, Case, batch, loss, sketched, weights


def simulated(case: Case, size: int, steps: int = STEPS) -> Tensor:
    """Weights after all steps of distributed DSGD: gradients added rank by rank, then divided by n."""
    model = sketched(case, size)
    optimizer = case[3](list(model.parameters()))
    algorithm = DSGD(optimizer, model, workers=size)

    def closure(step: int, worker: int) -> Callable[[], Tensor]:
        def compute() -> Tensor:
            optimizer.zero_grad()
            value = loss(model, step, worker)
            value.backward()
            return value

        return compute

    for step in range(steps):
        algorithm.step([closure(step, worker) for worker in range(size)])
    return weights(model)


def simulated_ist(case: Case, size: int, tau: int) -> Tensor:
    """Rounds of independent subnetwork training on dense weights, with the masks that decide what a worker has."""
    model = sketched(case, size)
    for turn in range(ROUNDS):
        x = {name: p.detach().clone() for name, p in model.module.named_parameters()}
        sums, counts = ({name: torch.zeros_like(p) for name, p in x.items()} for _ in range(2))
        for worker in range(size):
            drawn = model.sample(model.key.at(step=turn, worker=worker))
            scales = {name: draws[0].apply(torch.ones_like(x[name])) for name, draws in drawn.items()}
            y = x | {name: weight.detach() for name, weight in model.weights(drawn).items()}
            had = {name: torch.ones_like(p) for name, p in x.items()} | {
                n: (s != 0).double() for n, s in scales.items()
            }
            if isinstance(model.families[0], Units):  # rows and biases go with the columns of their unit
                had |= {"1.weight": had["3.weight"][:1].T.expand(8, 7), "1.bias": had["3.weight"][0]}
            y = local_steps(model, y, had, range(tau * turn, tau * (turn + 1)), worker)
            for name, scale in scales.items():
                v = model.shifts[name]
                v = torch.zeros_like(scale) if v is None else v
                y[name] = v + (y[name] - v) / scale.clamp_min(1)
            for name in x:
                sums[name] += torch.where(had[name] > 0, y[name], 0)
                counts[name] += had[name]
        with torch.no_grad():
            for name, p in model.module.named_parameters():
                p.copy_(torch.where(counts[name] > 0, sums[name] / counts[name].clamp_min(1), x[name]))
    return weights(model)


def local_steps(
    model: SketchedModule, y: dict[str, Tensor], had: dict[str, Tensor], steps: range, worker: int
) -> dict[str, Tensor]:
    for step in steps:
        inputs, labels = batch(step, worker)
        leaves = {name: weight.clone().requires_grad_() for name, weight in y.items()}
        value = nn.functional.cross_entropy(torch.func.functional_call(model.module, leaves, inputs), labels)
        gradients = torch.autograd.grad(value, list(leaves.values()))
        y = {name: y[name] - LR * had[name] * g for name, g in zip(y, gradients, strict=True)}
    return y
