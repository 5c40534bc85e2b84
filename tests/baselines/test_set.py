"""SET against a transcription of its algorithm."""

from copy import deepcopy

import pytest
import torch

from openwork.baselines import SET
from openwork.baselines.allocation import counts
from tests.baselines.loop import assert_zeros, kept, started, step, weights


def survivors(weight: torch.Tensor, zeta: float) -> list[int]:
    """Algorithm 1: without a fraction of smallest positive and one of largest negative weights, and without zeros."""
    values = list(enumerate(weight.flatten().tolist()))
    positive = sorted([(v, i) for i, v in values if v > 0])
    negative = sorted([(-v, i) for i, v in values if v < 0])
    stay = positive[int(zeta * len(positive)) :] + negative[int(zeta * len(negative)) :]
    return sorted(i for _, i in stay)


@pytest.mark.parametrize("zeta", [0.0, 0.3, 0.7])
def test_the_weakest_move_after_every_epoch_but_the_last(zeta: float) -> None:
    pruning = started(SET(0.4, zeta=zeta), 12, period=3)
    numbers = counts(pruning.masks.weights, 0.4, "er")
    for t in range(1, 13):
        before = kept(pruning)
        twin = started(SET(0.4, zeta=zeta), 10**6, period=10**6)
        twin.model.load_state_dict(pruning.model.state_dict())
        twin.optimizer.load_state_dict(deepcopy(pruning.optimizer.state_dict()))
        twin.load_state_dict({**pruning.state_dict(), "kept": pruning.masks.kept})
        step(twin)  # the same step, and no change of masks after it
        step(pruning)
        after, stepped = kept(pruning), weights(twin)
        assert {name: len(places) for name, places in after.items()} == numbers
        if t % 3 or t == 12:
            assert after == before
            continue
        for name, weight in weights(pruning).items():
            core = survivors(stepped[name], zeta)
            assert set(core) <= set(after[name])
            flat = weight.flatten()
            assert torch.equal(flat[core], stepped[name].flatten()[core])
            new = sorted(set(after[name]) - set(core))
            assert bool((flat[new] == 0).all())
            momentum = pruning.optimizer.state[pruning.masks.weights[name]]["momentum_buffer"].flatten()
            assert bool((momentum[new] == 0).all())
            assert bool((momentum[core] != 0).any())
        assert (after == before) == (zeta == 0.0)
        assert_zeros(pruning)


def test_new_places_are_random_and_repeatable() -> None:
    found = [started(SET(0.3), 9, period=3, seed=seed) for seed in (1, 1, 2)]
    first = found[0].masks.kept
    for pruning in found:
        pruning.keep_({name: torch.ones_like(mask) for name, mask in first.items()})
        pruning.keep_(first)
        for _ in range(3):
            step(pruning)
    assert kept(found[0]) == kept(found[1])
    assert kept(found[0]) != kept(found[2])


def test_a_connection_that_stays_at_zero_moves_on() -> None:
    pruning = started(SET(0.5, zeta=0.0), 9, period=1)
    with torch.no_grad():
        for weight in pruning.masks.weights.values():
            weight[:, 0] = 0.0
    weight = pruning.masks.weights["0.weight"]
    weight.register_hook(lambda grad: grad.clone().index_fill_(1, torch.tensor([0]), 0.0))
    before = pruning.masks.kept["0.weight"][:, 0].clone()
    step(pruning)
    assert bool(before.any())
    assert not torch.equal(pruning.masks.kept["0.weight"][:, 0], before)
