import math

import numpy as np
import pytest
import torch

from openwork.data import fsdd


def put(folder, **changes):
    """Twenty recordings, of takes 0 to 9, whose digit 0 is a tone of 1000 Hz and digit 1 one of 3000 Hz."""
    time = torch.arange(1000) / 8000
    sound = [(torch.sin(2 * math.pi * (1000 + 2000 * (i % 2)) * time) * 9000).short() for i in range(20)]
    arrays = {
        "samples": torch.cat(sound).numpy(),
        "length": np.full(20, 1000, np.int32),
        "digit": np.arange(20, dtype=np.uint8) % 2,
        "take": np.arange(20, dtype=np.uint8) // 2,
    }
    (folder / "fsdd").mkdir()
    np.savez(folder / "fsdd" / "fsdd.npz", **(arrays | changes))
    return folder


def test_the_takes_make_the_split_and_the_bands_tell_tones_apart(tmp_path):
    data = fsdd(put(tmp_path), valid=2)
    assert (len(data.train), len(data.valid), len(data.test)) == (8, 2, 10)
    assert data.test.targets.tolist() == [0, 1] * 5
    low, high = data.test.inputs.reshape(10, 12, 32)[:2]
    assert bool((low[:, 7] > high[:, 7]).all())  # 1000 Hz is between band 7 and 8 of 125 Hz
    assert bool((high[:, 23] > low[:, 23]).all())  # 3000 Hz between 23 and 24


@pytest.mark.parametrize("length", [np.full(20, 999, np.int32), np.array([1600, 400] * 10, np.int32)])
def test_lengths_that_do_not_fit_are_one_sentence(tmp_path, length):
    with pytest.raises(ValueError, match=r"fsdd\.npz has lengths that do not add up to its 20000 samples"):
        fsdd(put(tmp_path, length=length))


def test_the_real_recordings_have_the_official_split(real_data):
    data = fsdd(real_data, valid=0)
    assert data.train.targets.bincount().tolist() == [270] * 10
    assert data.test.targets.bincount().tolist() == [30] * 10
    assert bool(data.train.inputs.isfinite().all())
