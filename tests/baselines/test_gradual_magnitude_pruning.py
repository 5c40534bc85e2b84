"""The cubic schedule against its formula."""

import pytest

from openwork.baselines import GradualMagnitudePruning
from tests.baselines.loop import best, kept, started, step, weights


@pytest.mark.parametrize("scope", ["global", "layerwise"])
@pytest.mark.parametrize("initial", [0.0, 0.25])
def test_sparsity_follows_the_cube(scope: str, initial: float) -> None:
    steps, every, first, final = 100, 5, 20, 0.1
    pruning = started(
        GradualMagnitudePruning(final, scope, every=every, initial_sparsity=initial),  # pyright: ignore
        steps,
    )
    n = (75 - first) // every
    alive = 72
    for t in range(1, steps + 1):
        step(pruning)
        if first <= t <= first + n * every and (t - first) % every == 0:
            sparsity = (1 - final) + (initial - (1 - final)) * (1 - (t - first) / (n * every)) ** 3
            alive = round((1 - sparsity) * 72)
        assert pruning.masks.alive == alive, t
    assert alive == 7


def test_what_goes_is_the_smallest_of_what_was_left() -> None:
    pruning, dense = started(GradualMagnitudePruning(0.2, "global", every=2), 20), None
    changes = 0
    for _ in range(20):
        before = kept(pruning)
        step(pruning)
        after = kept(pruning)
        if after == before:
            continue
        changes += 1
        assert all(set(after[name]) <= set(before[name]) for name in before)
        # What stays is at least as large as before the step moved it, by very little.
        values = weights(pruning)
        alive = sum(map(len, after.values()))
        assert best({name: value.abs() for name, value in values.items()}, alive) == after
    assert changes == 5
    assert dense is None


def test_it_may_begin_at_once() -> None:
    pruning = started(GradualMagnitudePruning(0.2, begin_at=0.0, end_at=1.0, every=5, initial_sparsity=0.5), 10)
    assert pruning.masks.alive == 36
    for _ in range(10):
        step(pruning)
    assert pruning.masks.alive == 14


def test_the_end_comes_by_magnitude_wherever_it_is() -> None:
    pruning = started(GradualMagnitudePruning(0.1, "global", every=2), 40)
    for _ in range(15):
        step(pruning)
    assert 7 < pruning.masks.alive < 72
    magnitudes = {name: weight.abs() for name, weight in weights(pruning).items()}
    pruning.settle_()
    assert kept(pruning) == best(magnitudes, 7)
