import pytest
import torch

from openwork.models import lenet5, lenet300


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_lenet300_has_the_known_size():
    assert count(lenet300()) == 266_610
    assert lenet300()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize(("channels", "size"), [((20, 50), 431_080), ((6, 16), 61_706)])
def test_lenet5_has_the_known_sizes(channels, size):
    assert count(lenet5(channels)) == size
    assert lenet5(channels)(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_other_channels_are_one_sentence():
    with pytest.raises(ValueError, match=r"^lenet5: channels must be \(20, 50\) or \(6, 16\), got \(20, 51\)$"):
        lenet5((20, 51))
