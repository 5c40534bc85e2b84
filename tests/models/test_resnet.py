import pytest
import torch
from torch import nn

from openwork.models import resnet18, resnet50


@pytest.mark.parametrize(("build", "size", "convs"), [(resnet18, 11_173_962, 20), (resnet50, 23_520_842, 53)])
def test_has_the_known_size(build, size, convs):
    model = build()
    assert sum(p.numel() for p in model.parameters()) == size
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == convs


@pytest.mark.parametrize(("build", "width"), [(resnet18, 512), (resnet50, 2048)])
def test_halves_the_image_three_times(build, width):
    model = build(classes=100).eval()
    x = torch.zeros(1, 3, 32, 32)
    sides = []
    for name, layer in model.named_children():
        x = layer(x)
        if name.startswith("st"):
            sides.append(x.shape[-1])
    assert sides == [32, 32, 16, 8, 4]
    assert model.get_submodule("classifier").in_features == width
    assert x.shape == (1, 100)


def test_no_classes_are_one_sentence():
    with pytest.raises(ValueError, match=r"^resnet18: classes must be at least 1, got 0$"):
        resnet18(0)
    with pytest.raises(ValueError, match=r"^resnet50: classes must be at least 1, got -1$"):
        resnet50(-1)
