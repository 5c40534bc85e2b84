"""The loops that lie in the package are those of its sources."""

import json
from pathlib import Path
from zipfile import ZipFile

import pytest

from openwork.kernels import lowering

AGAIN = "the loops have changed: run python -m openwork.kernels.lowering, and commit openwork/kernels/loops.zip"


def test_the_archive_is_of_the_present_sources() -> None:
    with ZipFile(lowering.ARCHIVE) as archive:
        assert archive.read("digest").decode() == lowering.digest(), AGAIN
        made = {name for name in archive.namelist() if name.endswith(".bc")}
    assert made == {f"{precision}-{method}.bc" for precision in lowering.PRECISIONS for method in lowering.LOOPS}


def test_it_holds_nothing_of_the_machine_that_made_it() -> None:
    with ZipFile(lowering.ARCHIVE) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    for name, content in contents.items():
        assert not any(word in content for word in (b"x86_64", b"NumbaEnv", b"/home", b"/work", b"/tmp")), name
        if name.endswith(".json"):
            assert set(json.loads(content)) == {"symbol", "arguments"}


@pytest.mark.parametrize("damage", ["none", "cut", "other sources", "garbage"])
def test_otherwise_numba_makes_them(damage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shipped = lowering.loop("float64", "factorized_sgd_2")
    file = tmp_path / "loops.zip"
    if damage == "cut":
        file.write_bytes(lowering.ARCHIVE.read_bytes()[:-100])
    elif damage == "other sources":
        with ZipFile(file, "w") as archive:
            archive.writestr("digest", "0")
    elif damage == "garbage":
        with ZipFile(file, "w") as archive:
            archive.writestr("digest", lowering.digest())
            archive.writestr("float64-factorized_sgd_2.json", "{")
    monkeypatch.setattr(lowering, "ARCHIVE", file)
    asked: list[tuple[str, str]] = []

    def lowered(precision: str, method: str) -> lowering.Loop:
        asked.append((precision, method))
        return shipped

    monkeypatch.setattr(lowering, "lowered", lowered)
    assert lowering.loop("float64", "factorized_sgd_2") == shipped
    assert asked == [("float64", "factorized_sgd_2")]


def test_what_numba_makes_has_the_signature_that_lies_there() -> None:
    shipped, made = lowering.loop("float64", "factorized_sgd_2"), lowering.lowered("float64", "factorized_sgd_2")
    assert made.arguments == shipped.arguments
    assert made.code[:4] == shipped.code[:4] == b"BC\xc0\xde"
