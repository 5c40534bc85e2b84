"""The initialization that suits ReLU."""

import torch
from torch import nn

from openwork.models import he_normal_


def test_variance_biases_and_seed() -> None:
    conv, norm, linear = nn.Conv2d(64, 128, 3), nn.BatchNorm2d(128), nn.Linear(400, 300)
    model = nn.Sequential(conv, norm, linear)
    state = torch.get_rng_state()
    assert he_normal_(model, seed=3) is model
    assert torch.equal(torch.get_rng_state(), state)
    for layer, fan_in in ((conv, 64 * 9), (linear, 400)):
        assert abs(float(layer.weight.detach().var()) * fan_in / 2 - 1) < 0.02
        assert layer.bias is not None and not layer.bias.any()
    # What a normalization multiplies with stays.
    assert torch.equal(norm.weight, torch.ones(128))
    before = linear.weight.detach().clone()
    he_normal_(model, seed=3)
    assert torch.equal(linear.weight, before)
    he_normal_(model, seed=4)
    assert not torch.equal(linear.weight, before)
