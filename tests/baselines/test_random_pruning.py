"""Random masks have the right number of entries, everywhere alike, and depend on nothing but the seed."""

import pytest
import torch

from openwork.baselines import RandomPruning
from openwork.baselines.allocation import Layers, counts
from tests.baselines.loop import kept, started, step


@pytest.mark.parametrize("layers", ["equal", "uniform", "er", "erk"])
@pytest.mark.parametrize("density", [0.05, 0.3, 1.0])
def test_each_weight_has_its_number(layers: Layers, density: float) -> None:
    pruning = started(RandomPruning(density, layers), 3)
    expected = counts(pruning.masks.weights, density, layers)
    assert {name: len(places) for name, places in kept(pruning).items()} == expected
    before = kept(pruning)
    step(pruning)
    assert kept(pruning) == before


def test_places_are_alike() -> None:
    draws = torch.stack([started(RandomPruning(0.25), 1, seed=seed).masks.kept["0.weight"] for seed in range(400)])
    # 400 draws at 1/4: mean 100, standard deviation 8.7; 48 places.
    assert 65 < int(draws.sum(0).min()) <= int(draws.sum(0).max()) < 135


def test_the_seed_is_all_there_is() -> None:
    torch.manual_seed(1)
    first = kept(started(RandomPruning(0.3), 1, seed=3))
    torch.manual_seed(2)
    assert kept(started(RandomPruning(0.3), 1, seed=3)) == first
    assert kept(started(RandomPruning(0.3), 1, seed=4)) != first
