"""The two networks on which pruning is tried first."""

from torch import nn

from openwork.models.arguments import at_least_one
from openwork.models.mlp import mlp
from openwork.models.seeding import seeded


def lenet300(classes: int = 10, *, seed: int = 0) -> nn.Sequential:
    """LeNet-300-100: linear layers 784-300-100-``classes`` with ReLU (266 610 parameters at 10 classes).

    Raises:
        ValueError: If ``classes`` is less than 1.

    References:
        LeCun et al., Gradient-based learning applied to document recognition (1998), section III.C.
    """
    at_least_one("lenet300", classes=classes)
    return mlp((784, 300, 100, classes), seed=seed)


def lenet5(channels: tuple[int, int] = (20, 50), classes: int = 10, *, seed: int = 0) -> nn.Sequential:
    """LeNet-5 for 28 x 28 grey images, with ReLU and max-pooling.

    With 20 and 50 channels it is Caffe's: no padding, 20-50-500-``classes``, 431 080 parameters at 10 classes. With 6
    and 16 it is the original's layer list: the images padded to 32 x 32, 6-16-120-84-``classes``, 61 706 parameters.

    Args:
        channels: ``(20, 50)`` or ``(6, 16)``.
        classes: Logits.
        seed: Of the initial weights.

    Returns:
        A module from ``(N, 1, 28, 28)`` to logits ``(N, classes)``.

    Raises:
        ValueError: If ``channels`` is another pair, or ``classes`` is less than 1.

    References:
        LeCun et al., Gradient-based learning applied to document recognition (1998), figure 2.
    """
    at_least_one("lenet5", classes=classes)
    match channels:
        case (20, 50):
            padding, side, hidden = 0, 4, (500,)
        case (6, 16):
            padding, side, hidden = 2, 5, (120, 84)
        case _:
            raise ValueError(f"lenet5: channels must be (20, 50) or (6, 16), got {channels}")
    first, second = channels
    with seeded(seed):
        features = [
            *(nn.Conv2d(1, first, 5, padding=padding), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(first, second, 5), nn.ReLU(), nn.MaxPool2d(2)),
        ]
    return nn.Sequential(*features, *mlp((second * side * side, *hidden, classes), seed=seed + 1))
