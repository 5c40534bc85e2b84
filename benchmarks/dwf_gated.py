"""LeNet-5 on Fashion-MNIST: channels and units removed by gates and by RAMDA's group lasso, at one budget.

Groups are the same for both: all that writes a channel or a unit, biases included, with strengths that grow with the
square root of a group's size. After training the network is shrunk; 6000 training images are held out, and the test
images choose nothing. Learning rates are the recipes' and were not tuned for either. With the argument ``table``
nothing is trained, and the table has what there is.
"""

import sys
from typing import Any

import torch
from factorized import accuracy
from readme_table import RESULTS, Cell
from record import data_dir, remembered, write_table
from torch import nn
from torch.nn.functional import cross_entropy

from openwork.data import Data, fashion_mnist
from openwork.factorizations import Gated, factorize
from openwork.metrics import macs
from openwork.models import he_normal_, lenet5
from openwork.optim import RAMDA, regularize
from openwork.penalties import GroupLasso
from openwork.shrinking import NothingZero, shrink
from openwork.training import supervised

NAME = "dwf_gated"
BATCH, EPOCHS, SEED = 128, 8, 0
# Method, depth, learning rate, strengths.
METHODS: tuple[tuple[str, int, float, tuple[float, ...]], ...] = (
    ("dense SGD", 0, 0.05, (0.0,)),
    ("gates", 2, 0.1, (1e-3, 2e-3)),
    ("gates", 3, 0.1, (5e-4, 1e-3, 2e-3)),
    ("RAMDA, group lasso", 0, 0.01, (1e-4, 2e-4, 4e-4)),
)


def train(method: str, depth: int, lr: float, lam: float) -> dict[str, Any]:
    """Train, shrink, and see what is left."""
    data: Data = fashion_mnist(data_dir(), seed=SEED)
    model = he_normal_(lenet5((6, 16), seed=SEED), seed=SEED)
    example = data.train.inputs[:2]
    model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    schedule: dict[str, Any] = {"schedule": "cosine", "warmup": 1}
    if depth:
        form = Gated(group_scale="sqrt")
        handle = factorize(model, depth, lam, form=form, example_inputs=example, side="producers")
        optimizer: Any = torch.optim.SGD(handle.param_groups(), lr=lr, momentum=0.9)
    elif lam:
        optimizer = RAMDA(regularize(model, GroupLasso(lam), example, side="producers"), lr=lr, averaging=0.1)
        schedule = {"milestones": [EPOCHS // 2]}
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    run = supervised(model, cross_entropy, optimizer, data=data, epochs=EPOCHS, batch_size=BATCH, seed=SEED, **schedule)
    done = 0
    while done < run.units:
        run.advance(run.period)
        done += run.period
    trained = run.finish()
    try:
        small: nn.Module = shrink(trained, example).model
    except NothingZero:
        small = trained
    found: dict[str, Any] = {
        "valid_accuracy": accuracy(small, data.valid),
        "test_accuracy": accuracy(small, data.test),
        "test_accuracy_before": accuracy(trained, data.test),
        "widths": [len(p) for p in small.parameters() if p.ndim > 1],
        "params": [sum(p.numel() for p in m.parameters()) for m in (trained, small)],
        "macs": [macs(m.eval(), example[:1]).total for m in (trained, small)],
    }
    print(method, depth, lam, found, flush=True)
    return found


def main() -> None:
    """Train what is missing, and write the table."""
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    rows: list[list[Cell]] = []
    for method, depth, lr, strengths in METHODS:
        for lam in strengths:
            part = f"{method.split(',')[0].replace(' ', '-')}-d{depth}-{lam:g}"
            if sys.argv[1:] == ["table"] and not (RESULTS / NAME / f"{part}.json").exists():
                continue
            one = remembered(NAME, part, lambda m=method, d=depth, r=lr, s=lam: train(m, d, r, s))
            share = [100 * one[key][1] / one[key][0] for key in ("params", "macs")]
            rows.append(
                [
                    method + (f", depth {depth}" if depth else ""),
                    f"{lr:g}",
                    f"{lam:g}" if lam else "",
                    f"{100 * one['valid_accuracy']:.2f}",
                    f"{100 * one['test_accuracy']:.2f}",
                    "-".join(map(str, one["widths"])),
                    f"{share[0]:.1f}",
                    f"{share[1]:.1f}",
                ]
            )
    columns = ["method", "learning rate", "strength", "validation accuracy, %", "test accuracy, %", "widths",
               "parameters, %", "MACs, %"]  # fmt: skip
    write_table(
        NAME,
        "LeNet-5 on Fashion-MNIST: gates against RAMDA's group lasso, shrunk",
        columns,
        rows,
        f"{EPOCHS} epochs of 54 000 images, batch {BATCH}, LeNet-5 with 6 and 16 channels, He-normal start, one seed. "
        "Groups are all that writes a channel or unit, strengths grow with the square root of their size. Gates: SGD, "
        "momentum 0.9, an epoch of warm-up and half a cosine; depth 2 is the group lasso, depth 3 the penalty "
        "||w||^(2/3). RAMDA: a tenth of the learning rate in the second half. No training after the zeros are there. "
        "Parameters and MACs are those of the shrunk network, in percent of the dense one's.",
    )


if __name__ == "__main__":
    main()
    sys.exit()
