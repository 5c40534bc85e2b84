import pytest
import torch

from openwork.data import digits


def test_shapes_ranges_and_counts():
    data = digits()
    assert (len(data.train), len(data.valid), len(data.test)) == (1294, 144, 359)
    assert data.train.inputs.shape == (1294, 64)
    assert data.train.inputs.dtype == torch.float32
    assert (float(data.train.inputs.min()), float(data.train.inputs.max())) == (0.0, 1.0)
    labels = torch.cat([data.train.targets, data.valid.targets, data.test.targets])
    assert labels.bincount().tolist() == [
        178,
        182,
        177,
        183,
        181,
        182,
        181,
        179,
        174,
        180,
    ]  # scikit-learn's description
    assert data.classes == 10
    assert data.note == "no official split: the test samples are a fixed random 20%"


def test_the_seed_changes_the_validation_samples_alone():
    one, two = digits(seed=1), digits(seed=2)
    assert torch.equal(one.test.inputs, two.test.inputs)
    assert not torch.equal(one.valid.inputs, two.valid.inputs)


def test_no_sample_is_in_two_splits():
    data = digits()
    rows = torch.cat([data.train.inputs, data.valid.inputs, data.test.inputs])
    assert len({tuple(row) for row in rows.tolist()}) == len(rows) == 1797


def test_holding_out_everything_is_one_sentence():
    with pytest.raises(ValueError, match=r"^digits: valid must be a fraction .* below 1438, got 1438$"):
        digits(valid=1438)
