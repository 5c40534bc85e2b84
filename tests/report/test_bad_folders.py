import json
from pathlib import Path

import pytest

from openwork.report import write_report
from openwork.report.read import read_run


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


def test_a_shrink_file_that_is_not_json(new_shrunk):
    folder = new_shrunk()
    (folder / "shrink.json").write_text('{"schema": 1, "report": {')
    with pytest.raises(ValueError, match=r"shrink\.json is not JSON: .* in line 1; .* write it anew$"):
        write_report([folder])
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("schema", [2, None, "1"])
def test_a_shrink_file_of_another_schema(new_shrunk, schema: object):
    folder = new_shrunk(change=lambda record: record.update(schema=schema))
    with pytest.raises(
        ValueError, match=rf"shrink\.json has schema {schema!r}, and this version of openwork reads 1; "
    ):
        write_report([folder])


@pytest.mark.parametrize(
    "path",
    [
        *(("report",), ("macs",), ("uncounted",), ("latency",), ("accuracy",), ("same_predictions",), ("why",)),
        *(
            ("report", key)
            for key in ("params", "size_bytes", "widths", "shapes", "held", "folded", "constant", "ranks")
        ),
        *(("report", key) for key in ("notes", "certificate")),
        *(("report", "certificate", key) for key in ("difference", "tolerance", "dtype", "batches", "predictions")),
        *(("report", "widths", 0, key) for key in ("name", "before", "after", "tensors")),
        *(
            ("latency", 1, key)
            for key in ("batch", "threads", "compiled", "device", "before_ms", "after_ms", "speedup")
        ),
        ("latency", 1, "speedup", "low"),
    ],
)
def test_a_shrink_file_in_which_something_is_missing_or_else(new_shrunk, path: tuple):
    *above, key = path

    def place(record: dict):
        for step in above:
            record = record[step]
        return record

    folder = new_shrunk("missing", lambda record: place(record).pop(key))
    with pytest.raises(ValueError, match=rf"shrink\.json: .* has no '{key}'; run `openwork shrink` again$"):
        write_report([folder])
    folder = new_shrunk("odd", lambda record: place(record).update({key: 1.5}))
    if key in ("difference", "tolerance", "low"):
        read_run(folder)
        folder = new_shrunk("text", lambda record: place(record).update({key: "x" * 1000}))
    with pytest.raises(
        ValueError, match=rf"shrink\.json: .*{key}\S* must be .*; run `openwork shrink` again$"
    ) as error:
        write_report([folder])
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"macs": [1]}, r"macs must be a list of 2, got \[1\]"),
        ({"macs": [1, -1]}, r"macs\[1\] must be a whole number, not negative, got -1"),
        ({"macs": "12"}, "macs must be a list, got '12'"),
        ({"why": [3]}, r"why\[0\] must be a text, got 3"),
        ({"accuracy": {"a": [True, 1]}}, r"accuracy\.a\[0\] must be a number, got True"),
        ({"accuracy": {"a": [float("nan"), 1]}}, r"accuracy\.a\[0\] must be a number, got nan"),
        ({"same_predictions": 1}, "same_predictions must be true or false, got 1"),
        ({"report": []}, r"report must be an object, got \[\]"),
    ],
)
def test_a_shrink_file_with_a_wrong_value(new_shrunk, change: dict, said: str):
    with pytest.raises(ValueError, match=rf"shrink\.json: {said}; run `openwork shrink` again$"):
        write_report([new_shrunk(change=lambda record: record.update(change))])
