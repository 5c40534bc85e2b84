"""What a user gets wrong: one sentence with place, value and way out, exit code 2, and nothing written."""

import gzip
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

# The command line prints warnings as notes.
pytestmark = pytest.mark.filterwarnings("default::UserWarning")

Says = Callable[..., str]


def test_a_command_that_does_not_exist(says: Says) -> None:
    assert says("trian") == "there is no command 'trian'; did you mean train or shrink?"
    assert (
        says("fly") == "there is no command 'fly'; there are train, inspect, shrink, export, compare, report, recipes"
    )


def test_a_recipe_that_does_not_exist(says: Says) -> None:
    assert says("train", "ramda_digts").startswith("there is no recipe 'ramda_digts'; did you mean ramda_digits or")
    assert says("train", "zzz") == "there is no recipe 'zzz'; `openwork recipes` lists what there is"
    # What a module of recipes imports is no recipe.
    assert says("train", "digits").startswith("there is no recipe 'digits'; did you mean")


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (("--lamb", "1"), "train ramda_digits has no option --lamb; did you mean --lam"),
        (("--lamb=1",), "train ramda_digits has no option --lamb; did you mean --lam"),
        (("--batchsize", "8"), "train ramda_digits has no option --batchsize; did you mean --batch_size"),
        (("--zzzzzzz", "8"), "train ramda_digits has no option --zzzzzzz; there are --help, --lam, --lr, "),
        (("extra",), "train ramda_digits takes no argument 'extra' there; a recipe comes before its options"),
        (("--lam", "strong"), "train ramda_digits: --lam must be of type float, got 'strong'; see openwork train"),
        (("--epochs", "2.5"), "train ramda_digits: --epochs must be of type int, got '2.5'; see openwork train"),
        (("--hidden", "[a]"), "train ramda_digits: --hidden must be of type int, got 'a'"),
        (("--tracker", "wandb"), "train ramda_digits: argument --tracker: "),
        (("--lam",), "train ramda_digits: argument --lam: expected one argument; see openwork train ramda_digits"),
        (("--lam", "-1"), "GroupLasso: --lam must be >= 0, got -1.0"),
        (("--lr", "-1"), "RAMDA: --lr must be "),
        (("--epochs", "0"), "supervised: --epochs must be a positive integer, got 0"),
        (("--batch-size", "0"), "Batches: --batch_size must be at least 1, got 0"),
        (("--averaging", "2"), "RAMDA: --averaging must be "),
    ],
)
def test_an_option_or_a_value(says: Says, option: tuple[str, ...], sentence: str) -> None:
    said = says("train", "ramda_digits", *option)
    assert said.startswith(sentence), said


def test_a_choice(says: Says) -> None:
    said = says("train", "rmda_cifar10_vgg19", "--precision", "fp8")
    assert "--precision must be one of 'no', 'bf16', 'fp16', got 'fp8'; see openwork train rmda_cifar10_vgg19" in said


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (("tiam_digits", "--rho", "0"), "--rho must be above 0, since it holds the layers together, got 0.0"),
        (("tiam_digits", "--mu", "-1"), "AMTrainer: --mu must be finite and >= 0, or 'auto', got -1.0"),
        (("tiam_digits", "--lam", "-1"), "GroupLasso: --lam must be >= 0, got -1.0"),
        (("tiam_digits", "--sweeps", "0"), "alternating_run: --sweeps must be at least 1, got 0"),
        (("tiam_digits", "--method", "adam"), "train tiam_digits: --method must be one of 'ours', 'tiam', 'mdlam', "),
        (("tiam_sign", "--ramp", "201"), "tiam_sign: --ramp must be from 0 to the number of sweeps, which is 200"),
        (("tiam_sign", "--margin", "-1"), "Sign: --margin must be >= 0 and finite, got -1.0"),
        (("tiam_sparse", "--informative", "0"), "planted: --informative must be at least 1, got 0"),
    ],
)
def test_an_option_of_alternating_minimization(says: Says, command: tuple[str, ...], sentence: str) -> None:
    said = says("train", *command)
    assert said.startswith(sentence), said


def test_too_little_memory(says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openwork.altmin.samples.free_bytes", lambda device: 4_000_000)
    said = says("train", "tiam_digits")
    assert re.match(
        r"AMTrainer: the blocks of \d+ samples need about .* GB and 0.004 GB are free; pass chunk_size=", said
    )


# -- data -----------------------------------------------------------------------------------------------------------


def test_no_folder_of_data(says: Says) -> None:
    said = says("train", "rmda_mnist_logistic")
    assert "pass --data_dir or set the environment variable OPENWORK_DATA to the folder that holds mnist/" in said


def test_a_missing_data_file(says: Says) -> None:
    said = says("train", "rmda_mnist_logistic", "--data-dir", "here")
    assert said.startswith("mnist: here/mnist has no file train-")
    assert "choose another folder with --data_dir or the environment variable OPENWORK_DATA" in said


def idx(shape: tuple[int, ...], cut: int = 0, magic: int = 0x08) -> bytes:
    size = 1
    for length in shape:
        size *= length
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, magic, len(shape), *shape)
    return gzip.compress(header + bytes(size - cut), mtime=0)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (idx((60000, 28, 28), cut=7), "train-images"),
        (idx((60000, 28, 28))[:-20], "train-images"),
        (b"not gzip at all", "train-images"),
        (gzip.compress(b"<html>no such page</html>", mtime=0), "train-images"),
    ],
)
def test_a_truncated_or_foreign_data_file(says: Says, tmp_path: Path, content: bytes, sentence: str) -> None:
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for part, count in (("train", 60000), ("t10k", 10000)):
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(idx((count, 28, 28)) if part == "t10k" else content)
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx((count,)))
    said = says("train", "rmda_mnist_logistic", "--data_dir", "data")
    assert sentence in said
    assert ";" in said  # a way out


# -- folders --------------------------------------------------------------------------------------------------------


def test_a_folder_that_is_not_empty(says: Says, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    said = says("train", "--out", "full")
    assert said == "full is not empty; choose another folder with --out, or go on with --resume full"


def test_a_folder_that_is_a_file(says: Says, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    assert says("train", "--out", "taken") == "taken is a file; choose another folder with --out"
    said = says("train", "--out", "taken/run", "--epochs", "4", "--averaging", "1", "--hidden", "[4]")
    assert said.startswith("taken/run cannot be made (Not a directory); choose another folder with --out")


def test_a_folder_that_cannot_be_made(says: Says) -> None:
    said = says("train", "--out", "/proc/none/run", "--epochs", "4", "--averaging", "1", "--hidden", "[4]")
    assert said == "/proc/none/run cannot be made (No such file or directory); choose another folder with --out"


# -- resuming -------------------------------------------------------------------------------------------------------


def test_resuming_what_is_no_run(says: Says, tmp_path: Path) -> None:
    assert says("train", "--resume", "nowhere") == (
        "nowhere is not a run folder: it has no recipe.json; name a folder that `openwork train` wrote"
    )
    assert says("train", "--resume").startswith("train --resume: argument --resume: expected one argument")


def test_resuming_with_other_arguments(says: Says, run: str) -> None:
    assert says("train", "--resume", run, "--lam", "3") == (
        "train --resume has no option --lam; a run goes on with the arguments it was begun with; begin a new one to "
        "change them"
    )


def test_resuming_a_run_of_another_recipe(says: Says, run: str) -> None:
    assert says("train", "rmda_digits", "--resume", run) == (
        "run is a run of ramda_digits, not of rmda_digits; leave the name out, or begin a run of rmda_digits"
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema": 2}, "run/recipe.json has schema 2, and this version of openwork reads 1; use the version"),
        ({"recipe": "ramda_digts"}, "there is no recipe 'ramda_digts'; did you mean"),
        ({"arguments": {"lamb": 1}}, "recipe ramda_digits has no argument 'lamb'; it has lam, lr, "),
        ({"arguments": None}, "run/recipe.json names no recipe and arguments; it was not written by openwork"),
    ],
)
def test_resuming_a_run_of_another_version(says: Says, run: str, change: dict[str, object], sentence: str) -> None:
    file = Path(run, "recipe.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    said = says("train", "--resume", run)
    assert said.startswith(sentence), said


def test_resuming_from_a_recipe_that_is_not_json(says: Says, run: str) -> None:
    Path(run, "recipe.json").write_text('{"schema": 1, "rec')
    assert says("train", "--resume", run).startswith("run/recipe.json is not JSON: ")


def test_resuming_from_a_damaged_checkpoint(says: Says, run: str) -> None:
    file = Path(run, "checkpoint.pt")
    file.write_bytes(file.read_bytes()[:-100])
    said = says("train", "--resume", run)
    assert said.startswith("run/checkpoint.pt is damaged or was cut short")
    assert said.endswith("restore it from a copy or start the run anew")


def test_resuming_without_its_records(says: Says, run: str) -> None:
    Path(run, "metrics.jsonl").write_text('{"epoch": 1}\n')
    assert says("train", "--resume", run).startswith("run/metrics.jsonl holds 1 records, so it cannot be cut to 4")


# -- a recipe of one's own ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("own_absent:f", None, "recipe 'own_absent:f': own_absent cannot be imported (No module named 'own_absent'); "),
        ("own_broken:f", "def f(:", "recipe 'own_broken:f': own_broken cannot be imported (invalid syntax"),
        (
            "own_needs:f",
            "import own_lost",
            "recipe 'own_needs:f': own_needs cannot be imported (No module named 'own_l",
        ),
        ("own_other:f", "def g(): ...", "there is no recipe 'own_other:f'; `openwork recipes` lists"),
        ("own_near:trains", "def train(): ...", "there is no recipe 'own_near:trains'; did you mean train?"),
        ("own_none:f", "def f(): ...", "recipe own_none:f must return an openwork.training.Run, got NoneType"),
    ],
)
def test_a_recipe_of_ones_own(says: Says, tmp_path: Path, name: str, text: str | None, sentence: str) -> None:
    if text is not None:
        (tmp_path / f"{name.partition(':')[0]}.py").write_text(text)
    said = says("train", name)
    assert said.startswith(sentence), said


# -- reports --------------------------------------------------------------------------------------------------------


def test_reporting_what_is_no_run(says: Says, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert (
        "empty is not a run, it has no recipe.json; name a folder that `openwork train` or `openwork compare` wrote"
    ) in says("report", "empty")
    assert says("report").startswith("report: the following arguments are required: runs; see openwork report --help")


def test_listing_takes_no_argument(says: Says) -> None:
    assert says("recipes", "digits") == "recipes takes no argument, got 'digits'"
