"""A shrunk network against the same architecture built by hand at its widths: the same time, within a tenth?

Half of all units go, at random; the network that is left is timed beside one that was never larger, with random weights
of the same shapes, in interleaved rounds. And beside the original, for what was gained.
"""

import sys
from pathlib import Path

import torch
from readme_table import Cell
from record import write_table
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' way to zero units

from openwork import models
from openwork.metrics import compare_latency
from openwork.models.resnet import Residual
from openwork.shrinking import shrink
from openwork.wiring import inspect
from tests.shrinking.zeros import zero_units

NAME = "shrunk_latency"
SECONDS = 8.0


def mlp(small: nn.Module) -> nn.Module:
    """The linear layers of a multilayer perceptron."""
    linears = [m for m in small.modules() if isinstance(m, nn.Linear)]
    return models.mlp([linears[0].in_features, *(m.out_features for m in linears)])


def lenet5(small: nn.Module) -> nn.Module:
    """Two convolutions and two linear layers."""
    a, b = (m.out_channels for m in small.modules() if isinstance(m, nn.Conv2d))
    hidden, classes = (m.out_features for m in small.modules() if isinstance(m, nn.Linear))
    return nn.Sequential(
        *(nn.Conv2d(1, a, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(a, b, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(16 * b, hidden), nn.ReLU(), nn.Linear(hidden, classes)),
    )


def vgg19(small: nn.Module) -> nn.Module:
    """Sixteen convolutions with batch normalization."""
    widths = [m.out_channels for m in small.modules() if isinstance(m, nn.Conv2d)]
    layers: list[nn.Module] = []
    inputs = 3
    for at, width in enumerate(widths):
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if at in (1, 3, 7, 11, 15) else []
        inputs = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs, 10))


def resnet18(small: nn.Module) -> nn.Module:
    """Eight basic blocks."""
    stem = next(m for m in small.modules() if isinstance(m, nn.Conv2d))
    inputs = stem.out_channels
    layers: list[nn.Module] = [conv(3, inputs), nn.BatchNorm2d(inputs), nn.ReLU()]
    for block in (m for m in small.modules() if isinstance(m, Residual)):
        first, second = (m for m in block.branch.modules() if isinstance(m, nn.Conv2d))
        stride = first.stride[0]
        branch = nn.Sequential(
            *(conv(first.in_channels, first.out_channels, stride), nn.BatchNorm2d(first.out_channels), nn.ReLU()),
            *(conv(second.in_channels, second.out_channels), nn.BatchNorm2d(second.out_channels)),
        )
        made = Residual(branch, first.in_channels, second.out_channels, stride)
        if isinstance(block.shortcut, nn.Identity):
            made.shortcut = nn.Identity()
        layers.append(made)
        inputs = second.out_channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Three by three, without a bias."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


MODELS = {
    "MLP 784-512-256-10, batch 128": (lambda: models.mlp((784, 512, 256, 10)), mlp, (128, 784)),
    "LeNet-5 (20-50), batch 128": (lambda: models.lenet5((20, 50)), lenet5, (128, 1, 28, 28)),
    "VGG19-BN, batch 8": (models.vgg19_bn, vgg19, (8, 3, 32, 32)),
    "ResNet-18, batch 8": (models.resnet18, resnet18, (8, 3, 32, 32)),
}


def main() -> None:
    """Time all, and write the table.

    Raises:
        SystemExit: If what was built by hand is another architecture.
    """
    torch.manual_seed(0)
    torch.set_num_threads(2)
    rows: list[list[Cell]] = []
    for name, (build, by_hand, shape) in MODELS.items():
        original = build().eval()
        x: Tensor = torch.randn(shape)
        zero_units(original, inspect(original, x[:2]), "consumers")
        small = shrink(original, x[:2], low_rank=False).model
        hand = by_hand(small).eval()
        shapes = [sorted(tuple(p.shape) for p in m.parameters()) for m in (small, hand)]
        if shapes[0] != shapes[1]:
            raise SystemExit(f"{name}: built by hand with other shapes")
        against = compare_latency({"by hand": hand, "shrunk": small}, x, seconds=SECONDS, threads=2)
        gained = compare_latency({"original": original, "shrunk": small}, x, seconds=SECONDS, threads=2)
        ratio, gain = against.speedups["shrunk"], gained.speedups["shrunk"]
        rows.append([
            name,
            f"{gained.latencies['original'].ms.median:.2f}",
            f"{against.latencies['shrunk'].ms.median:.2f}",
            f"{against.latencies['by hand'].ms.median:.2f}",
            f"{1 / ratio.median:.3f} ({1 / ratio.high:.3f} to {1 / ratio.low:.3f})",
            f"{gain.median:.2f} ({gain.low:.2f} to {gain.high:.2f})",
        ])  # fmt: skip
    columns = ["model", "original, ms", "shrunk, ms", "by hand, ms", "shrunk / by hand", "original / shrunk"]
    note = (
        "Half of the units of every coupling removed, at random; eager, float32, evaluation mode. Ratios are medians "
        "of interleaved rounds, with quartiles. The limit is 1.1 times the network built by hand."
    )
    write_table(NAME, "A shrunk network beside one built by hand at its widths", columns, rows, note)


if __name__ == "__main__":
    main()
