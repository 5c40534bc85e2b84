import json
import re
import shutil
from pathlib import Path

import pytest

from openwork.report import write_report
from openwork.report.read import read_run
from openwork.report.text import shown, significant, size
from tests.report.test_report import Page, numbers, report_of


def said(page: Page) -> str:
    return page.text.replace("\u202f", " ").replace("\u00a0", " ")


def test_a_real_run_trained_and_shrunk(shrunk_digits: Path, tmp_path: Path):
    folder = shutil.copytree(shrunk_digits, tmp_path / "digits")
    path = write_report([folder])
    page, report = Page(path), json.loads((folder / "shrink.json").read_text())["report"]
    before, after = report["params"]
    assert after < before
    assert f", shrunk to {100 * after / before:.1f} % of its parameters." in said(page)
    assert f"Parameters {before:,} {after:,} {100 * after / before:.2f} %" in said(page)
    assert "Zeros make the file smaller" not in said(page)
    assert report["widths"]
    for units in report["widths"]:
        assert f"{units['before']} → {units['after']}" in said(page)
    shrunk = report_of(path)["runs"][0]["shrunk"]
    assert shrunk["params"] == {"before": before, "after": after, "left": after / before}


def test_everything_that_shrink_reports_is_shown(new_shrunk):
    def change(record: dict) -> None:
        record["report"]["folded"] = 3
        record["report"]["notes"] = ["5 units that nothing reads stay so that widths fit"]
        record["report"]["held"] = [{"name": "conv.weight", "units": 2, "reasons": ["it is fixed", "it is shared"]}]

    text = said(Page(write_report([new_shrunk(change=change)])))
    assert "Proven to compute the same: outputs differ by " in text
    assert (
        "of the largest at most, where 1e-5 is allowed in float32, on an example of 2 samples and on random inputs, "
        "1, 3 and 5 at a time. 11 of 11 predictions there were clear enough to count, and all agreed. Predictions on "
        "the data are the same before and after."
    ) in text
    assert "Multiply-accumulates per sample 34,048 10,380 30.49 %" in text
    assert "Not counted there: aten. _fft_r2c ." in text
    assert "Test accuracy 95.26 % 95.26 %" in text
    assert "perplexity 3.5 –" in text
    assert (
        "Latency, batch 1 2 threads 0.255 ms 0.245 to 0.275 ms 0.250 ms 0.237 to 0.263 ms 1.02× 0.979 to 1.10×" in text
    )
    assert "Latency, batch 128 2 threads, compiled 0.625 ms" in text
    assert "What limits the gain At batch 1 the time goes into starting operations." in text
    assert "conv. weight 8 → 3" in text
    assert "wide rank 12 → 2" in text
    assert "Layers of low rank, now two each Layer Possible rank Rank wide 12 2" in text
    assert "next. weight 12 × 8 × 3 × 3 12 × 3 × 3 × 3" in text
    assert "branch. values new 12" in text
    assert "These gave the same whatever the input, and are now constants: branch ." in text
    assert "3 constant units went into the biases of what reads them." in text
    assert "conv. weight 2 it is fixed; it is shared" in text
    assert "5 units that nothing reads stay so that widths fit." in text


def test_every_number_is_in_the_json(new_shrunk):
    path = write_report([new_shrunk()])
    page, known = Page(path), numbers(report_of(path)) - {"true", "false"}
    assert {*page.values("data-value"), *page.values("value")} <= known
    section = path.read_text("utf-8").split("<h2>Shrunk</h2>")[1].split("<h2>")[0]
    texts = {
        shown(float(number), unit).split("\u202f")[0].removesuffix("×")
        for number in known
        for unit in ("fraction", "count", "loss", "bytes", "ms", "times", "residual")
    } | {significant(float(number)) for number in known}
    words = re.sub(r"<svg.*?</svg>|<span class=\"name\">.*?</span>|<[^>]*>", " ", section)
    found = re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?![\w])", words)
    assert len(found) > 40
    # 1e-5 is written with fewer digits than other residuals; 32 belongs to float32 and is no number.
    assert {number for number in found if number.rstrip(",") not in texts} <= {"1e-5"}


def test_bars_are_as_long_as_layers_are_wide(new_shrunk):
    def change(record: dict) -> None:
        record["report"]["ranks"] = {}
        record["report"]["widths"] = [
            {"name": "a", "tensors": ["a"], "before": 100, "after": 25},
            {"name": "b", "tensors": ["b"], "before": 50, "after": 50},
        ]

    page = Page(write_report([new_shrunk(change=change)]))
    bars = [a for tag, a in page.tags if tag == "rect" and a.get("class") in ("was", "is")]
    assert [bar["width"] for bar in bars] == ["100.00%", "25.00%", "50.00%", "50.00%"]
    assert [a["aria-label"] for tag, a in page.tags if tag == "svg" and "aria-label" in a] == ["25 of 100", "50 of 50"]


def test_a_large_network_folds_its_tables_and_stays_small(new_shrunk):
    def change(record: dict) -> None:
        names = [f"encoder.layers.{n}.linear.weight" for n in range(1000)]
        record["report"]["widths"] = [
            {"name": name, "tensors": [name], "before": 3072, "after": n} for n, name in enumerate(names)
        ]
        record["report"]["shapes"] = {name: [[3072, 64], [n, 64]] for n, name in enumerate(names)}

    path = write_report([new_shrunk(change=change)])
    page = Page(path)
    assert "Shapes 1,000 rows" in page.text
    assert "These 200 of 1,001 lost the largest part." in page.text
    assert [tag for tag, _ in page.tags].count("details") == 1
    assert path.stat().st_size < 900_000


def test_a_network_that_could_not_be_shrunk(new_shrunk):
    def change(record: dict) -> None:
        record["report"].update(widths=[], shapes={}, ranks={}, constant=[], held=[], params=[90, 90])
        record["report"]["notes"] = ["nothing could be removed: the zeros do not fill whole units"]
        record.update(latency=[], why=[], accuracy={}, uncounted=[], same_predictions=False)

    page = Page(write_report([new_shrunk(change=change)]))
    assert "Nothing could be removed: the zeros do not fill whole units." in page.text
    assert "Some predictions on the data are not the same before and after." in page.text
    assert "Predictions on the data are the same" not in page.text
    for title in ("Units", "Shapes", "Constants", "What limits the gain", "Speed-up"):
        assert title not in page.words


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"predictions": 503, "differing_predictions": 0}, "All 503 predictions on the data are the same before and"),
        ({"predictions": 503, "differing_predictions": 2, "same_predictions": False}, "2 of 503 predictions on the"),
        ({"predictions": 0, "differing_predictions": 0}, ""),
    ],
)
def test_predictions_on_the_data_are_counted_where_the_file_says_how_many(new_shrunk, change: dict, told: str):
    text = Page(write_report([new_shrunk(change=lambda record: record.update(change))])).text
    assert told in text if told else "predictions on the data" not in text.lower()


def test_names_are_escaped(new_shrunk):
    evil = "<script>alert(\"1\")</script> & 'more'"

    def change(record: dict) -> None:
        report = record["report"]
        report["widths"][0]["name"] = evil
        report["shapes"][evil] = [[3], [2]]
        report["ranks"][evil] = [1, 3]
        report["constant"].append(evil)
        report["notes"] = [evil]
        report["held"] = [{"name": evil, "units": 1, "reasons": [evil]}]
        report["certificate"]["dtype"] = evil
        record["uncounted"] = record["why"] = [evil]
        record["accuracy"][evil] = [1.0, 1.0]
        record["latency"][0]["device"] = evil

    path = write_report([new_shrunk(change=change)])
    page = Page(path)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert page.text.count("alert(") >= 10


def test_several_runs_compare_what_is_left(new_shrunk, new_run):
    def fewer(record: dict) -> None:
        record["report"]["params"] = [1000, 10]
        record["latency"] = []

    path = write_report([new_shrunk("a"), new_run("b", seed=1), new_shrunk("c", fewer)])
    page = Page(path)
    table = said(page).split("Results")[1].split("Side by side")[0]
    assert "Shrunk" in table and "speed-up" in table
    after = report_of(path)["runs"][0]["shrunk"]["params"]["after"]
    assert f"{after:,} 1.75× batch 128, 2 threads b" in table
    assert "– – c" in table
    assert table.rstrip().endswith("10 –")
    assert page.words.count("Shrunk") == 3  # a column, and a section for each of the two
    heads = [int(number) for number in page.values("data-sort")]
    assert sorted(heads) == list(range(len(heads)))
    assert set(page.values("data-value")) <= numbers(report_of(path))


def test_without_shrink_nothing_is_said_of_it(new_run):
    for names in (["a"], ["b", "c"]):
        path = write_report([new_run(name) for name in names])
        page = Page(path)
        assert "Shrunk" not in page.words and "speed-up" not in page.words
        assert report_of(path)["runs"][0]["shrunk"] is None


def test_no_times(new_shrunk):
    shrunk = read_run(new_shrunk(change=lambda record: record.update(latency=[]))).shrunk
    assert shrunk is not None and shrunk.timing is None


def test_ordinary_numbers_as_text():
    assert [significant(x) for x in (0.0, 0.0312345, 0.9996, 1.5, 9.996, 123.4, 1234.5)] == [
        *("0", "0.0312", "1.00", "1.50", "10.0", "123", "1,230")
    ]
    assert [size(x).replace("\u202f", " ") for x in (0, 999, 1000, 68_904, 999_600, 5e12)] == [
        *("0 bytes", "999 bytes", "1.00 kB", "68.9 kB", "1.00 MB", "5,000 GB")
    ]
