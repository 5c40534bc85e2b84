from itertools import pairwise

import pytest
import torch
from torch import nn

from openwork.models import vgg19_bn


def test_has_the_size_worked_out_by_hand():
    model = vgg19_bn()
    # 16 convolutions of 3 x 3 with biases, two numbers a channel for their normalizations, and 512 x 10 + 10.
    channels = [3, 64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512, 512]
    weights = sum(9 * a * b for a, b in pairwise(channels))
    assert sum(p.numel() for p in model.parameters()) == weights + 3 * sum(channels[1:]) + 5130 == 20_040_522
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == 16


def test_has_one_linear_layer_after_one_pixel():
    model = vgg19_bn(classes=100).eval()
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 100)
    assert model.get_submodule("features")(torch.zeros(2, 3, 32, 32)).shape == (2, 512, 1, 1)
    assert [tuple(m.weight.shape) for m in model.modules() if isinstance(m, nn.Linear)] == [(100, 512)]


def test_no_classes_are_one_sentence():
    with pytest.raises(ValueError, match=r"^vgg19_bn: classes must be at least 1, got 0$"):
        vgg19_bn(0)
