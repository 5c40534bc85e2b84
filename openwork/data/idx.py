"""The MNIST family: images and labels in IDX files."""

import math
from pathlib import Path

import torch
from torch import Tensor

from openwork.data.packed import read_unpacked
from openwork.data.sources import Source, locate
from openwork.data.splits import Data, Split

_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_FASHION_MNIST = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_KMNIST = "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"

_TRAIN_IMAGES, _TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
_TEST_IMAGES, _TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def mnist(
    data_dir: Path | None = None,
    valid: float = 0.1,
    *,
    seed: int = 0,
    mean: float = 0.1307,
    std: float = 0.3081,
    download: bool = False,
) -> Data:
    """MNIST: 60 000 + 10 000 grey images of handwritten digits, 28 x 28 pixels, 10 classes.

    Args:
        data_dir: Folder that holds ``mnist/`` with the four IDX files, packed or not; else OPENWORK_DATA.
        valid: Training samples to hold out, a fraction or a whole number.
        seed: Of that draw.
        mean: Subtracted from the pixels, which are in [0, 1]; the default is that of the training set.
        std: Divides them; the default is that of the training set. ``mean=0, std=1`` leaves the pixels raw.
        download: Fetch missing files, with a check of their SHA-256.

    Returns:
        Inputs ``(N, 1, 28, 28)`` float32; targets ``(N,)`` int64.

    Raises:
        ValueError: If a file is not what it should be, or ``valid`` leaves nothing to train on.
        OSError: If a file is missing, or cannot be read or fetched.

    References:
        LeCun et al., Gradient-based learning applied to document recognition, Proceedings of the IEEE (1998).
    """
    sums = {
        _TRAIN_IMAGES: "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        _TRAIN_LABELS: "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        _TEST_IMAGES: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        _TEST_LABELS: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    }
    data = _load("mnist", data_dir, _sources(_MNIST, sums) if download else {})
    return data.hold_out(valid, seed).standardize(mean, std)


def fashion_mnist(
    data_dir: Path | None = None,
    valid: float = 0.1,
    *,
    seed: int = 0,
    mean: float = 0.2860,
    std: float = 0.3530,
    download: bool = False,
) -> Data:
    """Fashion-MNIST: 60 000 + 10 000 grey images of clothes, 28 x 28 pixels, 10 classes.

    Arguments and results are those of ``mnist``, in the folder ``fashion-mnist/``.

    Raises:
        ValueError: If a file is not what it should be, or ``valid`` leaves nothing to train on.
        OSError: If a file is missing, or cannot be read or fetched.

    References:
        Xiao, Rasul & Vollgraf (2017), arXiv:1708.07747.
    """
    sums = {
        _TRAIN_IMAGES: "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        _TRAIN_LABELS: "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        _TEST_IMAGES: "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        _TEST_LABELS: "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    }
    data = _load("fashion-mnist", data_dir, _sources(_FASHION_MNIST, sums) if download else {})
    return data.hold_out(valid, seed).standardize(mean, std)


def kmnist(
    data_dir: Path | None = None,
    valid: float = 0.1,
    *,
    seed: int = 0,
    mean: float = 0.1918,
    std: float = 0.3483,
    download: bool = False,
) -> Data:
    """Kuzushiji-MNIST: 60 000 + 10 000 grey images of cursive hiragana, 28 x 28 pixels, 10 classes.

    Arguments and results are those of ``mnist``, in the folder ``kmnist/``.

    Raises:
        ValueError: If a file is not what it should be, or ``valid`` leaves nothing to train on.
        OSError: If a file is missing, or cannot be read or fetched.

    References:
        Clanuwat et al. (2018), arXiv:1812.01718.
    """
    sums = {
        _TRAIN_IMAGES: "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
        _TRAIN_LABELS: "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
        _TEST_IMAGES: "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
        _TEST_LABELS: "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
    }
    data = _load("kmnist", data_dir, _sources(_KMNIST, sums) if download else {})
    return data.hold_out(valid, seed).standardize(mean, std)


def _sources(place: str, sums: dict[str, str]) -> dict[str, Source]:
    return {file: Source(f"{place}{file}.gz", sha256) for file, sha256 in sums.items()}


def _load(name: str, data_dir: Path | None, sources: dict[str, Source]) -> Data:
    def split(image_file: str, label_file: str) -> Split:
        image_path = locate(name, image_file, data_dir, sources.get(image_file))
        label_path = locate(name, label_file, data_dir, sources.get(label_file))
        images, labels = read_idx(image_path, axes=3), read_idx(label_path, axes=1)
        if images.shape[0] != labels.shape[0]:
            raise ValueError(
                f"{label_path} has {labels.shape[0]} labels for the {images.shape[0]} images of {image_path}; "
                "take both from the same place"
            )
        if images.shape[1:] != (28, 28):
            raise ValueError(
                f"{image_path} has images of {images.shape[1]} x {images.shape[2]} pixels, expected 28 x 28; "
                f"put the files of {name} there"
            )
        if bool((labels > 9).any()):
            raise ValueError(f"{label_path} has a label {int(labels.max())}, expected 0 to 9; fetch it anew")
        return Split(images.unsqueeze(1), labels.long())

    train, test = split(_TRAIN_IMAGES, _TRAIN_LABELS), split(_TEST_IMAGES, _TEST_LABELS)
    return Data(name, train=train, valid=train.none(), test=test, classes=10)


def read_idx(path: Path, axes: int) -> Tensor:
    """Unsigned bytes in the IDX file ``path``, which may be gzip-compressed.

    Args:
        path: File of a big-endian header (magic number 0x0800 + axes, one 32-bit size per axis) and the bytes.
        axes: How many axes it must have, 1 to 255.

    Returns:
        uint8 tensor with ``axes`` axes.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not such a file, or its length is not what its header says.
    """
    content = read_unpacked(path)
    magic = bytes((0, 0, 8, axes))
    if content[:4] != magic:
        raise ValueError(
            f"{path} is not an IDX file of unsigned bytes with {axes} axes: it begins with 0x{content[:4].hex()}, "
            f"expected 0x{magic.hex()}; fetch it anew or check its name"
        )
    start = 4 + 4 * axes
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    if len(content) != start + math.prod(shape):
        raise ValueError(
            f"{path} was cut short or changed: its header promises {' x '.join(map(str, shape))} bytes after the "
            f"first {start}, it has {max(len(content) - start, 0)}; fetch it anew"
        )
    # A bytearray, because torch warns of tensors that share memory which must not be written.
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)[start:].reshape(shape)
