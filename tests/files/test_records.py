import math

import pytest

from openwork.files import append_record, read_records, truncate_records, write_text


def test_appends_lines_that_read_back_in_order(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for epoch in range(3):
        append_record(path, {"epoch": epoch, "loss": 0.5})
    assert path.read_text().count("\n") == 3
    assert read_records(path) == [{"epoch": epoch, "loss": 0.5} for epoch in range(3)]


def test_a_torn_last_line_is_not_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append_record(path, {"epoch": 1})
    path.write_text(path.read_text() + '{"epoch": 2')
    assert read_records(path) == [{"epoch": 1}]


@pytest.mark.parametrize("torn", ['{"epoch": 1}\n{"epo', '{"epo'])
def test_appending_after_a_torn_line_cuts_it_off(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    write_text(path, torn)
    append_record(path, {"epoch": 9})
    assert path.read_text() == torn[: torn.rfind("\n") + 1] + '{"epoch": 9}\n'


def test_a_loss_that_is_not_a_number_is_null(tmp_path):
    append_record(tmp_path / "a", {"loss": math.nan})
    assert read_records(tmp_path / "a") == [{"loss": None}]


def test_a_broken_line_in_the_middle_names_its_number(tmp_path):
    write_text(tmp_path / "a", '{"epoch": 1}\n{"epo\n{"epoch": 3}\n')
    with pytest.raises(ValueError, match=r"a: line 2 of 3 is not a JSON object"):
        read_records(tmp_path / "a")


def test_truncate_keeps_the_first_records_and_drops_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for epoch in range(4):
        append_record(path, {"epoch": epoch})
    path.write_text(path.read_text() + '{"epo')
    truncate_records(path, 4)
    assert path.read_text().endswith('{"epoch": 3}\n')
    truncate_records(path, 2)
    assert read_records(path) == [{"epoch": 0}, {"epoch": 1}]


def test_truncate_to_none_needs_no_file(tmp_path):
    truncate_records(tmp_path / "a", 0)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("count", [3, -1])
def test_truncate_to_more_than_there_is_one_sentence(tmp_path, count):
    append_record(tmp_path / "a", {"epoch": 1})
    with pytest.raises(ValueError, match=rf"a holds 1 records, so it cannot be cut to {count}; restore"):
        truncate_records(tmp_path / "a", count)


def test_appending_in_a_missing_folder_is_one_sentence(tmp_path):
    with pytest.raises(OSError, match=r"^cannot append to .*a: No such file or directory; free"):
        append_record(tmp_path / "none" / "a", {})
