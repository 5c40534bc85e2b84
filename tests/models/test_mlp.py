import pytest
import torch
from torch import nn

from openwork.models import logistic, mlp, mlp7


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_logistic_starts_at_the_origin_or_not():
    images = torch.ones(3, 1, 28, 28)
    assert logistic()(images).shape == (3, 10)
    assert not logistic()(images).any()
    assert logistic(zero_init=False)(images).all()
    assert count(logistic()) == 7850


def test_mlp_has_the_widths_given():
    model = mlp((64, 128, 64, 10))
    assert count(model) == 64 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10
    assert model(torch.zeros(5, 8, 8)).shape == (5, 10)
    assert [type(layer).__name__ for layer in model] == ["Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]


def test_mlp_has_the_activation_asked_for():
    model = mlp((4, 3, 2), activation=nn.Tanh)
    assert [type(layer).__name__ for layer in model] == ["Flatten", "Linear", "Tanh", "Linear"]


def test_mlp7_is_the_published_network():
    assert [tuple(p.shape) for p in mlp7().parameters() if p.ndim == 2] == [
        (512, 784), (256, 512), (128, 256), (64, 128), (32, 64), (16, 32), (10, 16),
    ]  # fmt: skip
    assert count(mlp7()) == 577_178


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: logistic(0), r"^logistic: features must be at least 1, got 0$"),
        (lambda: mlp((3,)), r"^mlp: widths must name at least the inputs and the outputs, got \(3,\)$"),
        (lambda: mlp((3, -1, 2)), r"^mlp: widths\[1\] must be at least 1, got -1$"),
        (lambda: mlp7(0), r"^mlp7: classes must be at least 1, got 0$"),
    ],
)
def test_bad_sizes_are_one_sentence(build, message):
    with pytest.raises(ValueError, match=message):
        build()
