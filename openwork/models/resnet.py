"""Residual networks for small images."""

from collections import OrderedDict

from torch import Tensor, nn
from typing_extensions import override

from openwork.models.arguments import at_least_one
from openwork.models.seeding import seeded


class Residual(nn.Module):
    """``relu(branch(x) + shortcut(x))``.

    Args:
        branch: Convolutions from ``inputs`` to ``outputs`` channels.
        inputs: Channels of x.
        outputs: Channels of the sum.
        stride: By which the branch makes the image smaller; the shortcut is the identity if it need not change shape.
    """

    def __init__(self, branch: nn.Sequential, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.branch = branch
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(*_conv(inputs, outputs, 1, stride))
        self.relu = nn.ReLU()

    @override
    def forward(self, x: Tensor) -> Tensor:
        """From ``(N, inputs, H, W)`` to ``(N, outputs, H / stride, W / stride)``."""
        return self.relu(self.branch(x) + self.shortcut(x))


def resnet18(classes: int = 10, *, seed: int = 0) -> nn.Sequential:
    """ResNet-18 for 32 x 32 images: 3 x 3 stem of stride 1, no max-pooling (11 173 962 parameters at 10 classes).

    Weights of convolutions start normal, scaled by fan-out.

    Args:
        classes: Logits.
        seed: Of the initial weights.

    Returns:
        A module from ``(N, 3, 32, 32)`` to logits ``(N, classes)``, of ``stem``, ``stage1`` to ``stage4``, ``pool``,
        ``flatten`` and ``classifier``.

    Raises:
        ValueError: If ``classes`` is less than 1.

    References:
        He et al., arXiv:1512.03385, table 1.
    """
    at_least_one("resnet18", classes=classes)
    with seeded(seed):
        return _resnet((2, 2, 2, 2), classes, expansion=1)


def resnet50(classes: int = 10, *, seed: int = 0) -> nn.Sequential:
    """ResNet-50 for 32 x 32 images: 3 x 3 stem of stride 1, no max-pooling (23 520 842 parameters at 10 classes).

    A bottleneck's stride is that of its 3 x 3 convolution. Arguments and result are those of ``resnet18``.

    Raises:
        ValueError: If ``classes`` is less than 1.

    References:
        He et al., arXiv:1512.03385, table 1.
    """
    at_least_one("resnet50", classes=classes)
    with seeded(seed):
        return _resnet((3, 4, 6, 3), classes, expansion=4)


def _resnet(depths: tuple[int, int, int, int], classes: int, expansion: int) -> nn.Sequential:
    layers: dict[str, nn.Module] = {"stem": nn.Sequential(*_conv(3, 64, 3), nn.ReLU())}
    inputs = 64
    for stage, depth in enumerate(depths, start=1):
        width = 32 * 2**stage
        blocks: list[nn.Module] = []
        for block in range(depth):
            stride = 2 if stage > 1 and block == 0 else 1
            branch = _basic(inputs, width, stride) if expansion == 1 else _bottleneck(inputs, width, stride, expansion)
            blocks.append(Residual(branch, inputs, width * expansion, stride))
            inputs = width * expansion
        layers[f"stage{stage}"] = nn.Sequential(*blocks)
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "classifier": nn.Linear(inputs, classes)}
    return nn.Sequential(OrderedDict(layers))


def _basic(inputs: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(*_conv(inputs, width, 3, stride), nn.ReLU(), *_conv(width, width, 3))


def _bottleneck(inputs: int, width: int, stride: int, expansion: int) -> nn.Sequential:
    return nn.Sequential(
        *(*_conv(inputs, width, 1), nn.ReLU()),
        *(*_conv(width, width, 3, stride), nn.ReLU()),
        *_conv(width, width * expansion, 1),
    )


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    # No bias: the normalization that follows would take it out again.
    conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv, nn.BatchNorm2d(outputs)
