"""Sparse data sets of the LIBSVM collection, in svmlight files."""

from collections.abc import Callable
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openwork.data.packed import read_unpacked
from openwork.data.sources import Source, locate
from openwork.data.splits import Data, Split, split_off_test

# Not every file uses its highest feature, so the numbers are given.
_FEATURES = {
    "a1a": 123,
    "a5a": 123,
    "a9a": 123,
    "w1a": 300,
    "w8a": 300,
    "mushrooms": 112,
    "phishing": 68,
    "news20": 62_061,
}

_LIBSVM = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary/"
_SOURCES = {
    "a9a": Source(f"{_LIBSVM}a9a", "f5d5ffd8d865ff41328e7ee043e4b020816914ff6843ff15b98905ddbedce906"),
    "a9a.t": Source(f"{_LIBSVM}a9a.t", "1f448a153f0320399a7e40836eb207655b0bde0f21fc941cc472193daa9f5de9"),
    "w8a": Source(f"{_LIBSVM}w8a", "6a9fa8fd5f524303240a5db07d4b3d4a51e8b7b4b20a914105d8e3e8c81640f2"),
    "mushrooms": Source(f"{_LIBSVM}mushrooms", "f39a4eb628dc61a7d43760815b061c9e497aa728ce1ad8bde57a09ef6043b538"),
}

Labels = NDArray[np.float64]


class Matrix(Protocol):
    """What is used of SciPy's sparse matrices, which come without types."""

    shape: tuple[int, int]
    data: NDArray[np.float32]
    row: NDArray[np.int32]
    col: NDArray[np.int32]

    def tocoo(self) -> "Matrix":
        """The same matrix as coordinates and values."""
        ...


def svmlight(
    name: str,
    data_dir: Path | None = None,
    valid: float = 0.1,
    *,
    seed: int = 0,
    features: int | None = None,
    dense: bool = True,
    download: bool = False,
) -> Data:
    """A data set of the LIBSVM collection, such as a9a, w8a, mushrooms or phishing.

    If there is a file ``name.t`` beside it, as for a9a, that is the test set. If not, 20 % are for testing, a random
    draw that no seed changes. a1a and a5a are part of a9a, and w1a of w8a: never test on one what was trained on the
    other.

    Args:
        name: Of the file in ``libsvm/``, less .gz or .bz2.
        data_dir: Folder that holds ``libsvm/``; else OPENWORK_DATA.
        valid: Training samples to hold out, a fraction or a whole number.
        seed: Of that draw.
        features: How many, if the set is not among the eight well known ones; else the highest in the training file.
        dense: Inputs as an ordinary tensor; else sparse (COO), which news20 needs (4 GB dense).
        download: Fetch missing files of a9a, w8a and mushrooms, with a check of their SHA-256.

    Returns:
        Inputs ``(N, features)`` float32; targets ``(N,)`` int64, the labels in rising order as 0, 1, ...: -1 and +1
        become 0 and 1, 1 and 2 become 0 and 1.

    Raises:
        ValueError: If a file is not in svmlight format or has more features, or ``valid`` leaves nothing to train on.
        OSError: If the file is missing, or cannot be read or fetched.

    References:
        Chang & Lin, LIBSVM data, https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets.
    """
    sources = _SOURCES if download else {}
    inputs, labels = _read(locate("libsvm", name, data_dir, sources.get(name)), features or _FEATURES.get(name), dense)
    values = np.unique(labels)
    train = Split(inputs, torch.as_tensor(np.searchsorted(values, labels)))
    try:
        test_path = locate("libsvm", f"{name}.t", data_dir, sources.get(f"{name}.t"))
    except FileNotFoundError:
        data = split_off_test(name, train, classes=len(values), fraction=0.2)
    else:
        inputs, labels = _read(test_path, inputs.shape[1], dense)
        if not np.isin(labels, values).all():
            raise ValueError(f"{test_path} has labels that the training file lacks; put both files of {name} there")
        test = Split(inputs, torch.as_tensor(np.searchsorted(values, labels)))
        data = Data(name, train=train, valid=train.none(), test=test, classes=len(values))
    return data.hold_out(valid, seed)


def _read(path: Path, features: int | None, dense: bool) -> tuple[Tensor, Labels]:
    # Imported here: scikit-learn takes long to import, and few need it.
    load = cast("Callable[..., tuple[Matrix, Labels]]", import_module("sklearn.datasets").load_svmlight_file)
    try:
        read = load(BytesIO(read_unpacked(path)), n_features=features, dtype=np.float32, zero_based=False)
    except ValueError as error:
        raise ValueError(
            f"{path} is no svmlight file of {features or 'any number of'} features ({error}); "
            "check its name, or give the number of features"
        ) from error
    matrix, labels = read[0].tocoo(), read[1]
    places = torch.as_tensor(np.stack([matrix.row, matrix.col]), dtype=torch.int64)
    values = torch.as_tensor(matrix.data)
    inputs = torch.sparse_coo_tensor(places, values, matrix.shape, check_invariants=True)  # pyright: ignore[reportUnknownMemberType]
    inputs = inputs.coalesce()
    return inputs.to_dense() if dense else inputs, labels
