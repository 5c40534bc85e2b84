"""Random numbers: the same everywhere, well distributed, and apart from torch's global state."""

import math

import pytest
import torch

from openwork.sketches import Key
from openwork.sketches.key import Backend, mix
from openwork.sketches.numbers import chosen, normal, permutation, subset, uniform

BACKENDS = pytest.mark.parametrize("backend", ["hash", "torch"])
WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def splitmix64(state: int) -> tuple[int, int]:
    """The next state and the word it gives, as published."""
    state = (state + GOLDEN) & WORD
    z = state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return state, z ^ (z >> 31)


def words(key: Key, n: int) -> list[int]:
    state, found = key.number, []
    for _ in range(n):
        state, word = splitmix64(state)
        found.append(word)
    return found


def test_splitmix64_gives_the_published_numbers() -> None:
    """The first outputs for the seed 1234567, as in reference implementations."""
    key_state, found = 1234567, []
    for _ in range(3):
        key_state, word = splitmix64(key_state)
        found.append(word)
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert mix(1234567) == found[0]


@pytest.mark.parametrize("key", [Key(0, backend="hash"), Key(2**40, 17, 3, "ffn", 5, backend="hash")])
def test_hash_equals_whole_numbers_of_python(key: Key) -> None:
    n = 1000
    expected = words(key, n)
    assert uniform(key, n).tolist() == [(word >> 11) * 2.0**-53 for word in expected]
    signed = [word - (1 << 64) if word >> 63 else word for word in expected]
    assert permutation(key, n).tolist() == sorted(range(n), key=lambda at: signed[at])


@pytest.mark.gpu
@pytest.mark.parametrize("n", [10, 1000, 100_000])
def test_hash_is_the_same_on_a_device(n: int) -> None:
    key = Key(7, step=3, backend="hash")
    assert torch.equal(uniform(key, n, "cuda").cpu(), uniform(key, n))
    assert torch.equal(permutation(key, n, "cuda").cpu(), permutation(key, n))
    assert torch.equal(subset(key, n // 3, n, "cuda").cpu(), subset(key, n // 3, n))
    assert torch.equal(chosen(key, 0.3, n, "cuda").cpu(), chosen(key, 0.3, n))


@BACKENDS
def test_uniform_has_its_mean_and_variance(backend: Backend) -> None:
    n = 200_000
    x = uniform(Key(1, backend=backend), n)
    assert x.dtype == torch.float64
    assert float(x.min()) >= 0 and float(x.max()) < 1
    assert abs(float(x.mean()) - 0.5) < 5 / math.sqrt(12 * n)
    assert abs(float(x.var()) - 1 / 12) < 5 / math.sqrt(180 * n)
    assert abs(float(((x[1:] - 0.5) * (x[:-1] - 0.5)).mean())) < 5 / 12 / math.sqrt(n)


@BACKENDS
def test_normal_has_its_moments(backend: Backend) -> None:
    n = 200_000
    x = normal(Key(1, backend=backend), n)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float((x**power).mean()) - moment) < 5 * math.sqrt(variance / n)


@BACKENDS
def test_permutations_prefer_no_order(backend: Backend) -> None:
    counts = torch.zeros(4, 4)
    draws = 1000
    for step in range(draws):
        order = permutation(Key(2, step=step, backend=backend), 4)
        assert order.sort().values.tolist() == [0, 1, 2, 3]
        counts[torch.arange(4), order] += 1
    assert float((counts / draws - 0.25).abs().max()) < 5 * math.sqrt(0.25 * 0.75 / draws)


@BACKENDS
@pytest.mark.parametrize("p", [0.25, 1e-3, 1.0])
def test_chosen_has_its_frequency(backend: Backend, p: float) -> None:
    n = 100_000
    for probability in (p, torch.full((n,), p, dtype=torch.float64)):
        kept = chosen(Key(3, backend=backend), probability, n)
        assert kept.dtype == torch.bool
        assert abs(float(kept.double().mean()) - p) <= 5 * math.sqrt(p * (1 - p) / n)


@BACKENDS
@pytest.mark.parametrize("k", [0, 1, 9, 1000, 20_000, 39_999, 40_000])
def test_subsets_have_k_members_of_many(backend: Backend, k: int) -> None:
    assert int(subset(Key(4, backend=backend), k, 40_000).sum()) == k


def test_large_subsets_prefer_no_entry_and_no_pair() -> None:
    """The fast way of the generator, over four blocks of entries: how many are kept is hypergeometric in each."""
    n, k, draws = 1 << 14, 6000, 200
    blocks = torch.stack([subset(Key(5, step=step), k, n).view(4, -1).sum(1) for step in range(draws)]).double()
    mean, variance = k / 4, k * 0.25 * 0.75 * (n - k) / (n - 1)
    assert float((blocks.mean(0) - mean).abs().max()) < 5 * math.sqrt(variance / draws)
    assert float((blocks.var(0) / variance - 1).abs().max()) < 5 * math.sqrt(2 / draws)
    covariance = float(((blocks[:, 0] - mean) * (blocks[:, 1] - mean)).mean())
    assert covariance == pytest.approx(-variance / 3, abs=5 * variance / math.sqrt(draws))


@BACKENDS
def test_nothing_touches_the_global_state(backend: Backend) -> None:
    state = torch.get_rng_state()
    key = Key(0, backend=backend)
    for draw in (uniform, normal, permutation):
        draw(key, 20_000)
    subset(key, 7000, 20_000)
    chosen(key, 0.5, 20_000)
    assert torch.equal(torch.get_rng_state(), state)


@BACKENDS
def test_the_global_state_touches_nothing(backend: Backend) -> None:
    key = Key(0, backend=backend)
    first = [uniform(key, 50), normal(key, 50), permutation(key, 50), subset(key, 9000, 20_000)]
    torch.manual_seed(99)
    torch.rand(3)
    second = [uniform(key, 50), normal(key, 50), permutation(key, 50), subset(key, 9000, 20_000)]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
