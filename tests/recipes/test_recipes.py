"""Every recipe builds, documents its options, learns in a few steps, and is built again from its folder."""

import inspect
import json
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import docstring_parser
import pytest
import torch
from torch import Tensor, nn

from openwork import data, models, recipes
from openwork.data import Data, Split
from openwork.training import Recipe, Run, fit, new_folder, rebuild, write_recipe

# Alternating minimization has sweeps instead of steps and epochs, and tests of its own.
STEPPED = [name for name in recipes.__all__ if not name.startswith("tiam")]
DIGITS = [name for name in STEPPED if name.endswith(("digits", "finetune"))]
# Small enough for a test; the rest of the arguments are the defaults.
SHORT: Mapping[str, Mapping[str, int | float]] = {
    "dwf_resnet18_cifar10": {"batch_size": 8, "warmup": 0, "lr": 0.03},
    "dwf_vgg19_cifar10": {"batch_size": 8, "warmup": 0, "lr": 0.03},
    "dwf_finetune": {"dense_epochs": 1},
    "dwf_gate_lenet5": {"warmup": 0},
    "mast_finetune": {"base_epochs": 1},
    "rmda_cifar10_vgg19": {"batch_size": 8},
    "ramda_cifar10_resnet50": {"batch_size": 8},
    "ramda_fashion_mlp7_nuclear": {"lr": 3e-3},
    "ramda_shakespeare_gpt": {"depth": 1, "width": 16, "heads": 2, "context": 32},
}
FOLDERS = {
    "dwf_lenet": "mnist",
    "gate_lenet": "mnist",
    "mast_logistic": "libsvm",
    "mnist": "mnist",
    "fashion": "fashion-mnist",
    "shakespeare": "tiny-shakespeare",
}

# A short training is warned of, and meant here.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*averaging:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*collapse budget:UserWarning"),
]


def recipe(name: str) -> Callable[..., Run]:
    return getattr(recipes, name)


@cache
def read_once(name: str) -> Callable[..., Data]:
    return cache(getattr(data, name))


def need_data(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip without the files; CIFAR-10, slow to decode, is a few random images of one class here."""
    for reader in ("mnist", "fashion_mnist"):
        monkeypatch.setattr(data, reader, read_once(reader))
    if "cifar10" in name:
        monkeypatch.setattr(data, "cifar10", lambda data_dir=None: images())
    for word, folder in FOLDERS.items():
        root = os.environ.get("OPENWORK_DATA")
        if word in name and not (root and Path(root, folder).is_dir()):
            pytest.skip(f"needs {folder}/ in the folder OPENWORK_DATA")


def images() -> Data:
    samples = Split(torch.randn(40, 3, 32, 32), torch.full((40,), 7))
    return Data("random images", samples, samples, samples, classes=10)


@pytest.mark.parametrize("name", recipes.__all__)
def test_every_option_is_typed_and_documented(name: str) -> None:
    function = recipe(name)
    documented = {p.arg_name: p.description for p in docstring_parser.parse(inspect.getdoc(function) or "").params}
    parameters = inspect.signature(function, eval_str=True).parameters
    assert list(documented) == list(parameters)
    assert all(documented.values())
    for parameter in parameters.values():
        assert parameter.annotation is not parameter.empty
        assert parameter.default is not parameter.empty
    assert inspect.signature(function).return_annotation is Run
    assert "seed" in parameters


@pytest.mark.parametrize("name", STEPPED)
def test_a_few_steps_lower_the_loss(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    need_data(name, monkeypatch)
    run = recipe(name)(**{"batch_size": 64, **SHORT.get(name, {})})
    steps = min(30, run.period - 1)
    sums = [0.0]
    for _ in range(steps):
        assert run.advance(1) == {}
        loss_sum = run.state_dict()["loss_sum"]
        assert isinstance(loss_sum, torch.Tensor)
        sums.append(float(loss_sum))
    first, last = sums[2] / 2, (sums[-1] - sums[-3]) / 2
    assert last < first


@pytest.mark.parametrize("name", ["dwf_resnet18_cifar10", "dwf_vgg19_cifar10"])
def test_a_subset_makes_an_epoch_shorter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    need_data(name, monkeypatch)
    for network in ("resnet18", "vgg19_bn"):  # millions of factors to draw
        monkeypatch.setattr(models, network, lambda seed: nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)))
    assert recipe(name)(batch_size=8, subset=24).period == 3
    with pytest.raises(ValueError, match="cifar10: subset must be from 1 to 40 training samples, got 41"):
        recipe(name)(subset=41)


def test_finetuning_starts_from_the_network_of_a_run(tmp_path: Path) -> None:
    write_recipe(new_folder(tmp_path / "run"), Recipe("rmda_digits", {"epochs": 4, "averaging": 0.5, "hidden": [16]}))
    fit(Recipe("rmda_digits", {"epochs": 4, "averaging": 0.5, "hidden": [16]}).build(), tmp_path / "run")
    start, run = rebuild(tmp_path / "run").finish(), recipes.dwf_finetune(start=tmp_path / "run")
    for (name, a), b in zip(start.named_parameters(), run.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


@pytest.mark.parametrize("name", DIGITS)
def test_digits_end_to_end(name: str, tmp_path: Path) -> None:
    arguments = {"epochs": 12, "seed": 3, **({"dense_epochs": 1} if name == "dwf_finetune" else {})}
    asked = Recipe(name, arguments)
    write_recipe(new_folder(tmp_path / "run"), asked)
    run = asked.build()
    final = fit(run, tmp_path / "run")
    accuracy, zeros = final["test_accuracy"], final.get("group_sparsity", final.get("low_rank_level"))
    assert isinstance(accuracy, float)
    assert isinstance(zeros, float)
    assert accuracy > 0.6
    assert 0 <= zeros < 1
    again = rebuild(tmp_path / "run")
    again.finish()
    states = (again.model.state_dict().values(), run.model.state_dict().values())
    assert all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(*states, strict=True))
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["arguments"] == arguments
