"""Running statistics become those of the present weights, and nothing else changes."""

import torch
from torch import nn

from openwork.running_statistics import recalibrate_, statistics_kept


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.9), nn.Linear(4, 2)).double()


def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(8, 3, generator=generator, dtype=torch.float64), torch.zeros(8)) for _ in range(count)]


def test_they_are_plain_averages_over_the_batches() -> None:
    model, seen = network(), batches(5)
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm1d)
    recalibrate_(model, seen)
    with torch.no_grad():
        reached = [model[0](inputs) for inputs, _ in seen]
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean(0) for x in reached]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var(0) for x in reached]).mean(0))
    assert norm.momentum == 0.1
    assert not any(module.training for module in model.modules())


def test_they_come_back_bit_for_bit() -> None:
    model = network()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with statistics_kept(model):
        recalibrate_(model, batches(2))
        assert not torch.equal(before["1.running_mean"], model.get_buffer("1.running_mean"))
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())


def test_nothing_is_computed_without_any() -> None:
    def never():
        raise AssertionError("asked for a batch")
        yield

    recalibrate_(nn.Linear(3, 2), never())
