"""Several real processes against one: the same bits, and the bytes of the formulas."""

import pytest
import torch

from openwork.sketches import (
    PermK,
    rand_k_bytes,
    replicated_bytes,
    ring_bytes,
    sharded_bytes,
)
from tests.sketches.conftest import Ranks
from tests.sketches.processes import GATHERED, LONG, REDUCED, SHARDED, SIZE, STEPS, sketched
from tests.sketches.simulation import simulated

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", GATHERED)
def test_gathered_gradients_are_those_of_one_process_to_the_bit(ranks: Ranks, name: str) -> None:
    expected = simulated(GATHERED[name], len(ranks))
    for results in ranks:
        assert torch.equal(results[f"gathered {name}"].weights, expected)


def test_they_are_so_for_long(ranks: Ranks) -> None:
    expected = simulated(GATHERED["perm-k model"], len(ranks), LONG)
    for results in ranks:
        assert torch.equal(results["gathered for long"].weights, expected)


def test_aggregation_beside_ddp_is_the_same_to_the_bit(ranks: Ranks) -> None:
    for results in ranks:
        assert torch.equal(results["no_sync"].weights, results["gathered perm-k model"].weights)


@pytest.mark.parametrize("name", REDUCED)
def test_reduced_gradients_are_those_of_one_process_to_rounding(ranks: Ranks, name: str) -> None:
    expected = simulated(REDUCED[name], len(ranks))
    for results in ranks:
        torch.testing.assert_close(results[f"reduced {name}"].weights, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SHARDED)
def test_sharded_training_is_that_of_one_process_to_the_bit(ranks: Ranks, name: str) -> None:
    expected = simulated(SHARDED[name], len(ranks))
    for results in ranks:
        assert torch.equal(results[f"sharded {name}"].weights, expected)
        # Before they are gathered, a worker has its share for sure, and not all.
        stale = results[f"sharded {name}"].stale != expected
        assert 0 < stale.sum() <= SIZE - SIZE // len(ranks)


def test_bytes_are_those_of_the_formulas(ranks: Ranks) -> None:
    n = len(ranks)
    expected = {
        "gathered perm-k model": replicated_bytes(SIZE, n, 8),
        "gathered rand-k": rand_k_bytes(30, n, 8),
        "gathered identity": (n - 1) * SIZE * 8,
        "reduced rand-k": ring_bytes(SIZE, n, 8),
        # 56 + 8 + 32 entries of units; the 4 biases of the output go whole.
        "gathered perm-k units": replicated_bytes(96, n, 8) + (n - 1) * 4 * 8,
    }
    for results in ranks:
        for name, step_bytes in expected.items():
            assert results[name].steps == STEPS
            assert results[name].bytes == STEPS * step_bytes
    assert replicated_bytes(SIZE, n) == ring_bytes(SIZE, n) / 2


def test_bytes_between_shards_are_those_of_the_formula_in_the_mean(ranks: Ranks) -> None:
    n = len(ranks)
    model = sketched(SHARDED["perm-k model"], n)
    moved = torch.zeros(n)
    for step in range(STEPS):
        now, then = (
            [set(PermK(n).share(model.key.at(step=at, worker=r, family="model"), SIZE).tolist()) for r in range(n)]
            for at in (step, step + 1)
        )
        moved += torch.tensor([len(now[r] - then[r]) for r in range(n)])
    for rank, results in enumerate(ranks):
        assert results["sharded perm-k model, plain"].bytes == 8 * moved[rank]
        # Momentum travels along; before the first step there is none, but after it there is.
        assert results["sharded perm-k model"].bytes == 2 * 8 * moved[rank]
    mean = sum(results["sharded perm-k model, plain"].bytes for results in ranks) / n / STEPS
    assert mean == pytest.approx(sharded_bytes(SIZE, n, 8), rel=0.05)
    assert sharded_bytes(SIZE, n) == ring_bytes(SIZE, n) / (2 * n)


def test_what_goes_wrong_is_one_sentence_on_every_worker(ranks: Ranks) -> None:
    n = len(ranks)
    expected = {
        "workers": f"ValueError: 'model': PermK of {n + 1} workers on {n} processes; start {n + 1} processes",
        "outside": "ValueError: PermKAggregator: '1.weight' has a gradient where step 0 of worker RANK keeps nothing; "
        "compute all of the loss from the sketched module's outputs, and call reduce_ before the key advances",
        "resumed workers": f"ValueError: the checkpoint was written with {n + 1} workers and this run has {n} workers",
        "resumed seed": "ValueError: the checkpoint was written with seed 4 and this run has seed 3, so that its draws "
        "would be others; resume it with seed 4, or start a new run from its weights",
        "sharded units": "ValueError: ShardedPermK: '1.bias' has no owner; sketch all parameters that learn with PermK",
        "layers sharded": "ValueError: '1.weight' is a shard (DTensor), which cannot be sketched outside of its layer",
        "compressed": "TypeError: compress: model must wrap a SketchedModule, got Linear; wrap it in one first",
        "compressed worker": "ValueError: compress: the key is that of worker 1, and one reduction needs one draw",
    }
    for rank, results in enumerate(ranks):
        messages = results["errors"].messages
        for name, start in expected.items():
            assert messages[name].startswith(start.replace("RANK", str(rank)))
        assert "key (seed, step) is not the same on all workers" in messages["seed"]
        assert results["errors"].steps == 0
