import pytest
import torch

from openwork.data import Data, Split


def numbered(count: int = 10) -> Data:
    train = Split(torch.arange(float(count)).reshape(-1, 1), torch.arange(count))
    return Data("numbers", train=train, valid=train.none(), test=train, classes=count)


def test_a_split_of_unequal_lengths_is_one_sentence():
    with pytest.raises(ValueError, match=r"^Split: 3 inputs have 2 targets; give each input one target$"):
        Split(torch.zeros(3, 1), torch.zeros(2))


def test_an_empty_split_is_false():
    assert numbered().train
    assert not numbered().valid
    assert len(numbered().valid) == 0


@pytest.mark.parametrize(("valid", "count"), [(3, 3), (3.0, 3), (0.3, 3), (1, 1), (0, 0), (0.0, 0), (9, 9)])
def test_hold_out_parts_the_training_samples(valid, count):
    data = numbered().hold_out(valid, seed=0)
    train, held = data.train.targets.tolist(), data.valid.targets.tolist()
    assert len(held) == count
    assert sorted(train + held) == list(range(10))
    assert train == sorted(train)
    assert held == sorted(held)
    assert torch.equal(data.valid.inputs.squeeze(1), data.valid.targets.float())


def test_hold_out_is_a_function_of_the_seed():
    torch.manual_seed(1)
    first = numbered(100).hold_out(20, seed=5).valid.targets
    torch.manual_seed(2)
    assert torch.equal(first, numbered(100).hold_out(20, seed=5).valid.targets)
    assert not torch.equal(first, numbered(100).hold_out(20, seed=6).valid.targets)


def test_hold_out_without_a_seed_takes_the_last():
    assert numbered().hold_out(3, seed=None).valid.targets.tolist() == [7, 8, 9]


@pytest.mark.parametrize("valid", [10, -1, 0.99, 2.5, -0.5, float("nan"), float("inf")])
def test_hold_out_of_too_many_is_one_sentence(valid):
    with pytest.raises(
        ValueError, match=rf"^numbers: valid must be a fraction .* 10 training samples or .* below 10, got {valid}$"
    ):
        numbered().hold_out(valid, seed=0)


def test_hold_out_twice_is_one_sentence():
    with pytest.raises(ValueError, match=r"^numbers: there are 3 validation samples already; hold out once$"):
        numbered().hold_out(3, seed=0).hold_out(3, seed=0)


def test_standardize_divides_bytes_by_255_and_spares_the_original():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1)
    split = Split(images, torch.zeros(3))
    data = Data("bytes", train=split, valid=split.none(), test=split, classes=2).standardize(0.2, 0.5)
    torch.testing.assert_close(data.train.inputs.flatten(), torch.tensor([-0.4, 0.0, 1.6]))
    assert data.train.inputs.dtype == torch.float32
    assert images.flatten().tolist() == [0, 51, 255]


def test_standardize_takes_one_number_per_channel():
    split = Split(torch.ones(2, 3, 4, 4), torch.zeros(2))
    data = Data("ones", train=split, valid=split.none(), test=split, classes=2).standardize(
        (0.0, 1.0, 2.0), (1.0, 1.0, 2.0)
    )
    assert data.train.inputs[0, :, 0, 0].tolist() == [1.0, 0.0, -0.5]
    assert bool((split.inputs == 1).all())


def test_standardize_by_nothing_is_one_sentence():
    with pytest.raises(ValueError, match=r"^numbers: std must be above 0, got 0.0; leave constant features out$"):
        numbered().standardize(0.0, (0.0,))


def test_to_moves_every_split():
    data = numbered().to("meta")
    assert {split.inputs.device.type for split in (data.train, data.valid, data.test)} == {"meta"}
