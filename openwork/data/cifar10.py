"""CIFAR-10, from the official binary batches or from the smaller delta-coded archives."""

import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from openwork.data.archives import read_npz
from openwork.data.packed import read_unpacked
from openwork.data.sources import Source, fetch, folder_of
from openwork.data.splits import Data, Split

_ARCHIVE = Source(
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
_BINARY = "cifar-10-batches-bin"
_RECORD = 1 + 3 * 32 * 32


def cifar10(
    data_dir: Path | None = None,
    valid: float = 10_000,
    *,
    seed: int | None = None,
    mean: Sequence[float] = (0.4914, 0.4822, 0.4465),
    std: Sequence[float] = (0.2470, 0.2435, 0.2616),
    download: bool = False,
) -> Data:
    """CIFAR-10: 50 000 + 10 000 colour images of 32 x 32 pixels, 10 classes.

    The folder ``cifar10/`` holds the official ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``
    (there or in ``cifar-10-batches-bin/``), or else the delta-coded ``cifar10-train-1.npz`` to ``cifar10-train-5.npz``
    and ``cifar10-test-first1000.npz``, which lack 9000 of the test images: the data's note says so.

    Args:
        data_dir: Folder that holds ``cifar10/``; else OPENWORK_DATA.
        valid: Training samples to hold out, a fraction or a whole number; the default is the whole fifth batch.
        seed: Of that draw; ``None`` takes the last samples.
        mean: Subtracted from the red, green and blue pixels, which are in [0, 1]; the default is the training set's.
        std: Divides them; the default is the training set's.
        download: Fetch the official archive (162 MiB) if there is nothing, with a check of its SHA-256.

    Returns:
        Inputs ``(N, 3, 32, 32)`` float32; targets ``(N,)`` int64.

    Raises:
        ValueError: If a file is not what it should be, or ``valid`` leaves nothing to train on.
        OSError: If a file is missing, or cannot be read or fetched.

    References:
        Krizhevsky, Learning multiple layers of features from tiny images, University of Toronto (2009).
    """
    *train_files, test_file = _files(folder_of("cifar10", data_dir), download)
    with ThreadPoolExecutor() as pool:  # decompressing is most of the work, and lets other threads run
        *train_parts, test = pool.map(read_cifar10, [*train_files, test_file])
    train = Split(*(torch.cat(parts) for parts in zip(*((s.inputs, s.targets) for s in train_parts), strict=True)))
    note = "" if len(test) == 10_000 else f"test: only the first {len(test)} of the 10 000 official test images"
    data = Data("cifar10", train=train, valid=train.none(), test=test, classes=10, note=note)
    return data.hold_out(valid, seed).standardize(mean, std)


def _files(folder: Path, download: bool) -> list[Path]:
    binary = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    packed = [*(f"cifar10-train-{i}.npz" for i in range(1, 6)), "cifar10-test-first1000.npz"]
    choices = [[place / file for file in binary] for place in (folder, folder / _BINARY)]
    choices.append([folder / file for file in packed])
    for files in choices:
        if all(file.is_file() for file in files):
            return files
    if not download:
        raise FileNotFoundError(
            f"cifar10: {folder} has neither data_batch_1.bin to data_batch_5.bin with test_batch.bin nor "
            "cifar10-train-1.npz to cifar10-train-5.npz with cifar10-test-first1000.npz; put either there, "
            "or pass download=True"
        )
    archive = folder / "cifar-10-binary.tar.gz"
    fetch("cifar10", _ARCHIVE, archive)
    unpack(archive, folder)
    return choices[1]


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the fetched ``archive`` into ``folder`` and remove it.

    Raises:
        OSError: If ``folder`` cannot be written.
    """
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except OSError as error:
        raise OSError(f"cifar10: cannot unpack {archive}: {error.strerror or error}; free some space there") from error
    finally:
        archive.unlink()


def read_cifar10(path: Path) -> Split:
    """Images and labels of one batch file.

    Args:
        path: ``.npz`` of ``labels`` and ``delta``, else records of one label byte and 3072 image bytes.

    Returns:
        Images ``(N, 3, 32, 32)`` uint8, labels ``(N,)`` int64.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is damaged or of another kind.
    """
    images, labels = _read_npz(path) if path.suffix == ".npz" else _read_binary(path)
    if bool((labels > 9).any()):
        raise ValueError(f"{path} has a label {int(labels.max())}, expected 0 to 9; fetch it anew")
    return Split(images, labels.long())


def _read_binary(path: Path) -> tuple[Tensor, Tensor]:
    content = bytearray(read_unpacked(path))
    if not content or len(content) % _RECORD:
        raise ValueError(
            f"{path} has {len(content)} bytes, expected a multiple of {_RECORD} (one label and 3072 pixels for each "
            "image); fetch it anew"
        )
    records = torch.frombuffer(content, dtype=torch.uint8).reshape(-1, _RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


def _read_npz(path: Path) -> tuple[Tensor, Tensor]:
    labels, delta = read_npz(path, "labels", "delta")
    if delta.dtype != torch.uint8 or delta.shape != (len(labels), 3, 32, 32):
        raise ValueError(
            f"{path} has `delta` of shape {tuple(delta.shape)} and type {delta.dtype} for {len(labels)} labels, "
            f"expected torch.uint8 ({len(labels)}, 3, 32, 32); put the delta-coded CIFAR-10 there"
        )
    # Differences along columns, then rows, then of red and blue to green, all modulo 256.
    images = delta.cumsum(3, dtype=torch.uint8).cumsum(2, dtype=torch.uint8)
    images[:, [0, 2]] += images[:, 1:2]
    return images, labels
