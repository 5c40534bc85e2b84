import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from openwork.metrics import pack_bits
from openwork.report import write_report
from openwork.report.life import lives
from openwork.report.read import read_run
from openwork.report.text import percent, shown

VOID = {"wbr", "meta", "hr", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Checks that every tag is closed in turn, and collects what a test asks for."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, attribute: str) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get(attribute)) is not None]


def numbers(value: object) -> set[str]:
    """Every number somewhere in a JSON value, as JSON writes it."""
    match value:
        case dict():
            return set().union(*(numbers(item) for item in value.values()))
        case list():
            return set().union(*(numbers(item) for item in value))
        case int() | float():
            return {json.dumps(value)}
        case _:
            return set()


def report_of(page: Path) -> dict:
    return json.loads((page.parent / "report.json").read_text("utf-8"))


def edit(path: Path, change) -> None:
    """Apply ``change`` to every JSON object in a file of JSON lines."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        change(record)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_one_run(new_run):
    folder = new_run()
    page = write_report([folder])
    assert page == folder / "report.html"
    found = Page(page)
    assert found.text.count("97.2 % test accuracy, with") == 2  # the title and the heading
    for section in ("Result", "Training", "Sparsity per layer", "Which groups are alive", "Certificate", "Machine"):
        assert section in found.words
    for words in ("Structured weights", "Finished network", "AMD EPYC 7763", "milestones", "finished", "60 epochs"):
        assert words in found.text
    assert "Zeros make the file smaller; the network only gets faster once the zero groups are taken out." in found.text
    assert page.stat().st_size < 500_000
    assert report_of(page)["schema"] == 1


def test_the_page_loads_nothing(new_run):
    source = Page(write_report([new_run()]))
    for attribute in ("src", "href", "xlink:href", "action", "data"):
        assert all(value.startswith(("#", "data:")) for value in source.values(attribute))
    assert not re.search(r"https?:|@import|url\((?!#)", source.source)
    assert not {"link", "iframe", "object", "base"} & {tag for tag, _ in source.tags}


def test_no_two_elements_share_an_id(new_run):
    ids = Page(write_report([new_run("a"), new_run("b")])).values("id")
    assert ids and len(ids) == len(set(ids))


@pytest.mark.parametrize("names", [["a"], ["a", "b"]])
def test_every_number_of_the_tables_is_in_the_json(new_run, names: list[str]):
    page = write_report([new_run(name, seed=ord(name)) for name in names])
    shown = Page(page).values("data-value")
    assert len(shown) > 20 * len(names)
    assert set(shown) <= numbers(report_of(page))


def test_weights_and_structured_weights_stand_side_by_side(new_run):
    result = {row["key"]: row for row in report_of(write_report([new_run()]))["runs"][0]["results"]}
    accuracy = result["test_accuracy"]
    assert accuracy["weights"] != accuracy["structured"]
    assert accuracy["final"] == 0.9722222222222222
    assert result["group_sparsity"]["weights"] is None  # averaged weights have no zeros to count
    assert result["nonzero_params"]["final"] < result["params"]["final"]


def test_several_runs_have_a_row_each_and_go_beside_the_first(new_run, tmp_path: Path):
    page = write_report([new_run("a"), new_run("b", seed=1), new_run("c", seed=2, complete=False)])
    assert page == tmp_path / "report.html"
    found = Page(page)
    assert "3 runs, 96.8 % to 97.2 % test accuracy," in found.text
    assert [tag for tag, _ in found.tags].count("details") == 3
    assert found.source.count("<small>not finished</small>") == 1
    assert "Side by side" in found.words


def test_runs_of_the_same_name_are_told_apart(new_run, tmp_path: Path):
    page = write_report([new_run("x/a"), new_run("y/a")], out=tmp_path / "new" / "place")
    assert page == tmp_path / "new" / "place" / "report.html"
    assert [run["name"] for run in report_of(page)["runs"]] == ["x/a", "y/a"]


def test_a_run_that_is_not_finished(new_run):
    folder = new_run(complete=False, epochs=10)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 11, "test_acc')  # a crash tore this line
    found = Page(write_report([folder]))
    assert "so far." in found.text and "10 epochs" in found.text
    assert "The run is not finished: these are its numbers so far." in found.text
    assert "Finished network" not in found.text


def test_structured_weights_before_averaging_reached_one_are_pointed_out(new_run):
    folder = new_run()
    edit(folder / "metrics.jsonl", lambda record: record.update(averaging=0.1, skipped=7))
    found = Page(write_report([folder]))
    assert "Averaging had only reached 0.1. Until it reaches 1 the zeros are in the structured weights" in found.text
    assert "7 steps were skipped, because their gradients were not finite." in found.text


def test_the_same_files_give_the_same_bytes(new_run):
    folder = new_run()
    first = write_report([folder]).read_bytes()
    assert write_report([folder]).read_bytes() == first


def test_names_are_escaped(new_run):
    evil = "<script>alert(\"1\")</script> & 'more'"
    folder = new_run("<b>&name", layers={evil: 8, "ok.weight": 4}, recipe=f"pkg:{evil}")
    edit(folder / "recipe.json", lambda recipe: recipe["arguments"].update({evil: [evil]}))
    found = Page(write_report([folder, new_run("b")]))
    assert [tag for tag, _ in found.tags].count("script") == 1
    assert found.text.count(evil) >= 4
    assert "<b>&name" in found.text


def test_a_record_of_almost_nothing(new_run):
    folder = new_run(complete=False)
    (folder / "recipe.json").write_text('{"schema": 1}')
    (folder / "metrics.jsonl").write_text(
        '{"unit": 3, "train_loss": 0.5, "test_accuracy": null, "layers": {"w": {}}}\n'
    )
    found = Page(write_report([folder]))
    assert "No result was recorded, so far." in found.text
    assert "3 units" in found.text and "Training loss" in found.words


@pytest.mark.parametrize("value", [None, float("nan"), "high", [1], True])
def test_a_value_that_is_no_number_is_left_out(new_run, value: object):
    folder = new_run(complete=False)
    edit(folder / "metrics.jsonl", lambda record: record.update(test_accuracy=value) if record["epoch"] % 2 else None)
    curve = report_of(write_report([folder]))["runs"][0]["curves"]["test_accuracy"]
    assert curve[0] is None and curve[1] is not None


@pytest.mark.parametrize(
    ("drop", "note"),
    [
        (
            ("group_sparsity", "weighted_group_sparsity", "layers"),
            "Single zeros make the file smaller, not the network",
        ),
        (("group_sparsity", "weighted_group_sparsity", "layers", "unstructured_sparsity"), None),
    ],
)
def test_the_note_says_what_the_zeros_are_good_for(new_run, drop: tuple[str, ...], note: str | None):
    folder = new_run()

    def without(record: dict) -> None:
        for key in drop:
            del record[key]

    edit(folder / "metrics.jsonl", without)
    edit(folder / "final.json", without)
    text = Page(write_report([folder])).text
    assert "Zeros make the file smaller;" not in text
    assert note in text if note else "make the file smaller" not in text


def factorized(record: dict) -> None:
    """Make a record one of a run with factors of single weights."""
    epoch = record["epoch"]
    record["unstructured_sparsity"] = 0.9 * record["group_sparsity"]
    for layer in record["layers"].values():
        layer["size"] = 1
    record |= {
        "compression_ratio": 1 / (1 - record["group_sparsity"]),
        "compression_at": {"1.2e-07": 1 + epoch / 10, "0.001": 3 + epoch, "0.01": None},
        "relative_misalignment": 0.15 / epoch**3,
        "mean_penalty": 0.1 / epoch,
        "budget_planned": 16.2,
        "budget_spent": 16.2 * epoch / 60,
        "onset_epoch": 7,
        "dead": 3,
        "alarms": ["all of 2.weight is zero after epoch 9; take a smaller lam"],
    }


def test_factors_of_single_weights(new_run):
    folder = new_run()
    edit(folder / "metrics.jsonl", factorized)
    tried = {"1.2e-07": (7.0, 0.97), "0.001": (63.0, 0.96875), "0.01": (None, 0.1)}
    final = json.loads((folder / "final.json").read_text())
    factorized(final)
    final["thresholds"] = {
        name: {"compression_ratio": ratio, "valid_accuracy": accuracy, "valid_loss": 0.125}
        for name, (ratio, accuracy) in tried.items()
    }
    (folder / "final.json").write_text(json.dumps(final))
    page = write_report([folder])
    found = Page(page)
    for words in (
        "of the penalized weights exactly zero",
        "Collapse budget: 16.2 spent, 16.2 planned",
        "The first exact zeros came in epoch 7.",
        "All of 2.weight is zero after epoch 9; take a smaller lam.",
        "Single zeros make the file smaller, not the network faster.",
        "Which weights are alive",
        "Compression ratio",
        "below 0.001 is zero",
        "Other thresholds",
        "96.88 %",
    ):
        assert words in found.text, words
    assert "groups" not in " ".join(word for word in found.words if "{" not in word)
    assert set(found.values("data-value")) <= numbers(report_of(page))
    factors = report_of(page)["runs"][0]["factors"]
    assert factors["compression"]["0.001"][:2] == [4, 5]
    assert factors["thresholds"][2]["compression_ratio"] is None


def test_a_run_without_factors_says_nothing_of_them(new_run):
    page = write_report([new_run()])
    assert report_of(page)["runs"][0]["factors"] is None
    assert "Collapse budget" not in Page(page).text
    assert "Compression ratio" not in Page(page).text


def test_low_rank(new_run):
    folder = new_run()

    def ranks(record: dict) -> None:
        record["low_rank_level"] = record.pop("group_sparsity")
        del record["weighted_group_sparsity"]
        for layer in record["layers"].values():
            del layer["size"]

    edit(folder / "metrics.jsonl", ranks)
    edit(folder / "final.json", ranks)
    text = Page(write_report([folder])).text
    assert "of the singular values exactly zero." in text
    assert "once its weights are replaced by their factors" in text


@pytest.mark.parametrize("rows", [1, 2, 1500])
def test_short_and_long_runs(new_run, rows: int):
    page = write_report([new_run(epochs=rows)])
    Page(page)
    assert page.stat().st_size < 500_000


def test_the_report_draws_without_the_training_code(new_run):
    folder = new_run()
    code = (
        "import sys, pathlib; from openwork.report import write_report; assert 'matplotlib' not in sys.modules;"
        f"write_report([pathlib.Path({str(folder)!r})]); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "matplotlib.figure" in loaded
    assert not loaded & {"openwork.training", "openwork.recipes", "accelerate", "matplotlib.pyplot"}


def test_the_picture_of_the_groups_shows_who_was_alive(new_run):
    folder = new_run(epochs=4, layers={"few": 3, "many": 600})
    masks = {
        "few": ([1, 1, 1], [1, 0, 1], [1, 0, 1], [0, 0, 1]),
        "many": ([1] * 600, [1] * 300 + [0] * 300, [0] * 600, [0] * 600),
    }

    def keep(record: dict) -> None:
        for name, kept in masks.items():
            record["layers"][name]["kept"] = pack_bits(torch.tensor(kept[record["epoch"] - 1], dtype=torch.bool))

    edit(folder / "metrics.jsonl", keep)
    few, many = lives(read_run(folder))
    assert (few.name, few.groups, few.first, few.last) == ("few", 3, 3, 1)
    alpha = imread(io.BytesIO(few.png))[:, 60::120, 3]  # four epochs, 120 pixels each
    assert alpha.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]]
    alpha = imread(io.BytesIO(many.png))[:, 60::120, 3]  # rows of two or three groups each
    assert alpha.shape == (256, 4)
    assert alpha[:, 1].mean() == pytest.approx(0.5, abs=0.01)
    assert alpha[0].tolist() == [1, 1, 0, 0] and alpha[-1].tolist() == [1, 0, 0, 0]


def test_numbers_that_are_not_quite_all_or_none_never_read_so():
    assert [percent(x).replace("\u202f", " ") for x in (0.0, 1e-7, 0.5, 0.99999, 1.0)] == [
        "0.00 %",
        "<0.01 %",
        "50.00 %",
        ">99.99 %",
        "100.00 %",
    ]
    assert [shown(x, "residual") for x in (0.0, 3.14e-9, None)] == ["0", "3.1e-9", "–"]


@pytest.mark.parametrize("residuals", [(0.0,), (0.0, 1e-9), (2e-9,), (1e-30, 1e30)])
def test_residuals_that_logarithms_dislike(new_run, residuals: tuple[float, ...]):
    folder = new_run(epochs=6)
    edit(folder / "metrics.jsonl", lambda record: record.update(residual=residuals[record["epoch"] % len(residuals)]))
    assert "Residual" in Page(write_report([folder])).words
