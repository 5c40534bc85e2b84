"""The page of a comparison, by its text and its numbers; `test_browser.py` opens it."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from typing_extensions import override

from openwork.report import write_report
from openwork.report.text import Unit, deviation, percent, shown, significant
from tests.report.compared import EVIL, METHODS, comparison, write_comparison
from tests.report.test_report import Page, numbers, report_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comparison(tmp_path_factory.mktemp("a") / "compared", comparison())


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    return write_report([folder])


def test_everything_has_its_section(folder: Path, page: Path):
    assert page == folder / "report.html"
    found = Page(page)
    for section in ("Frontier", "How far each method goes", "Results", "Failures", "Method by method", "Configuration"):
        assert section in found.words, section
    for section, times in (
        *(("Training", 4), ("Sparsity per layer", 4), ("Architecture", 3), ("Which groups are alive", 2)),
        *(("Runs", 4), ("Settings", 4), ("Search", 1), ("Warnings", 1), ("Machine", 1)),
    ):
        headings = re.findall(rf"<h[23]>{section}</h[23]>", found.source)
        assert len(headings) == times, section
    for words in (
        "4 methods on digits <small>: 2.50× compression at 94.5 % test accuracy, 10.0× at 93.5 %; dense 95.0 %.",
        "points of the dense one on validation samples; test samples chose nothing.",
        "19 networks · 2 seeds".replace(" · ", " "),
        "4 epochs each",
        "1 network could not be trained; see Failures.",
        "loss is not finite <after> epoch 3",
        "Rigl is left out: it needs <more> epochs.",
        "The last stage is <short>: at 0.0001 (seed 0), 0.0001 (seed 1), 0.0007 (seed 0)".replace("The", "the"),
        "About <it>.",
        "AMD EPYC <7763>",
        "Hollow marks are baselines.",
        "computes the same up to 1.5e-07 of its largest output",
    ):
        assert words in found.text, words


def test_every_number_is_in_the_json(page: Path):
    values = Page(page).values("data-value")
    assert len(values) > 300
    assert set(values) <= numbers(report_of(page))


class Visible(Page):
    """The words of a page without those of its styles, scripts and pictures, but with what stands for pictures."""

    @override
    def handle_data(self, data: str) -> None:
        if not {"style", "script", "svg"} & set(self.open):
            self.words.append(data)

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        self.words += [value for key, value in attrs if key == "alt" and value]


DIGITS = re.compile(r"\d[\d,.]*\d(?:e-?\d+)?|\d(?:e-?\d+)?")


def written(value: object) -> set[str]:
    """The digits of everything a page may write of a JSON value: its numbers in any unit, and how many there are."""
    match value:
        case dict():
            found = set().union(*(written(item) for item in (*value, *value.values())))
            if value.keys() == {"mean", "std"} and value["std"] is not None:
                found |= {deviation(value["std"], value["mean"], unit) for unit in get_args(Unit)}
            return found
        case list():
            return set().union({str(len(value))}, *(written(item) for item in value))
        case str():
            return set(DIGITS.findall(value))
        case bool() | None:
            return set()
        case int() | float():
            forms = [*(shown(value, unit) for unit in get_args(Unit)), percent(value, 1), significant(value)]
            forms += [f"{value:.3g}", f"{100 * value:g}", str(value)]
            return {digits for form in forms for digits in DIGITS.findall(form)}
        case _:
            raise AssertionError(value)


def test_every_number_that_can_be_read_is_in_the_json(page: Path):
    report, words = report_of(page), Visible(page).text
    read = {digits for word in words.split() for digits in DIGITS.findall(word)}
    assert len(read) > 150 and "60.08" in read  # a mean over seeds that no network has
    assert read - written(report) == set()


def test_the_groups_below_a_picture_are_in_the_json(page: Path):
    captions = re.findall(
        r'<img [^>]*alt="([^:]*): (\d+) of (\d+) groups alive at the end, (\d+) at', Page(page).source
    )
    alive = [one for method in report_of(page)["methods"] for level in method["levels"] for one in level["alive"]]
    assert len(captions) == len(alive) == 18
    assert captions == [tuple(str(one[key]) for key in ("name", "last", "groups", "first")) for one in alive]


def test_validation_samples_choose(tmp_path: Path):
    said = comparison()
    for row in said["rows"]:  # best on test samples where it is worst on validation samples
        if row["method"] == "ramda":
            row["accuracy"]["mean"] = 1.9 - row["valid_accuracy"]["mean"]
    page = write_report([write_comparison(tmp_path / "a", said)])
    report, found = report_of(page), Page(page)
    assert report["judge"] == "valid_accuracy" and report["allowed"] == [0.01, 0.02, 0.05]
    ramda = next(reach for reach in report["reaches"] if reach["method"] == "ramda")
    assert ramda["best"]["strength"] == 1e-4 and ramda["best"]["accuracy"] == pytest.approx(1.9 - 0.9475)
    assert "whose mean validation accuracy is at most so much below that of the dense network" in found.text
    assert "Test accuracy, best on validation" in found.text and "Choose by validation numbers" in found.text


def test_without_validation_samples_the_page_says_what_chose(tmp_path: Path):
    said = comparison()
    for one in (*said["results"], *said["rows"]):
        one["valid_accuracy"] = one["valid_loss"] = None
    page = write_report([write_comparison(tmp_path / "a", said)])
    report, found = report_of(page), Page(page)
    assert report["judge"] == "accuracy" and report["reaches"]
    assert "test samples, since some network has no number on validation samples" in report["notes"][-1]
    assert "so the test samples choose, which flatters the choice" in found.text
    assert "Best test accuracy" in found.text and "on validation samples; test" not in found.text
    assert "Choose by validation numbers" not in found.text


def test_the_table_is_that_of_the_file(page: Path):
    table = Page(page).source.split('<table class="runs wide">')[1].split("</table>")[0]
    body = [re.findall(r'data-value="([^"]*)"', row) for row in table.split("<tbody>")[1].split("</tr>")[:-1]]
    rows = comparison()["rows"]
    for cells, row in zip(body, rows, strict=True):
        keys = (
            "accuracy",
            "valid_accuracy",
            "compression",
            "unstructured",
            "group",
            "weighted_group",
            "params",
            "bytes",
            "macs",
        )
        keys = (*keys, "latency_ms", "speedup", "seconds", "memory_mib")
        means = [row[key]["mean"] for key in keys if row[key] is not None]
        assert [float(cell) for cell in cells] == [row["strength"]["mean"], row["seeds"], *means]


def test_a_strength_with_a_failure_says_so_and_is_on_no_frontier(page: Path):
    report = report_of(page)
    assert "1 of 2" in Page(page).text
    failed = next(n for n, point in enumerate(report["points"]) if point["failures"])
    assert report["points"][failed]["method"] == "ramda"
    assert not any(failed in front for front in report["frontiers"].values())


def test_what_is_not_finished_says_so_at_the_top(tmp_path: Path):
    said = comparison()
    said.update(
        finished=False, notes=["this comparison is not finished: 19 of 24 networks are trained", *said["notes"]]
    )
    page = write_report([write_comparison(tmp_path / "a", said)])
    report = report_of(page)
    assert report["finished"] is False
    assert report["headline"].startswith("4 methods on digits <small> so far: ")
    assert report["notes"][0] == "This comparison is not finished: 19 of 24 networks are trained."
    assert "This comparison is not finished" in Page(page).source.split("</header>")[0]


def test_of_a_network_without_arithmetic_no_unit_is_left(tmp_path: Path):
    said = comparison(seeds=1)
    empty = next(one for one in said["results"] if one["cell"]["method"] == "ramda")
    empty.update(widths={}, macs=[empty["macs"][0], 0], constant=True)
    source = Page(write_report([write_comparison(tmp_path / "a", said)])).source
    architecture = source.split("<h2>Architecture</h2>")[1].split("</table>")[0]
    assert re.findall(r'<data value="(\d+)">', architecture)[:3] == ["0", "20", "10"]


def test_a_target_is_named_and_where_it_was_not_met(tmp_path: Path):
    said = comparison()
    said["configuration"].update(target="density=0.3", strengths=None)
    said["rows"][1]["notes"] = ["seed 1: density=0.3 was not met with 14 networks"]
    found = Page(write_report([write_comparison(tmp_path / "a", said)]))
    assert "target density=0.3" in found.words
    assert "ramda: seed 1: density=0.3 was not met with 14 networks." in found.words
    assert "One mark is one method at the strengths that come nearest to the target, the mean" in found.text


def test_nothing_loads_and_no_name_is_markup(page: Path):
    found = Page(page)
    assert not re.search(r"https?:|@import|url\((?!#)", found.source)
    assert not {"link", "iframe", "object", "base", "small>"} & {tag for tag, _ in found.tags}
    assert "<b>evil" not in found.source and "<after>" not in found.source and "<i>,<" not in found.source
    ids = found.values("id")
    assert ids and len(ids) == len(set(ids))


def test_pictures_of_groups_are_of_the_first_seed_and_stop_where_the_page_is_full(
    folder: Path, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pictures = len(Page(page).values("src"))
    assert pictures == 3 * (3 + 3)  # three weights, of two methods with groups, at three strengths
    monkeypatch.setattr("openwork.report.compared_lives.PICTURES_BYTES", 6000)
    found = Page(write_report([folder], out=tmp_path))
    assert 0 < len(found.values("src")) < pictures
    assert "of those strengths that have pictures and fit into the page" in found.text


def test_a_loss_where_there_are_no_classes(tmp_path: Path):
    said = comparison()
    for one in (*said["results"], *said["rows"], *said["searched"]):
        one["accuracy"] = one["valid_accuracy"] = None
        if "curves" in one:
            one["curves"]["valid_loss"] = one["curves"].pop("valid_accuracy")
    page = write_report([write_comparison(tmp_path / "a", said)])
    found, report = Page(page), report_of(page)
    assert report["quality"] == {"key": "loss", "label": "Test loss", "unit": "loss", "rising": False}
    assert "Test loss against compression" in found.text and "Validation loss" in found.text
    assert "Test accuracy" not in found.text and "How far each method goes" not in found.text
    assert report["frontiers"]["compression"]


def test_one_seed_without_latency_records_or_search(tmp_path: Path):
    said = comparison(seeds=1)
    for one in said["results"]:
        one.update(latency_ms=None, curves={}, layers={}, widths={})
    for row in said["rows"]:
        row.update(latency_ms=None, speedup=None)
    said.update(searched=[], notes=[], methods={})
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "comparison.json").write_text(json.dumps(said))
    found = Page(write_report([folder]))
    assert "There is one seed only" in found.text and "Latency was not measured." in found.text
    assert found.source.count('type="radio"') == 2
    for absent in (
        "Training</h2>",
        "Architecture",
        "Which groups",
        "Search</h2>",
        "Hollow",
        "±</small>",
        "Latency</th>",
    ):
        assert absent not in found.source


def test_a_hundred_networks_fit_into_three_megabytes(tmp_path: Path):
    said = comparison(levels=4)
    first = [row for row in said["rows"] if row["method"] != "dense"]
    results = [one for one in said["results"] if one["cell"]["method"] != "dense"]
    for one in results:
        one["curves"] = {
            key: [*range(1, 61)] if key == "epoch" else [*values] * 15 for key, values in one["curves"].items()
        }
    for n in range(4):  # the same once more under other names
        name = f"again{n}"
        said["rows"] += [{**row, "method": f"{row['method']}{name}"} for row in first]
        said["results"] += [
            {**one, "cell": {**one["cell"], "method": f"{one['cell']['method']}{name}"}} for one in results
        ]
    page = write_report([write_comparison(tmp_path / "a", said)])
    assert len(said["results"]) > 100 and len(report_of(page)["methods"]) == 16
    assert page.stat().st_size < 3_000_000
    assert (page.parent / "report.json").stat().st_size < 3_000_000


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda said: said.update(schema=2), r"comparison\.json has schema 2, and .* wrote it, 0\.1\.0"),
        (lambda said: said.update(rows=[]), r"holds no result; let the comparison train its first network"),
        (lambda said: said.update(results="all"), r"results must be a list of objects; run `openwork compare` again"),
        (
            lambda said: said["rows"][1].pop("seeds"),
            r"rows\[1\] must have a method, seeds and a strength, got \{'method'",
        ),
        (
            lambda said: said["results"][2].update(cell=None),
            r"results\[2\]: cell must have a method, a strength and a seed",
        ),
    ],
    ids=["schema", "empty", "results", "row", "cell"],
)
def test_a_damaged_comparison(tmp_path: Path, change, sentence: str):
    said = comparison()
    folder = write_comparison(tmp_path / "a", said)
    change(said)
    (folder / "comparison.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match=sentence):
        write_report([folder])
    assert not (folder / "report.html").exists()


def test_numbers_that_are_missing_or_no_numbers_are_dashes(tmp_path: Path):
    said = comparison()
    said["rows"][2].update(macs=None, bytes={"mean": None, "std": None}, compression="much")
    said["results"][3].update(params=[1], seconds=True, layers={"w": 3}, widths=[], curves={"epoch": None}, notes="x")
    found = Page(write_report([write_comparison(tmp_path / "a", said)]))
    assert "1 of 10 points is not drawn: this was not measured, or is 0." in found.text


def test_a_comparison_is_reported_alone(folder: Path, new_run):
    with pytest.raises(ValueError, match=r"compared is a comparison, which has a report of its own; name it alone"):
        write_report([new_run(), folder])


def test_it_goes_where_it_is_told_and_the_same_files_give_the_same_bytes(folder: Path, page: Path, tmp_path: Path):
    other = write_report([folder], out=tmp_path / "elsewhere")
    assert other == tmp_path / "elsewhere" / "report.html"
    assert other.read_bytes() == page.read_bytes()
    methods = report_of(other)["methods"]
    assert [method["name"] for method in methods] == list(METHODS)
    assert methods[3]["label"] == EVIL.partition(":")[2]
