import hashlib

import pytest

from openwork.data.sources import Source, fetch, locate


@pytest.fixture
def source(tmp_path):
    """An official place on this machine."""
    (tmp_path / "official").mkdir()
    (tmp_path / "official" / "a.gz").write_bytes(b"official")
    return Source((tmp_path / "official" / "a.gz").as_uri(), hashlib.sha256(b"official").hexdigest())


def test_fetches_a_missing_file_into_a_new_folder(tmp_path, source):
    path = locate("set", "a", tmp_path / "data", source)
    assert path == tmp_path / "data" / "set" / "a.gz"
    assert path.read_bytes() == b"official"
    assert [file.name for file in path.parent.iterdir()] == ["a.gz"]


def test_a_file_that_is_there_is_not_fetched(tmp_path, source):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a").write_bytes(b"mine")
    assert locate("set", "a", tmp_path, source).read_bytes() == b"mine"


def test_another_checksum_keeps_nothing_and_is_one_sentence(tmp_path, source):
    with pytest.raises(ValueError, match=r"^set: file:.*a\.gz has the SHA-256 \w{64}, expected 0{64}; it was not kept"):
        fetch("set", Source(source.url, "0" * 64), tmp_path / "set" / "a.gz")
    assert list((tmp_path / "set").iterdir()) == []


def test_a_place_out_of_reach_is_one_sentence(tmp_path):
    gone = Source((tmp_path / "gone").as_uri(), "0" * 64)
    with pytest.raises(OSError, match=r"^set: cannot fetch file:.*gone: .*; check the network and the folder, or put"):
        fetch("set", gone, tmp_path / "set" / "a")
