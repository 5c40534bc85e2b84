"""VGG for small images."""

from collections import OrderedDict

from torch import nn

from openwork.models.arguments import at_least_one
from openwork.models.seeding import seeded

# Channels of the convolutions of each stage; a stage ends with max-pooling.
_VGG19 = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)


def vgg19_bn(classes: int = 10, *, seed: int = 0) -> nn.Sequential:
    """VGG-19 with batch normalization for 32 x 32 images, as the papers on structured sparsity modify it.

    After the fifth pooling one pixel is left, so nothing is pooled further, and one linear layer 512-``classes``
    replaces the original's three: 20 040 522 parameters at 10 classes. Convolutions keep their biases. Weights of
    convolutions start normal, scaled by fan-out; those of the linear layer normal with standard deviation 0.01.

    Args:
        classes: Logits.
        seed: Of the initial weights.

    Returns:
        A module from ``(N, 3, 32, 32)`` to logits ``(N, classes)``, of ``features``, ``flatten`` and ``classifier``.

    Raises:
        ValueError: If ``classes`` is less than 1.

    References:
        Simonyan & Zisserman, arXiv:1409.1556, table 1, column E.
    """
    at_least_one("vgg19_bn", classes=classes)
    features: list[nn.Module] = []
    inputs = 3
    with seeded(seed):
        for stage in _VGG19:
            for outputs in stage:
                conv = nn.Conv2d(inputs, outputs, 3, padding=1)
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(conv.get_parameter("bias"))
                features += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
            features.append(nn.MaxPool2d(2))
        classifier = nn.Linear(inputs, classes)
        nn.init.normal_(classifier.weight, std=0.01)
        nn.init.zeros_(classifier.bias)
    layers = {"features": nn.Sequential(*features), "flatten": nn.Flatten(), "classifier": classifier}
    return nn.Sequential(OrderedDict(layers))
