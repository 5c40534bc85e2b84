"""Spoken digits, as what their sound is made of from moment to moment."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from openwork.data.archives import read_npz
from openwork.data.sources import locate
from openwork.data.splits import Data, Split

_FRAMES = 12
_WINDOW = 512  # samples, 64 ms
_BANDS = 32  # of 125 Hz each


def fsdd(data_dir: Path | None = None, valid: float = 0.1, *, seed: int = 0) -> Data:
    """Free Spoken Digit Dataset: 3000 recordings of the digits 0 to 9 by six speakers, 8000 samples a second.

    A recording becomes 12 windows of 64 ms, spread evenly over it, with the logarithm of the power in each of 32 bands
    of 125 Hz; then each number is standardized by its mean and standard deviation in the training samples. The
    official split: takes 0 to 4 of each digit and speaker for testing, the other 2700 recordings for training.

    Args:
        data_dir: Folder that holds ``fsdd/fsdd.npz``; else OPENWORK_DATA.
        valid: Training samples to hold out, a fraction or a whole number.
        seed: Of that draw.

    Returns:
        Inputs ``(N, 384)`` float32, window by window; targets ``(N,)`` int64.

    Raises:
        ValueError: If the file is not what it should be, or ``valid`` leaves nothing to train on.
        OSError: If it is missing or cannot be read.

    References:
        Jackson et al., https://github.com/Jakobovski/free-spoken-digit-dataset.
    """
    path = locate("fsdd", "fsdd.npz", data_dir)
    sound, length, digit, take = read_npz(path, "samples", "length", "digit", "take")
    length = length.long()
    if int(length.sum()) != len(sound) or int(length.min()) < _WINDOW or not len(length) == len(digit) == len(take):
        raise ValueError(f"{path} has lengths that do not add up to its {len(sound)} samples; fetch it anew")
    samples = Split(_spectra(sound.float() / 2**15, length), digit.long())
    is_test = take < 5
    train, test = (samples.take(rows.nonzero().squeeze(1)) for rows in (~is_test, is_test))
    data = Data("fsdd", train=train, valid=train.none(), test=test, classes=10).hold_out(valid, seed)
    return data.standardize(data.train.inputs.mean(0), data.train.inputs.std(0))


def _spectra(sound: Tensor, length: Tensor) -> Tensor:
    # Windows begin anywhere from the first sample of a recording to the last at which a whole window is left.
    begin = torch.cumsum(length, 0) - length
    offsets = torch.linspace(0, 1, _FRAMES) * (length - _WINDOW).unsqueeze(1)
    places = (begin.unsqueeze(1) + offsets.long()).unsqueeze(2) + torch.arange(_WINDOW)
    windows = sound[places] * torch.hann_window(_WINDOW)
    power = torch.as_tensor(np.abs(np.fft.rfft(windows.numpy())) ** 2, dtype=torch.float32)
    # Without the constant part; the small number keeps silence finite.
    bands = power[..., 1:].reshape(len(length), _FRAMES, _BANDS, -1).mean(3)
    return torch.log(bands + 1e-6).flatten(1)
