import hashlib
import tarfile
from importlib import import_module

import numpy as np
import pytest
import torch

from openwork.data import cifar10
from openwork.data.cifar10 import read_cifar10, unpack
from openwork.data.sources import Source


def batch(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    return images, generator.integers(0, 10, count, dtype=np.uint8)


def binary(images: np.ndarray, labels: np.ndarray) -> bytes:
    return np.concatenate([labels[:, None], images.reshape(len(labels), -1)], axis=1).tobytes()


def delta(images: np.ndarray) -> np.ndarray:
    """What the decoder undoes, step by step: red and blue less green, then differences of rows, then of columns."""
    coded = images.copy()
    coded[:, 0] -= images[:, 1]
    coded[:, 2] -= images[:, 1]
    coded[:, :, 1:] = coded[:, :, 1:] - coded[:, :, :-1]
    coded[:, :, :, 1:] = coded[:, :, :, 1:] - coded[:, :, :, :-1]
    return coded


@pytest.fixture
def official(tmp_path):
    """Five training batches of three images and a test batch of two, as the official archive holds them."""
    folder = tmp_path / "cifar10" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for i in range(1, 6):
        (folder / f"data_batch_{i}.bin").write_bytes(binary(*batch(3, seed=i)))
    (folder / "test_batch.bin").write_bytes(binary(*batch(2, seed=6)))
    return tmp_path


def test_both_formats_give_the_same_images(tmp_path):
    images, labels = batch(4)
    (tmp_path / "a.bin").write_bytes(binary(images, labels))
    np.savez(tmp_path / "b.npz", delta=delta(images), labels=labels)
    for split in (read_cifar10(tmp_path / "a.bin"), read_cifar10(tmp_path / "b.npz")):
        assert np.array_equal(split.inputs.numpy(), images)
        assert split.targets.tolist() == labels.tolist()


def test_loads_the_batches_in_order_and_holds_out_the_last(official):
    data = cifar10(official, valid=3, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    images, labels = zip(*(batch(3, seed=i) for i in range(1, 6)), strict=True)
    assert data.train.targets.tolist() == np.concatenate(labels[:4]).tolist()
    assert data.valid.targets.tolist() == labels[4].tolist()
    torch.testing.assert_close(data.train.inputs[0], torch.tensor(images[0][0]) / 255)
    assert data.test.targets.tolist() == batch(2, seed=6)[1].tolist()


def test_pixels_are_standardized_by_channel(official):
    pixel = cifar10(official, valid=0).test.inputs[0, 2, 0, 0]
    assert pixel.item() == pytest.approx((batch(2, seed=6)[0][0, 2, 0, 0] / 255 - 0.4465) / 0.2616, rel=1e-5)


def test_a_test_set_that_is_not_whole_is_noted(official):
    assert cifar10(official, valid=3).note == "test: only the first 2 of the 10 000 official test images"


def test_missing_files_are_one_sentence(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"^cifar10: .*cifar10 has neither data_batch_1\.bin .*, or pass download"
    ):
        cifar10(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.bin", b"x" * 3072, r"a\.bin has 3072 bytes, expected a multiple of 3073 .*; fetch it anew$"),
        ("a.bin", b"", r"a\.bin has 0 bytes, expected a multiple of 3073"),
        ("a.bin", b"\x0a" + b"x" * 3072, r"a\.bin has a label 10, expected 0 to 9; fetch it anew$"),
        ("a.npz", b"no archive", r"a\.npz is damaged or was cut short, so it does not unpack; fetch it anew$"),
        ("a.npz", b"", r"a\.npz is damaged or was cut short, so it does not unpack; fetch it anew$"),
    ],
)
def test_another_file_is_one_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_cifar10(tmp_path / name)


def test_an_archive_cut_short_is_one_sentence(tmp_path):
    images, labels = batch(4)
    np.savez_compressed(tmp_path / "a.npz", delta=delta(images), labels=labels)
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a\.npz is damaged or was cut short"):
        read_cifar10(tmp_path / "a.npz")


def test_a_bare_array_is_one_sentence(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"a\.npz is damaged or was cut short"):
        read_cifar10(tmp_path / "a.npz")


def test_an_archive_of_other_arrays_is_one_sentence(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros(3))
    with pytest.raises(ValueError, match=r"a\.npz has not all of the arrays labels, delta; "):
        read_cifar10(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", labels=np.zeros(3, np.uint8), delta=np.zeros((3, 32, 32), np.uint8))
    with pytest.raises(
        ValueError, match=r"a\.npz has `delta` of shape \(3, 32, 32\) .* expected torch\.uint8 \(3, 3, 32"
    ):
        read_cifar10(tmp_path / "a.npz")


def test_fetches_and_unpacks_the_official_archive(official, tmp_path, monkeypatch):
    archive = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(official / "cifar10" / "cifar-10-batches-bin", "cifar-10-batches-bin")
    source = Source(archive.as_uri(), hashlib.sha256(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(import_module("openwork.data.cifar10"), "_ARCHIVE", source)
    data = cifar10(tmp_path / "new", valid=3, download=True)
    assert torch.equal(data.train.inputs, cifar10(official, valid=3).train.inputs)
    assert [path.name for path in (tmp_path / "new" / "cifar10").iterdir()] == ["cifar-10-batches-bin"]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    archive = tmp_path / "a.tar.gz"
    (tmp_path / "b").write_bytes(b"")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "b", "b")
    with pytest.raises(OSError, match=r"^cifar10: cannot unpack .*a\.tar\.gz: .*; free some space there$"):
        unpack(archive, tmp_path / "b")
    assert not archive.exists()


MD5 = (
    "5dd7e06a14cb22eb9f671a540d1b7c25",
    "5ea93a67294ea407fff1d09f752e9692",
    "942cd6a4bcdd0dd3c604fbe906cb4421",
    "ae636b3ba5c66a11e91e8cb52e771fcb",
    "53f37980c15c3d472c316c40844f3f0d",
)


@pytest.mark.slow
def test_the_delta_coded_batches_are_the_official_ones(real_data):
    pixels = torch.zeros(3, dtype=torch.float64)
    squares = torch.zeros(3, dtype=torch.float64)
    for i, md5 in enumerate(MD5, start=1):
        split = read_cifar10(real_data / "cifar10" / f"cifar10-train-{i}.npz")
        assert hashlib.md5(binary(split.inputs.numpy(), split.targets.numpy().astype(np.uint8))).hexdigest() == md5
        images = split.inputs.double() / 255
        pixels += images.mean(dim=(0, 2, 3)) / 5
        squares += images.square().mean(dim=(0, 2, 3)) / 5
    assert pixels.tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-5)
    assert (squares - pixels.square()).sqrt().tolist() == pytest.approx([0.2470, 0.2435, 0.2616], abs=6e-5)


def test_the_first_real_test_images_are_those_of_the_test_batch(real_data):
    split = read_cifar10(real_data / "cifar10" / "cifar10-test-first1000.npz")
    assert split.inputs.shape == (1000, 3, 32, 32)
    assert split.targets.bincount().tolist() == [103, 89, 100, 103, 90, 86, 112, 102, 106, 109]
