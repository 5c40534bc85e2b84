import errno
import os
import stat

import pytest

from openwork.files import atomically, read_bytes, read_text, write_bytes, write_text


def test_writes_and_reads_bytes_and_text(tmp_path):
    write_bytes(tmp_path / "a", b"\x00\xff")
    write_text(tmp_path / "b", "größer\r\n")
    assert read_bytes(tmp_path / "a") == b"\x00\xff"
    assert read_text(tmp_path / "b") == "größer\r\n"


def test_replaces_an_older_file_and_leaves_nothing_beside_it(tmp_path):
    write_text(tmp_path / "a", "a long old text")
    write_text(tmp_path / "a", "new")
    assert read_text(tmp_path / "a") == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_exception_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    write_text(tmp_path / "a", "old")
    with pytest.raises(KeyboardInterrupt), atomically(tmp_path / "a") as file:
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert read_text(tmp_path / "a") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path, monkeypatch):
    write_text(tmp_path / "a", "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"^cannot write .*a: No space left on device; free some space there or choose"):
        write_text(tmp_path / "a", "new")
    assert read_text(tmp_path / "a") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_missing_folder_is_one_sentence(tmp_path):
    with pytest.raises(OSError, match=r"^cannot write .*none.a: No such file or directory; free some space"):
        write_text(tmp_path / "none" / "a", "text")


def test_a_file_in_place_of_the_folder_is_one_sentence(tmp_path):
    write_text(tmp_path / "a", "old")
    with pytest.raises(OSError, match=r"^cannot write .*a.b: Not a directory; free some space"):
        write_text(tmp_path / "a" / "b", "text")


@pytest.mark.skipif(os.name == "nt", reason="POSIX file modes")
def test_the_file_gets_the_usual_mode(tmp_path):
    (tmp_path / "usual").touch()
    write_text(tmp_path / "a", "text")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


def test_reading_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^there is no file .*a; check the path$"):
        read_text(tmp_path / "a")


def test_reading_a_folder_is_one_sentence(tmp_path):
    with pytest.raises(OSError, match=r"^cannot read .*: .*; choose a file you can read$"):
        read_bytes(tmp_path)


def test_reading_other_than_utf8_names_the_byte(tmp_path):
    write_bytes(tmp_path / "a", b"ab\xff")
    with pytest.raises(ValueError, match=r"a is not UTF-8 text: byte 2 is 0xff; restore it"):
        read_text(tmp_path / "a")
