import gzip
import math
import struct

import pytest
import torch

from openwork.data import fashion_mnist, kmnist, mnist, read_idx


def idx(*shape: int, values: bytes | None = None) -> bytes:
    content = bytes(i % 10 for i in range(math.prod(shape))) if values is None else values
    return struct.pack(f">I{len(shape)}I", 0x0800 + len(shape), *shape) + content


@pytest.fixture
def small(tmp_path):
    """An MNIST of 6 + 4 images, half of the files packed."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    (folder / "train-images-idx3-ubyte").write_bytes(idx(6, 28, 28))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(6), mtime=0))
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(4, 28, 28), mtime=0))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(4))
    return tmp_path


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_reads_bytes_in_row_major_order(tmp_path, pack):
    (tmp_path / "a").write_bytes(pack(idx(2, 3, values=bytes([0, 1, 2, 253, 254, 255]))))
    assert read_idx(tmp_path / "a", axes=2).tolist() == [[0, 1, 2], [253, 254, 255]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"with 1 axes: it begins with 0x, expected 0x00000801; fetch it anew"),
        (b"<html>not found</html>", r"is not an IDX file .* it begins with 0x3c68746d, expected 0x00000801"),
        (idx(2, 2), r"with 1 axes: it begins with 0x00000802, expected 0x00000801"),
        (idx(9)[:6], r"was cut short or changed: its header promises"),
        (idx(9)[:-1], r"its header promises 9 bytes after the first 8, it has 8; fetch it anew$"),
        (idx(9) + b"x", r"its header promises 9 bytes after the first 8, it has 10; fetch it anew$"),
        (
            gzip.compress(idx(900), mtime=0)[:-10],
            r"is damaged or was cut short: it begins as a compressed file but does not",
        ),
        (
            gzip.compress(idx(900), mtime=0)[:20],
            r"is damaged or was cut short: it begins as a compressed file but does not",
        ),
    ],
)
def test_another_file_is_one_sentence(tmp_path, content, message):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{tmp_path}.a .*{message}") as caught:
        read_idx(tmp_path / "a", axes=1)
    assert "\n" not in str(caught.value)


def test_loads_packed_and_bare_files_alike(small):
    data = mnist(small, valid=2, mean=0.0, std=1.0)
    assert data.train.inputs.shape == (4, 1, 28, 28)
    assert (len(data.valid), len(data.test)) == (2, 4)
    assert data.test.targets.tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(data.test.inputs[0, 0, 0, :3], torch.tensor([0.0, 1.0, 2.0]) / 255)


def test_pixels_are_standardized(small):
    pixel = mnist(small).test.inputs[0, 0, 0, 0]
    assert float(pixel) == pytest.approx(-0.1307 / 0.3081)


def test_finds_its_folder_by_the_environment(small, monkeypatch):
    monkeypatch.setenv("OPENWORK_DATA", str(small))
    assert len(mnist().test) == 4


def test_no_folder_is_one_sentence(monkeypatch):
    monkeypatch.delenv("OPENWORK_DATA", raising=False)
    with pytest.raises(ValueError, match=r"^mnist: no folder of data sets is given; pass data_dir or set the environ"):
        mnist()


def test_a_missing_file_is_one_sentence(small):
    with pytest.raises(
        FileNotFoundError, match=r"^kmnist: .*kmnist has no file train-images-idx3-ubyte .*download=True"
    ):
        kmnist(small)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("t10k-labels-idx1-ubyte", idx(3), r"ubyte has 3 labels for the 4 images of .*; take both from the same place"),
        (
            "t10k-labels-idx1-ubyte",
            idx(4, values=b"\x00\x01\x0a\x03"),
            r"has a label 10, expected 0 to 9; fetch it anew",
        ),
        (
            "train-images-idx3-ubyte",
            idx(6, 28, 32),
            r"has images of 28 x 32 pixels, expected 28 x 28; put the files of",
        ),
        ("train-images-idx3-ubyte", idx(6), r"with 3 axes: it begins with 0x00000801, expected 0x00000803"),
    ],
)
def test_files_that_do_not_fit_are_one_sentence(small, file, content, message):
    (small / "mnist" / file).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        mnist(small)


@pytest.mark.parametrize(
    ("load", "train", "test", "mean", "std"),
    [
        (
            mnist,
            [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
            [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
            0.1307,
            0.3081,
        ),
        (fashion_mnist, [6000] * 10, [1000] * 10, 0.2860, 0.3530),
        (kmnist, [6000] * 10, [1000] * 10, 0.1918, 0.3483),
    ],
)
def test_the_real_files_are_what_their_origin_says(real_data, load, train, test, mean, std):
    data = load(real_data, valid=0, mean=0.0, std=1.0)
    assert data.train.targets.bincount().tolist() == train
    assert data.test.targets.bincount().tolist() == test
    assert float(data.train.inputs.mean()) == pytest.approx(mean, abs=5e-5)
    assert float(data.train.inputs.std()) == pytest.approx(std, abs=5e-5)
