"""Tasks of a comparison: data, networks and losses that fit together, and methods that can be compared on them."""

import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from openwork import data as data_sets
from openwork import shrinking
from openwork.comparison import Task, compare, tasks
from openwork.comparison.compare import find_task
from openwork.data import Data, Split

FOLDERS = {
    "fashion_lenet300": "fashion-mnist",
    "fashion_lenet5": "fashion-mnist",
    "mnist_logistic": "mnist",
    "a5a_logistic": "libsvm",
    "cifar10_resnet18": "cifar10",
    "cifar10_vgg19": "cifar10",
    "shakespeare_gpt": "tiny-shakespeare",
}


def found(name: str) -> Task:
    folder = FOLDERS.get(name)
    if folder and not Path(os.environ.get("OPENWORK_DATA", "/nowhere"), folder).is_dir():
        pytest.skip(f"needs {folder}/ in the folder OPENWORK_DATA")
    return getattr(tasks, name)()


def test_every_task_of_the_issue_is_there() -> None:
    assert set(tasks.__all__) == {"digits", *FOLDERS}


def images(seed: int) -> Data:
    """In place of CIFAR-10, which takes long to decode."""
    generator = torch.Generator().manual_seed(seed)
    samples = Split(torch.randn(40, 3, 32, 32, generator=generator), torch.arange(40) % 10)
    return Data("random images", samples, samples, samples, classes=10)


@pytest.mark.parametrize("name", tasks.__all__)
def test_a_task_learns_something_that_fits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_sets, "cifar10", images)
    task = found(name)
    assert task.name.removesuffix("_small") == name
    assert task.epochs >= 1
    data, model = task.data(0), task.model(0)
    assert data.train
    assert data.valid
    assert data.test
    inputs, targets = data.train.inputs[:3], data.train.targets[:3]
    loss = task.loss(model(inputs), targets)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None for p in model.parameters())
    if task.augment:
        assert task.augment(inputs, torch.Generator().manual_seed(0)).shape == inputs.shape


@pytest.mark.parametrize("name", ["digits", "fashion_lenet300", "mnist_logistic", "a5a_logistic"])
def test_seeds_draw_weights_and_what_is_held_out(name: str) -> None:
    task = found(name)
    first, again, other = (list(task.model(seed).parameters()) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    held = [task.data(seed) for seed in (0, 1)]
    assert not torch.equal(held[0].valid.inputs, held[1].valid.inputs)
    assert torch.equal(held[0].test.inputs, held[1].test.inputs)


def test_a5a_gives_up_no_sample_for_testing() -> None:
    data = found("a5a_logistic").data(0)
    assert len(data.train) + len(data.valid) == 6414
    assert len(data.test) == 16281
    assert data.note == "tested on a9a.t"


def test_names_may_have_hyphens() -> None:
    assert find_task("fashion-lenet300").name == "fashion_lenet300"


def test_without_a_gpu_large_tasks_are_small_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    task = found("shakespeare_gpt")
    assert (task.name, task.epochs) == ("shakespeare_gpt_small", 2)
    data = task.data(0)
    assert (len(data.train), len(data.valid)) == (500, 250)
    assert data.note == "only 500 of the training samples"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    task = tasks.shakespeare_gpt()
    assert (task.name, task.epochs) == ("shakespeare_gpt", 10)
    assert len(task.data(0).train) > 5000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:supervised. :UserWarning")
@pytest.mark.parametrize(
    ("name", "count", "methods"),
    [
        ("digits", 100, ["ramda", "subgradient_group"]),
        ("fashion_lenet300", 100, ["dwf3", "subgradient_group"]),
        ("fashion_lenet5", 50, ["synflow", "subgradient_group"]),
        ("mnist_logistic", 100, ["mast_magnitude", "subgradient_group"]),
        ("a5a_logistic", 300, ["rigl", "subgradient_group"]),
        ("shakespeare_gpt", 8, ["ramda", "subgradient_group"]),
        ("cifar10_resnet18", 4, ["ramda", "subgradient_group"]),
        # 20 million parameters: a second method would take as long again, and shows nothing that ResNet-18 does not.
        ("cifar10_vgg19", 4, ["subgradient_group"]),
    ],
)
def test_methods_are_compared_on_a_few_samples(
    name: str, count: int, methods: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def few(seed: int) -> Data:
        whole = task.data(seed)
        parts = (whole.train, whole.valid, whole.test)
        train, valid, test = (part.take(torch.arange(min(count, len(part)))) for part in parts)
        return replace(whole, train=train, valid=valid, test=test)

    monkeypatch.setattr(data_sets, "cifar10", images)
    task = found(name)
    table = compare(replace(task, data=few), methods, strengths=1, seeds=1, epochs=1, out=tmp_path / "c")
    assert table.finished and not table.failures
    assert [(row.method, row.seeds) for row in table] == [(method, 1) for method in methods]
    for row in table:
        for measure in (row.accuracy, row.loss, row.compression, row.macs, row.bytes, row.latency_ms):
            assert measure is not None and math.isfinite(measure.mean)
    for result in table.results:
        file = tmp_path / "c" / "runs" / result.cell.name / "small.safetensors"
        small = shrinking.load(file, into=task.model(0)).eval()
        assert sum(p.numel() for p in small.parameters()) == result.params[1]
        data = few(0).test
        assert float(task.loss(small(data.inputs), data.targets).detach()) == pytest.approx(result.loss, rel=1e-4)
    # Whole groups are cut whatever the training was; a single layer has no units that could go with them.
    cut = next(r for r in table.results if r.cell.method == "subgradient_group")
    assert cut.group
    assert (cut.params[1] < cut.params[0] and cut.macs[1] < cut.macs[0]) == (not name.endswith("logistic"))
