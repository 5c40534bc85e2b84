import pytest
import torch

from openwork.files import sha256, sha256_of, write_bytes


def test_known_digest(tmp_path):
    write_bytes(tmp_path / "a", b"abc")  # FIPS 180-4, example "abc"
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^there is no file .*a; check the path$"):
        sha256(tmp_path / "a")


def test_tensors_are_told_apart_by_name_type_shape_and_bits():
    a = torch.arange(6.0)
    variants = [
        {"a": a},
        {"b": a},
        {"a": a.double()},
        {"a": a.view(2, 3)},
        {"a": a.view(2, 3), "b": a},
        {"a": a.view(2, 3).T},
        {"a": torch.cat([a[:5], -a[:1]])},
        {},
    ]
    assert len({sha256_of(one) for one in variants}) == len(variants)
    assert sha256_of({"b": a, "a": a.view(2, 3)}) == sha256_of(variants[4])
    assert sha256_of({"a": a.view(3, 2).T}) == sha256_of({"a": a.view(3, 2).T.contiguous()})
    assert sha256_of({"a": torch.tensor(3)}) != sha256_of({"a": torch.tensor([3])})
