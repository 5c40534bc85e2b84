"""Two and four real processes that share parameters, against one that has them all."""

import fcntl
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.optim import sharded_cases
from tests.optim.sharded_cases import (
    BY_TWO_ONLY,
    CASES,
    FACTORS,
    RESUMED,
    factorized,
    not_finite,
    read_outs,
    resumed,
    trained,
)
from tests.sketches.launch import forked, torchrun

pytestmark = pytest.mark.slow  # the processes of all tests together

# Sums in another order; the metrics of RAMDA at entries with hardly any gradient enlarge what that makes.
CLOSE = 1e-6

Results = list[dict[str, Any]]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the processes have left, started once for all tests, those of other xdist workers too."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "sharded"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            for size in (2, 4):
                ended = forked(size, folder, sharded_cases.main, folder)
                assert ended.codes == [0] * size, ended.said
            (folder / "done").touch()
    return folder


@cache
def read(file: Path) -> dict[str, Any]:
    return torch.load(file, map_location="cpu", weights_only=True)


def of_all(folder: Path, size: int) -> Results:
    return [read(folder / f"{size}-{rank}.pt") for rank in range(size)]


@pytest.fixture(scope="session", params=[1, 2], ids=["1 device", "2 devices"])
def devices(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What processes with a GPU each have left, which talk by nccl."""
    if torch.cuda.device_count() < request.param:
        pytest.skip(f"needs {request.param} CUDA devices")
    folder = tmp_path_factory.mktemp("nccl")
    ended = torchrun(request.param, sharded_cases.__file__, str(folder), "nccl", devices=True)
    assert ended.returncode == 0, ended.stderr
    return of_all(folder, request.param)


@pytest.fixture(params=[2, 4], ids=["2 processes", "4 processes"])
def ranks(request: pytest.FixtureRequest, folder: Path) -> Results:
    return of_all(folder, request.param)


def by(names: Iterable[str]) -> list[tuple[int, str]]:
    """Each name with the numbers of processes that have done it."""
    return [(size, name) for size in (2, 4) for name in names if size == 2 or name not in BY_TWO_ONLY]


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=CLOSE)


def assert_same_training(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert_close(found["weights"], expected["weights"])
    assert_close(found["structured"], expected["structured"])
    for one, other in zip(found["kept"], expected["kept"], strict=True):
        assert torch.equal(one, other)
    assert found["read_out"] == pytest.approx(expected["read_out"], rel=1e-6, abs=CLOSE)


@cache
def alone(name: str) -> dict[str, Any]:
    """A case in one process."""
    return trained(CASES[name], divided=False)


@pytest.mark.parametrize(("size", "name"), by(CASES))
def test_training_is_that_of_one_process(folder: Path, size: int, name: str) -> None:
    for results in of_all(folder, size):
        assert_same_training(results[name], alone(name))


@pytest.mark.gpu
def test_on_devices_it_is_that_of_one_process(devices: Results) -> None:
    for results in devices:
        for name in CASES:
            try:
                assert_same_training(results[name], alone(name))
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from error
        assert_same_training(results["not finite"], not_finite(divided=False))
        expected = read_outs(divided=False)
        assert_close(results["read-outs"]["outputs"], expected["outputs"])
        assert results["read-outs"]["sparsity"] == expected["sparsity"]


def test_cases_drop_some_groups_and_keep_others() -> None:
    counts = {name: (alone(name)["read_out"]["alive"], alone(name)["read_out"]["total"]) for name in CASES}
    assert {name: (alive, total) for name, (alive, total) in counts.items() if not 0 < alive < total} == {}


@pytest.mark.parametrize(("size", "name"), by(FACTORS))
def test_factors_are_those_of_one_process(folder: Path, size: int, name: str) -> None:
    expected = factorized(FACTORS[name], divided=False)
    for results in of_all(folder, size):
        found = results[name]
        assert_close(found["weights"], expected["weights"])
        assert_close(found["settled"], expected["settled"])
        assert all(map(torch.equal, found["kept"], expected["kept"]))
        assert found["read_out"] == expected["read_out"]
        assert found["penalty"] == pytest.approx(expected["penalty"], rel=1e-6)
        assert "was written by something else since the last step" in found["refused"]


def test_a_gradient_that_is_not_finite_in_one_process_is_skipped_by_all(ranks: Results) -> None:
    expected = not_finite(divided=False)
    assert expected["read_out"]["skipped"] == 1
    for results in ranks:
        found = results["not finite"]
        assert_same_training(found, expected)
        assert all(map(torch.equal, found["weights"], found["before"]["weights"]))


def test_strengths_and_metrics_are_those_of_one_process(ranks: Results) -> None:
    expected = read_outs(divided=False)
    for results in ranks:
        found = results["read-outs"]
        torch.testing.assert_close(found["strengths"], expected["strengths"], rtol=1e-9, atol=0)
        assert_close(found["weights"], expected["weights"])
        assert found["sparsity"] == expected["sparsity"]
        assert all(map(torch.equal, found["bare"], expected["bare"]))
        assert_close(found["settled"], expected["settled"])
        assert_close(found["outputs"], expected["outputs"])


@pytest.mark.parametrize("name", RESUMED)
def test_resumed_by_other_numbers_of_processes_it_is_the_same_training(folder: Path, name: str) -> None:
    at_once = trained(CASES[name], divided=False, steps=4)  # as two processes and then four have taken
    for rank in range(4):
        found = read(folder / f"4-{rank}.pt")[f"resumed {name}"]
        assert_close(found["weights"], at_once["weights"])
        assert all(map(torch.equal, found["kept"], at_once["kept"]))
    last = resumed(name, folder / "from 4", None, divided=False)
    assert_same_training(last, trained(CASES[name], divided=False, steps=6))


def test_what_does_not_go_is_one_sentence(ranks: Results) -> None:
    expected = {
        "compile": "ValueError: RAMDA: compile=True does not go with a penalty on parameters that are divided among "
        "processes; leave it out",
        "fused": "UserWarning: RAMDA: there is no fused step for parameters that are divided among processes; steps "
        "are taken in plain torch",
        "traced": "ValueError: regularize: '0.weight' is divided among {n} processes; such a model cannot be traced: "
        "regularize the model before fully_shard, and give the optimizer groups.onto(model) after it",
        "shrink": "ValueError: shrink: '0.weight' is divided among {n} processes; settle_() and gather it: load "
        "get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)) of "
        "torch.distributed.checkpoint.state_dict into a model that is not sharded, and shrink that",
        "tiles": "ValueError: RMDA: parameter 0 of shape (4, 4) is placed as (Shard(dim=0), Shard(dim=1)) on a mesh of "
        "shape (2, 2), and structure needs weights that are divided along one mesh axis, each into consecutive "
        "stretches; shard along one axis only, as fully_shard does on a mesh with one or two axes (replicate, shard)",
        "another mesh": "ValueError: RAMDA: the state to load is divided on a mesh of shape (2, 2), and the parameters "
        "are on one of shape (4,); load it with torch.distributed.checkpoint, which divides it anew",
        "two meshes": "ValueError: RAMDA: Coupled: the weights of its couplings are divided among different processes "
        "(2 and 4), so no process group has all entries of a unit; apply fully_shard to all of them with one mesh, or "
        "exclude some",
        "nothing has changed": "True",
    }
    for results in ranks:
        for what, said in results["refused"].items():
            assert said == expected[what].format(n=len(ranks))
    assert len(ranks) == 2 or set(ranks[0]["refused"]) == set(expected)
