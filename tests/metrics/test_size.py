"""Bytes of a model, however its tensors share them."""

import torch
from torch import nn

from openwork.metrics import size_bytes


def test_parameters_and_buffers_of_every_type() -> None:
    model = nn.Sequential(nn.Linear(3, 4, dtype=torch.bfloat16), nn.BatchNorm1d(4))
    # Weight and bias, then weight, bias, mean and variance, then the number of batches.
    assert size_bytes(model) == 2 * (12 + 4) + 4 * (4 * 4) + 8
    assert size_bytes(nn.ReLU()) == 0


def test_what_is_tied_counts_once() -> None:
    first, second, third = (nn.Linear(3, 3, bias=False) for _ in range(3))
    second.weight = first.weight
    third.weight = nn.Parameter(first.weight.detach().t())
    assert size_bytes(nn.Sequential(first, second, third)) == 4 * 9


def test_views_of_one_storage() -> None:
    whole = torch.zeros(10)
    model = nn.ParameterList([nn.Parameter(whole[:4]), nn.Parameter(whole[4:6])])
    assert size_bytes(model) == 4 * 6


def test_without_data() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    assert size_bytes(model) == 4 * 24
