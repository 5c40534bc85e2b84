"""The phases of AC/DC."""

from copy import deepcopy

import pytest
import torch

from openwork.baselines import ACDC
from tests.baselines.loop import assert_zeros, batch, best, kept, started, step, weights


def test_the_phases_are_those_of_the_paper() -> None:
    # ImageNet, 100 epochs: compressed from 10, 20, ..., 70 and 85, dense from 15, 25, ..., 65 and 75.
    compressed, dense = [*range(10, 71, 10), 85], [*range(15, 66, 10), 75]
    assert ACDC(0.1).boundaries(100) == sorted(compressed + dense)
    # CIFAR-10, 200 epochs: compressed from 10, 50, 90, 130, 170, dense from 30, 70, 110, 150.
    cifar = ACDC(0.1, warmup=0.05, phase=0.1, last_dense=0.1, last_compressed=0.15)
    assert cifar.boundaries(200) == [10, 30, 50, 70, 90, 110, 130, 150, 170]


def test_an_odd_number_of_phases_leaves_the_rest_to_the_last() -> None:
    assert ACDC(0.1, warmup=0.2, phase=0.2, last_dense=0.1, last_compressed=0.2).boundaries(100) == [20, 40, 50]


@pytest.mark.parametrize("scope", ["global", "layerwise"])
def test_supports_alternate(scope: str) -> None:
    baseline = ACDC(0.25, scope, warmup=0.2, phase=0.1, last_dense=0.2, last_compressed=0.3)  # pyright: ignore
    begins = baseline.boundaries(20)
    assert begins == [4, 6, 8, 10, 14]
    pruning = started(baseline, 20)
    compressed = False
    for t in range(1, 21):
        # What the weights are after the step, before masks change.
        twin = started(ACDC(0.25), 10**6)
        twin.model.load_state_dict(pruning.model.state_dict())
        twin.optimizer.load_state_dict(deepcopy(pruning.optimizer.state_dict()))
        twin.load_state_dict({**pruning.state_dict(), "step": 0})
        before = kept(pruning)
        step(twin, batch(t))
        step(pruning, batch(t))
        assert_zeros(pruning)
        if t not in begins:
            assert kept(pruning) == before
        elif begins.index(t) % 2 == 0:
            compressed = True
            magnitudes = {name: weight.abs() for name, weight in weights(twin).items()}
            if scope == "global":
                assert kept(pruning) == best(magnitudes, 18)
            else:
                for name, count in (("0.weight", 12), ("2.weight", 6)):
                    assert kept(pruning)[name] == best({name: magnitudes[name]}, count)[name]
        else:
            compressed = False
            assert pruning.masks.alive == 72
            # What comes back begins at zero, and the optimizer without momentum.
            for name, weight in weights(pruning).items():
                gone = torch.ones(weight.numel(), dtype=torch.bool)
                gone[before[name]] = False
                assert not weight.flatten()[gone].any()
            assert not pruning.optimizer.state
        assert pruning.masks.alive == (18 if compressed else 72)
    assert compressed


def test_an_end_in_a_dense_phase_is_compressed() -> None:
    pruning = started(ACDC(0.25), 100)
    for _ in range(16):
        step(pruning)
    assert pruning.masks.alive == 72
    magnitudes = {name: weight.abs() for name, weight in weights(pruning).items()}
    pruning.settle_()
    assert kept(pruning) == best(magnitudes, 18)


def test_without_a_warmup_the_first_phase_is_compressed() -> None:
    baseline = ACDC(0.25, warmup=0.0, phase=0.25, last_dense=0.25, last_compressed=0.25)
    assert baseline.boundaries(20) == [0, 5, 10]
    pruning = started(baseline, 20)
    assert pruning.masks.alive == 18
    for _ in range(5):
        step(pruning)
    assert pruning.masks.alive == 72
