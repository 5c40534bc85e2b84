"""Time of one optimizer step with groups of several weights (couplings), beside that with the groups of each weight.

RMDA and RAMDA step the same weights with the same random gradients (seed 0), in turn, on two threads; ratios are to the
step of the same optimizer with group lasso on the input features of each weight of the same model.
"""

import os
from statistics import median
from time import perf_counter

import torch
from record import write_table
from torch import Tensor, nn

from openwork import models
from openwork.optim import RAMDA, RMDA, ParamGroups, regularize
from openwork.penalties import GroupLasso

THREADS, ROUNDS, SEED = 2, 9, 0
# Strong enough that some groups die, so that the zero test is exercised.
LAM = 1e-4
IMAGE, TOKENS = torch.zeros(1, 3, 32, 32), torch.zeros(1, 8, dtype=torch.long)


def networks() -> dict[str, tuple[nn.Module, Tensor]]:
    """Models with what they are traced with."""
    return {
        "ResNet-18": (models.resnet18(seed=SEED), IMAGE),
        "ResNet-50": (models.resnet50(seed=SEED), IMAGE),
        # GPT-2 small but for its vocabulary, whose embedding has no groups either way.
        "GPT-2 blocks": (models.gpt(1000, 1024, 768, 12, 12, seed=SEED), TOKENS),
    }


def step_seconds(kind: type[RMDA] | type[RAMDA], groups: dict[str, ParamGroups]) -> dict[str, float]:
    """Median seconds of a step with each choice of groups, measured in turn."""
    optimizers = {name: kind(param_groups) for name, param_groups in groups.items()}
    seconds: dict[str, list[float]] = {name: [] for name in groups}
    for round in range(ROUNDS + 2):
        for name, optimizer in optimizers.items():
            begin = perf_counter()
            optimizer.step()
            # The first two rounds make state and warm caches.
            if round > 1:
                seconds[name].append(perf_counter() - begin)
    return {name: median(values) for name, values in seconds.items()}


def main() -> None:
    """Measure and write the table."""
    torch.set_num_threads(THREADS)
    load = os.getloadavg()[0]
    rows: list[list[str | int | float | None]] = []
    for model, (network, example) in networks().items():
        generator = torch.Generator().manual_seed(SEED)
        for param in network.parameters():
            param.grad = 1e-3 * torch.randn(param.shape, generator=generator)
        lasso = GroupLasso(LAM)
        for kind in (RMDA, RAMDA):
            seconds = step_seconds(
                kind,
                {
                    "each weight": regularize(network, lasso),
                    "consumers": regularize(network, lasso, example),
                    "producers": regularize(network, lasso, example, "producers"),
                },
            )
            ratios = [seconds[side] / seconds["each weight"] for side in ("consumers", "producers")]
            rows.append([model, kind.__name__, *(round(1000 * value) for value in seconds.values())])
            rows[-1] += [f"{ratio:.2f}" for ratio in ratios]
            print(*rows[-1], sep="  ", flush=True)
    write_table(
        "coupled_step",
        "Time of one optimizer step with coupled groups",
        ["model", "optimizer", "each weight, ms", "consumers, ms", "producers, ms", "consumers /", "producers /"],
        rows,
        f"Medians of {ROUNDS} rounds in turn in one run, {THREADS} threads, float32, group lasso {LAM:g}, random "
        f"gradients (seed {SEED}). Each weight: one group per input feature of each weight. Consumers, producers: one "
        "group per removable unit, over all weights that read it, or that write it; the last two columns are their "
        "time over that of each weight. The models are ours: ResNets for 32 x 32 images, and GPT-2 small with 1000 "
        "tokens. Weights of no removable coupling are free, which is cheaper: half of GPT-2's matrices. The one-minute "
        f"load of the machine was {load:.1f} at the start; load raises the times more than the ratios.",
    )


if __name__ == "__main__":
    main()
