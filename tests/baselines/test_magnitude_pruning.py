"""One-shot magnitude pruning against its definition."""

import pytest
import torch

from openwork.baselines import MagnitudePruning, Training
from tests.baselines.loop import best, kept, started, step, weights


@pytest.mark.parametrize("density", [0.1, 0.3, 0.5, 0.9])
def test_the_largest_of_all_stay(density: float) -> None:
    pruning = started(MagnitudePruning(density), 6)
    for _ in range(5):
        step(pruning)
    assert pruning.masks.alive == 72
    before = weights(pruning)
    # The last step, without masks, done by hand: the gradient is that of the dense weights.
    twin = started(MagnitudePruning(1.0), 6)
    for _ in range(6):
        step(twin)
    step(pruning)
    assert any(not torch.equal(before[name], weight) for name, weight in weights(twin).items())
    magnitudes = {name: weight.abs() for name, weight in weights(twin).items()}
    assert kept(pruning) == best(magnitudes, round(72 * density))
    for name, weight in weights(pruning).items():
        assert torch.equal(weight, weights(twin)[name] * pruning.masks.kept[name])


def test_the_same_fraction_of_each_stays() -> None:
    pruning = started(MagnitudePruning(0.25, scope="layerwise"), 1)
    step(pruning)
    dense = started(MagnitudePruning(1.0), 1)
    step(dense)
    for name, count in (("0.weight", 12), ("2.weight", 6)):
        assert kept(pruning)[name] == best({name: weights(dense)[name].abs()}, count)[name]


def test_finetuning_keeps_the_mask_and_trains_what_is_left() -> None:
    pruning = started(MagnitudePruning(0.25, finetune=0.4), 10)
    for _ in range(6):
        assert pruning.masks.alive == 72
        step(pruning)
    masks, values = kept(pruning), weights(pruning)
    assert pruning.masks.alive == 18
    for _ in range(4):
        step(pruning)
    assert kept(pruning) == masks
    for name, weight in weights(pruning).items():
        mask = pruning.masks.kept[name]
        assert bool((weight != values[name])[mask].all())


def test_the_learning_rate_begins_anew() -> None:
    assert MagnitudePruning(0.1, finetune=0.25).trainings(100) == [Training(0, 75), Training(75, 100, rate=0.1)]
    assert MagnitudePruning(0.1).trainings(100) == [Training(0, 100)]
