import pytest
import torch

from openwork.sketches import Diagonal, Group, Identity, Key, PermK, Pool, RandK


def test_whole_permutations_have_the_identity_as_mean() -> None:
    pool = Pool.of(PermK(3), Key(0), 10, 12)
    assert len(pool) == 12
    assert torch.allclose(pool.mean(10), torch.ones(10).double(), rtol=0, atol=1e-15)
    for start in range(0, 12, 3):
        complete = torch.stack([pool[start + at].weights for at in range(3)])  # pyright: ignore[reportAttributeAccessIssue]
        assert torch.equal(complete.mean(0), torch.ones(10).double())
    grouped = Pool.of(Group(PermK(2), 3), Key(0), 10, 4)
    assert torch.equal(grouped.mean(10), torch.ones(10).double())


def test_members_are_weighted_by_shares() -> None:
    pool = Pool.of(PermK(2, (0.2, 0.8)), Key(0), 5, 6)
    assert pool.probabilities.tolist() == pytest.approx([0.2 / 3, 0.8 / 3] * 3)
    assert torch.allclose(pool.mean(5), torch.ones(5).double(), rtol=0, atol=1e-15)


def test_permutations_differ_and_a_key_names_the_pool() -> None:
    pools = [Pool.of(RandK(4), Key(seed), 8, 5) for seed in (0, 0, 1)]
    rows = [torch.stack([draw.weights for draw in pool if isinstance(draw, Diagonal)]) for pool in pools]
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])
    assert len({tuple(row.tolist()) for row in rows[0]}) > 1


def test_dense_members() -> None:
    pool = Pool((*Pool.of(PermK(2), Key(0), 4, 2).draws, Identity().sample(Key(0), 4)), (0.3, 0.3, 0.4))
    assert torch.equal(pool.mean(4), torch.ones(4).double())
    assert pool.constants(4).smooth == pytest.approx(0.6 * 2 + 0.4)
    assert pool.constants(4).largest == 4


def test_members_come_as_often_as_they_should() -> None:
    pool = Pool(Pool.of(PermK(3), Key(0), 6, 3).draws, (0.2, 0.3, 0.5))
    other = torch.tensor([0.7, 0.2, 0.1]).double()
    draws = 1000
    for probabilities, expected in ((None, pool.probabilities), (other, other)):
        found = [pool.index(Key(1, step=step), probabilities) for step in range(draws)]
        often = torch.tensor(found).bincount(minlength=3) / draws
        assert bool(((often - expected).abs() < 5 * (expected * (1 - expected) / draws).sqrt()).all())


def test_importance_sampling_is_unbiased_and_lowers_the_maximum_to_the_mean() -> None:
    pool = Pool(Pool.of(PermK(3), Key(0), 6, 3).draws, (0.2, 0.3, 0.5))
    smoothness = torch.tensor([1.0, 10.0, 2.0]).double()
    q = pool.importance(smoothness)
    assert torch.allclose(q, torch.tensor([0.2, 3.0, 1.0]).double() / 4.2)
    multipliers = pool.multipliers(q)
    gradients = torch.randn(3, 4, dtype=torch.float64)
    assert torch.allclose((q * multipliers) @ gradients, pool.probabilities @ gradients)
    mean = float(pool.probabilities @ smoothness)
    assert torch.allclose(multipliers * smoothness, torch.full((3,), mean).double())


def test_wrong_probabilities_and_smoothness_are_refused() -> None:
    pool = Pool.of(PermK(2), Key(0), 4, 2)
    with pytest.raises(ValueError, match=r"Pool: probabilities must sum to 1, got 1\.5"):
        pool.multipliers(torch.tensor([0.5, 1.0]))
    with pytest.raises(ValueError, match=r"Pool: smoothness must be 2 numbers above 0, got \[1.0, 0.0\]"):
        pool.importance(torch.tensor([1.0, 0.0]))
