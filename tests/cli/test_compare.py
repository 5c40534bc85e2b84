"""``openwork compare``: options, what is printed, and what is wrong, on a task beside the command."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from openwork.cli import main
from openwork.comparison import methods, tasks

# The command line prints warnings as notes.
pytestmark = pytest.mark.filterwarnings("default::UserWarning")

OWN = """
import torch
from openwork.comparison import Task
from openwork.comparison.methods import dense, proxsgd
from openwork.data import Data, Split
from openwork.models import mlp

def data(seed: int) -> Data:
    generator = torch.Generator().manual_seed(1)
    targets = torch.arange(60) % 3
    split = Split(torch.randn(60, 6, generator=generator) + torch.nn.functional.one_hot(targets, 6), targets)
    parts = [split.take(torch.arange(*rows)) for rows in ((0, 40), (40, 50), (50, 60))]
    return Data("own", train=parts[0], valid=parts[1], test=parts[2], classes=3)

def task() -> Task:
    return Task("own", lambda seed: mlp((6, 8, 3), seed=seed), data, epochs=2, batch_size=20)
"""
TINY = ("compare", "own_task:task", "--methods", "dense", "--seeds", "1")


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from openwork.comparison import timing

    monkeypatch.setattr(timing, "SECONDS", 0.005)
    (tmp_path / "own_task.py").write_text(OWN)


def test_a_comparison_prints_its_table_and_where_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--out", "c"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split()[:3] == ["method", "strength", "seeds"]
    assert printed[1].split()[:3] == ["dense", "0", "1"]
    assert printed[-1] == str(Path("c", "comparison.json"))
    found = json.loads((tmp_path / "c" / "comparison.json").read_text(encoding="utf-8"))
    assert (found["task"], found["budget"], len(found["results"])) == ("own", "2 epochs", 1)
    # Once more, with nothing to do; then for other epochs, which is another comparison.
    assert main([*TINY, "--out", "c"]) == 0
    assert capsys.readouterr().out.splitlines() == printed
    assert main([*TINY, "--out", "c", "--epochs", "3"]) == 2
    assert capsys.readouterr().err == (
        "openwork: the comparison in c was begun with budget 2 epochs and cannot go on with 3 epochs; ask for the "
        "same, or choose another folder with --out=FOLDER (and in a shared database another name with --study=NAME)\n"
    )


def test_the_help_lists_tasks_and_methods(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    printed = capsys.readouterr().out.replace("\n", " ")
    for name in (*tasks.__all__, *methods.__all__):
        assert name in printed


def test_a_network_that_fails_is_in_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = OWN.replace("mlp((6, 8, 3), seed=seed)", "mlp((6, 8, 3), seed=seed) if seed == 0 else 1 / 0")
    (tmp_path / "broken_task.py").write_text(broken)
    assert main(["compare", "broken_task:task", "--methods", "dense", "--seeds", "2", "--out", "c"]) == 1
    printed = capsys.readouterr()
    assert "failed: dense-0-s1: ZeroDivisionError: division by zero" in printed.out.splitlines()
    assert printed.out.splitlines()[-1] == str(Path("c", "comparison.json"))
    assert printed.err == (
        "openwork: 1 network has failed, see above; train what failed again with: openwork compare broken_task:task "
        "--methods dense --seeds 2 --out c --retry\n"
    )
    assert main(["report", "c"]) == 0
    assert "ZeroDivisionError: division by zero" in (tmp_path / "c" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["digts"], "there is no task 'digts'; did you mean digits?"),
        (["own_task:tsk"], "there is no task 'own_task:tsk'; did you mean task or "),
        (["own_task:data"], "data() missing 1 required positional argument: 'seed'"),
        (["own_task:task", "--methods", "dnse"], "there is no method 'dnse'; did you mean dense"),
        (["own_task:task", "--strengths", "few"], "compare: --strengths must be how many, such as 5, or which, such"),
        (["own_task:task", "--strengths", "0"], "compare: --strengths must be at least 1, got 0"),
        (["own_task:task", "--seeds", "0"], "compare: --seeds must be at least 1, got 0"),
        (["own_task:task", "--seconds", "0"], "compare: --seconds must be above 0, got 0"),
        (["own_task:task", "--target", "size=1"], "target: there is no measure 'size'; there are density, macs, laten"),
        (["own_task:task", "--out", "own_task.py"], "own_task.py is a file; choose another folder with --out=FOLDER"),
        (["own_task:task", "--storage", "a b"], "storage 'a b' cannot be used (Could not parse SQLAlchemy URL"),
        (["own_task:task", "--metods", "dense"], "compare has no option --metods; did you mean --methods"),
        (["own_task:task", "more"], "compare takes no argument 'more' there; leave it out"),
    ],
)
def test_mistakes(says: Callable[..., str], arguments: list[str], sentence: str) -> None:
    methods = [] if "--methods" in arguments or "--metods" in arguments else ["--methods", "dense"]
    said = says("compare", *arguments, *methods)
    assert said.startswith(sentence), said


def test_a_disk_that_is_full_ends_with_the_way_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from openwork.comparison import trial

    def full(*_: object, **__: object) -> None:
        raise OSError("cannot write x: No space left on device; free some space")

    with monkeypatch.context() as patched:
        patched.setattr(trial, "save", full)
        assert main([*TINY, "--out", "c"]) == 1
    assert capsys.readouterr().err == (
        "openwork: the comparison stopped (cannot write x: No space left on device; free some space); finished trials "
        "are kept, go on with: openwork compare own_task:task --methods dense --seeds 1 --out c\n"
    )
    assert main([*TINY, "--out", "c"]) == 0
