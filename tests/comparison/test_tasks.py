"""Tasks of a comparison: data, networks and losses that fit together."""

import os
from pathlib import Path

import pytest
import torch

from openwork import data as data_sets
from openwork.comparison import Task, tasks
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
