import json
import math

import pytest

from openwork.files import read_json, write_json, write_text


def test_round_trip(tmp_path):
    value = {"schema": 1, "lam": 3e-4, "names": ["a", "ü"], "none": None, "nested": {"on": True}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value


def test_what_is_not_finite_becomes_null(tmp_path):
    write_json(tmp_path / "a.json", {"loss": math.nan, "all": [math.inf, {"low": -math.inf}, 1.5]})

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    strict = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    assert strict == {"loss": None, "all": [None, {"low": None}, 1.5]}


def test_a_cut_file_is_one_sentence(tmp_path):
    write_json(tmp_path / "a.json", {"lam": 3e-4, "epochs": 60})
    whole = (tmp_path / "a.json").read_text()
    write_text(tmp_path / "a.json", whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a\.json is not JSON: .* in line \d; it was cut short or edited"):
        read_json(tmp_path / "a.json")


def test_another_value_than_an_object_is_one_sentence(tmp_path):
    write_text(tmp_path / "a.json", "[1]")
    with pytest.raises(ValueError, match=r"a\.json holds a JSON list, not an object"):
        read_json(tmp_path / "a.json")
