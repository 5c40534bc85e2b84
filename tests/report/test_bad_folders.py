import json
from pathlib import Path

import pytest

from openwork.report import write_report


def test_no_folder():
    with pytest.raises(ValueError, match="write_report: folders is empty; name at least one"):
        write_report([])


def test_a_folder_that_is_not_there(tmp_path: Path):
    with pytest.raises(
        ValueError, match=r"nowhere is not a run, it does not exist; name a folder that `openwork train`"
    ):
        write_report([tmp_path / "nowhere"])


def test_a_folder_that_is_not_a_run(tmp_path: Path):
    with pytest.raises(ValueError, match=r"is not a run, it has no recipe\.json; name a folder"):
        write_report([tmp_path])


def test_a_file(tmp_path: Path):
    (tmp_path / "notes").write_text("")
    with pytest.raises(ValueError, match="notes is not a run, it is a file; name a folder"):
        write_report([tmp_path / "notes"])


@pytest.mark.parametrize(
    ("heading", "said"), [({"schema": 2, "openwork": "9.1"}, "schema 2, .* wrote it, 9.1"), ({}, "schema None")]
)
def test_another_schema(new_run, heading: dict, said: str):
    folder = new_run()
    (folder / "recipe.json").write_text(json.dumps(heading))
    with pytest.raises(ValueError, match=rf"recipe\.json has {said}"):
        write_report([folder])


def test_a_recipe_that_is_not_json(new_run):
    folder = new_run()
    (folder / "recipe.json").write_text('{"schema": 1')
    with pytest.raises(ValueError, match=r"recipe\.json is not JSON"):
        write_report([folder])


def test_no_metrics(new_run):
    folder = new_run()
    (folder / "metrics.jsonl").unlink()
    with pytest.raises(
        ValueError, match=r"metrics\.jsonl does not exist; let the run reach the end of its first epoch"
    ):
        write_report([folder])


def test_no_complete_record(new_run):
    folder = new_run()
    (folder / "metrics.jsonl").write_text('{"epoch": 1')
    with pytest.raises(ValueError, match=r"metrics\.jsonl holds no complete record; let the run reach"):
        write_report([folder])


def test_a_damaged_record(new_run):
    folder = new_run()
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join([lines[0], "oops\n", *lines[2:]]))
    with pytest.raises(ValueError, match=r"metrics\.jsonl: line 2 of 60 is not a JSON object"):
        write_report([folder])


def test_damaged_bits(new_run):
    folder = new_run(epochs=3)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    record = json.loads(lines[1])
    record["layers"]["2.weight"]["kept"] = "abc"
    (folder / "metrics.jsonl").write_text("".join([lines[0], json.dumps(record) + "\n", lines[2]]))
    with pytest.raises(
        ValueError, match=r"metrics\.jsonl, line 2, layer '2\.weight': .* 300 booleans need 76 hexa.*'abc'"
    ):
        write_report([folder])
    assert not (folder / "report.html").exists()


def test_an_output_folder_that_cannot_be_made(new_run, tmp_path: Path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OSError, match=r"cannot make the folder .*taken: .*; choose another for out"):
        write_report([new_run()], out=tmp_path / "taken")
