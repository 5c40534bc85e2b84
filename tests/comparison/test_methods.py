"""Methods of a comparison: what they do with a strength and a budget."""

import json
import math
from copy import deepcopy
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tiny_comparison import samples, task
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from openwork.comparison import Cell, Method, Task, methods
from openwork.comparison.methods.proximal import stages
from openwork.comparison.methods.pruner import Masked
from openwork.comparison.trial import train_cell
from openwork.models import mlp
from openwork.training import Run

NAMES = methods.__all__
SPARSE = [name for name in NAMES if name != "dense"]
EPOCHS = 2
# Factors need more steps before their product is zero.
MORE = 20
FACTORIZED = ("dwf2", "dwf3", "dwf4")
# The diagnostics of factorized training speak up, since the tiny network does collapse at a large strength.
collapsing = pytest.mark.filterwarnings("ignore:supervised. :UserWarning")
# Pruners that cut whole groups, keep a layer dense, or let weights grow that have no gradient.
ROUGH = ("rigl_uniform", "set", "subgradient_group")
# Two strengths between which every method of a kind has room on the tiny task.
PRUNED = (1.5, 4.0)


def method(name: str) -> Method:
    return getattr(methods, name)()


def small() -> Task:
    """Twelve steps in an epoch, enough for every schedule."""
    return replace(task(), model=lambda seed: mlp((6, 16, 8, 3), seed=seed), batch_size=5)


def epochs(name: str) -> int:
    return MORE if name in FACTORIZED else EPOCHS


def two_strengths(name: str) -> tuple[float, float]:
    if isinstance(method(name), Masked) or name == "mast_magnitude":
        return PRUNED
    if name in FACTORIZED:
        return 14.5, 28.0
    # So few steps need more than thousands of them.
    last = method(name).strengths(small(), 2)[-1]
    return last, 50 * last


def train(run: Run, units: int) -> None:
    for _ in range(units):
        run.advance(1)


def trained(name: str, strength: float, seed: int = 0) -> nn.Module:
    run = method(name).run(small(), strength, epochs(name), seed)
    train(run, run.units)
    return run.finish()


def density(model: nn.Module) -> float:
    weights = [p for p in model.parameters() if p.ndim > 1]
    return sum(int(w.count_nonzero()) for w in weights) / sum(w.numel() for w in weights)


def test_all_that_the_issue_names_are_there() -> None:
    assert set(NAMES) >= {
        *("dense", "ramda", "rmda", "proxsgd", "proxadamw", "dwf2", "dwf3", "dwf4", "mast_magnitude", "tiam_l1"),
        *("magnitude", "magnitude_layerwise", "magnitude_finetune", "gradual", "random", "snip", "synflow", "set"),
        *("rigl", "rigl_uniform", "acdc", "subgradient_l1", "subgradient_group", "lottery"),
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_method_is_plain_documented_and_searchable(name: str) -> None:
    found = method(name)
    settings = asdict(found)
    assert json.loads(json.dumps(settings)) == settings
    assert (getattr(methods, name).__doc__ or "").endswith(".")
    assert found.about().endswith(".") and "\n" not in found.about()
    for field, (low, high) in found.ranges().items():
        assert 0 < low < high
        assert low <= settings[field] <= high


def test_what_is_said_of_a_method_is_about_its_configuration() -> None:
    said = [method(name).about() for name in NAMES]
    assert len({*said}) == len(said)
    assert "SGD on 3 factors" in method("dwf3").about()
    assert "RAMDA" in method("ramda").about()
    assert "each weight the same fraction" in method("magnitude_layerwise").about()


@pytest.mark.parametrize("name", SPARSE)
def test_strengths_increase(name: str) -> None:
    strengths = method(name).strengths(small(), 4)
    assert len(strengths) == 4
    assert strengths[0] > 0
    assert all(a < b < math.inf for a, b in pairwise(strengths))
    (single,) = method(name).strengths(small(), 1)
    assert strengths[0] < single < strengths[-1]


def test_a_dense_network_has_no_strength() -> None:
    assert method("dense").strengths(small(), 4) == [0.0]


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_trains(name: str, tmp_path: Path) -> None:
    weak, strong = (0.0, 0.0) if name == "dense" else two_strengths(name)
    strength = weak if weak in PRUNED else strong
    cell = Cell(name, asdict(method(name)), strength, seed=1, epochs=epochs(name))
    result = train_cell(small(), method(name), cell, tmp_path / "cell")
    assert result.accuracy is not None
    assert result.valid_accuracy is not None
    assert result.notes == () or name in FACTORIZED
    assert result.unstructured > 0 or name == "dense"


@collapsing
@pytest.mark.filterwarnings("ignore:Subgradient. nothing is left:UserWarning")
@pytest.mark.parametrize("name", SPARSE)
def test_a_larger_strength_gives_a_sparser_network(name: str) -> None:
    strengths = two_strengths(name)
    weak, strong = (density(trained(name, strength)) for strength in strengths)
    assert strong < weak <= 1
    if strengths == PRUNED and name not in ROUGH:
        assert (weak, strong) == pytest.approx([1 / strength for strength in strengths], abs=0.01)


@collapsing
@pytest.mark.parametrize("name", ["ramda", "dwf3", "mast_magnitude", "tiam_l1", "rigl", "lottery", "subgradient_l1"])
def test_a_run_goes_on_from_its_state_to_the_same_bits(name: str) -> None:
    strength = two_strengths(name)[0]

    def run() -> Run:
        torch.manual_seed(3)
        return method(name).run(small(), strength, epochs(name), 2)

    whole, part = run(), run()
    half = whole.units // 2
    train(whole, whole.units)
    train(part, half)
    resumed = run()
    resumed.load_state_dict(deepcopy(part.state_dict()))
    train(resumed, resumed.units - half)
    expected, found = whole.finish().state_dict(), resumed.finish().state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_a_network_trained_on_centered_inputs_takes_them_as_they_are() -> None:
    run = method("tiam").run(small(), 1e-3, EPOCHS, 0)
    train(run, run.units)
    finished, inputs = run.finish(), samples(0).train.inputs
    centered = (inputs - inputs.mean(0)) / inputs.std(0, correction=0).square().mean().sqrt()
    torch.testing.assert_close(finished(inputs), run.model(centered), rtol=1e-4, atol=1e-4)
    # A second read-out is the same one.
    torch.testing.assert_close(run.finish()(inputs), finished(inputs), rtol=0, atol=0)


def test_alternating_minimization_says_which_loss_it_knows() -> None:
    def squared(outputs: Tensor, targets: Tensor) -> Tensor:
        return mse_loss(outputs, nn.functional.one_hot(targets, 3).to(outputs.dtype))

    with pytest.raises(ValueError, match="knows the loss cross_entropy, and task tiny has another"):
        method("tiam").run(replace(small(), loss=squared), 0.1, 1, 0)


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 8, 20, 100])
@pytest.mark.parametrize("period", [1, 3, 21, 211])
@pytest.mark.parametrize("averaging", [1.0, 0.1, 0.03])
def test_averaging_reaches_one_in_the_last_stage(epochs: int, period: int, averaging: float) -> None:
    chosen, milestones = stages(epochs, period, averaging)
    last = epochs - (milestones[-1] if milestones else 0)
    assert averaging <= chosen <= 1
    assert last * period >= math.ceil(chosen**-2) or epochs * period == 1
    assert milestones == sorted(set(milestones))
    assert all(0 < milestone < epochs for milestone in milestones)
    if epochs >= 8 and epochs * period >= 4 * math.ceil(averaging**-2) + 4 * period:
        assert (chosen, milestones) == (averaging, [epochs // 2, epochs - math.ceil(epochs / 4)])


class Shift(nn.Module):
    """No weight of a known layer."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :3] + self.shift


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("ramda", ValueError, "Shift has no parameter left to penalize"),
        ("subgradient_group", ValueError, "Shift has no parameter left to penalize"),
        ("rigl", ValueError, "Shift has no weight left to prune"),
        ("tiam", TypeError, "must be a torch.nn.Sequential, got Shift"),
    ],
)
def test_a_network_without_groups_is_refused(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        method(name).run(replace(small(), model=lambda seed: Shift()), 2.0, 1, 0)


@pytest.mark.parametrize("name", ["magnitude", "mast_magnitude"])
def test_a_ratio_below_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must be at least 1, how many times fewer weights it leaves"):
        method(name).run(small(), 0.5, 1, 0)


def test_a_pruner_knows_the_strength_for_a_density() -> None:
    found = method("magnitude")
    strength = found.strength_at(small(), 0.5)
    assert strength is not None
    model = trained("magnitude", strength)
    nonzero = sum(int(p.count_nonzero()) for p in model.parameters())
    assert nonzero / sum(p.numel() for p in model.parameters()) == pytest.approx(0.5, abs=0.01)
    # Biases alone are more than that.
    assert found.strength_at(small(), 0.01) is None
