import pytest

from openwork.files import sha256, write_bytes


def test_known_digest(tmp_path):
    write_bytes(tmp_path / "a", b"abc")  # FIPS 180-4, example "abc"
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^there is no file .*a; check the path$"):
        sha256(tmp_path / "a")
