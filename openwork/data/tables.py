"""Tables of numbers: letters by their shapes, houses by their surroundings."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from openwork.data.packed import read_unpacked
from openwork.data.sources import Source, locate
from openwork.data.splits import Data, Split, split_off_test

_LETTERS = Source(
    "https://archive.ics.uci.edu/ml/machine-learning-databases/letter-recognition/letter-recognition.data",
    "2b89f3602cf768d3c8355267d2f13f2417809e101fc2b5ceee10db19a60de6e2",
)


def letter_recognition(
    data_dir: Path | None = None, valid: float = 0.1, *, seed: int = 0, download: bool = False
) -> Data:
    """Letter Recognition: 20 000 distorted capital letters by 16 whole numbers each, 26 classes.

    The usual split: the first 16 000 for training, the last 4000 for testing. Features are standardized by the mean
    and standard deviation of the training samples.

    Args:
        data_dir: Folder that holds ``letter-recognition/letter-recognition.data``, packed or not; else OPENWORK_DATA.
        valid: Training samples to hold out, a fraction or a whole number.
        seed: Of that draw.
        download: Fetch a missing file, with a check of its SHA-256.

    Returns:
        Inputs ``(N, 16)`` float32; targets ``(N,)`` int64, A to Z as 0 to 25.

    Raises:
        ValueError: If the file is not what it should be, or ``valid`` leaves nothing to train on.
        OSError: If it is missing, or cannot be read or fetched.

    References:
        Frey & Slate, Machine Learning 6 (1991).
    """
    path = locate("letter-recognition", "letter-recognition.data", data_dir, _LETTERS if download else None)
    # The letter as its number, so that the whole table is numbers.
    rows = [f"{ord(line[0]) - ord('A')}{line[1:]}" for line in _lines(path)]
    table = torch.as_tensor(_table(path, rows, columns=17))
    labels = table[:, 0].long()
    if len(table) <= 16_000 or not bool(((labels >= 0) & (labels < 26)).all()):
        raise ValueError(f"{path} has {len(table)} rows, expected 20000 that begin with A to Z; fetch it anew")
    samples = Split(table[:, 1:].float(), labels)
    rows16 = torch.arange(len(samples))
    train, test = samples.take(rows16[:16_000]), samples.take(rows16[16_000:])
    data = Data("letter-recognition", train=train, valid=train.none(), test=test, classes=26).hold_out(valid, seed)
    return data.standardize(data.train.inputs.mean(0), data.train.inputs.std(0))


def california_housing(data_dir: Path | None = None, valid: float = 0.1, *, seed: int = 0) -> Data:
    """California Housing: median house values of 20 640 block groups by eight numbers each, a regression.

    There is no official split: 20 % are for testing, a random draw that no seed changes. Features (longitude,
    latitude, age, rooms, bedrooms, population, households, income) are standardized by the mean and standard
    deviation of the training samples.

    Args:
        data_dir: Folder that holds ``california-housing/cal_housing.data``, packed or not; else OPENWORK_DATA.
        valid: Training samples to hold out, a fraction or a whole number.
        seed: Of that draw.

    Returns:
        Inputs ``(N, 8)`` float32; targets ``(N, 1)`` float32, in 100 000 US dollars, capped at 5.00001.

    Raises:
        ValueError: If the file is not what it should be, or ``valid`` leaves nothing to train on.
        OSError: If it is missing or cannot be read.

    References:
        Pace & Barry, Sparse spatial autoregressions, Statistics and Probability Letters 33 (1997).
    """
    path = locate("california-housing", "cal_housing.data", data_dir)
    table = torch.as_tensor(_table(path, _lines(path), columns=9))
    samples = Split(table[:, :8].float(), (table[:, 8:] / 1e5).float())
    data = split_off_test("california-housing", samples, classes=0, fraction=0.2).hold_out(valid, seed)
    return data.standardize(data.train.inputs.mean(0), data.train.inputs.std(0))


def _lines(path: Path) -> list[str]:
    return read_unpacked(path).decode(errors="replace").split()


def _table(path: Path, rows: list[str], columns: int) -> NDArray[np.float64]:
    try:
        table = np.loadtxt(rows, delimiter=",", ndmin=2) if rows else np.empty((0, 0))
    except ValueError as error:
        raise ValueError(f"{path} is no table of {columns} columns ({error}); fetch it anew") from error
    if table.shape[1] != columns:
        raise ValueError(f"{path} has {table.shape[1]} columns, expected {columns}; fetch it anew")
    return table
