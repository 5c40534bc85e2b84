"""Every law keeps the contract, and refuses what it cannot draw."""

from collections.abc import Callable

import pytest
import torch

from openwork.sketches import (
    Bernoulli,
    Diagonal,
    Group,
    Identity,
    Key,
    Mixture,
    Nested,
    PermK,
    Pool,
    RandK,
    RandomProjection,
    RightProjection,
    Sketch,
    Whole,
)
from openwork.testing import check_sketch

LAWS: dict[str, Sketch] = {
    "identity": Identity(),
    "rand_k": RandK(2),
    "bernoulli": Bernoulli(0.4),
    "bernoulli_each": Bernoulli(torch.tensor([0.3, 1.0, 0.5, 0.6, 0.8]).double()),
    "nested": Nested((0.25, 0.5, 1.0)),
    "mixture": Mixture((Identity(), RandK(2)), (0.25, 0.75)),
    "perm_k": PermK(2),
    "perm_multiset": PermK(10),
    "perm_shares": PermK(2, (0.3, 0.7)),
    "group": Group(RandK(1), 2),
    "pool": Pool.of(PermK(2), Key(0), 5, 4),
    "random_projection": RandomProjection(2),
    "right_projection": RightProjection(2),
}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS.keys())
def test_contract(law: Sketch) -> None:
    check_sketch(law, 5, draws=300)


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "rand_0": (lambda: RandK(0), "RandK: keep must be at least 1 entry, got 0"),
    "rand_ratio": (lambda: RandK(1.5), r"a fraction in \(0, 1\], got 1.5"),
    "rand_above": (lambda: RandK(4).sample(Key(0), 3), "RandK: keep=4 entries of 3; take at most 3"),
    "rand_above_constants": (lambda: RandK(4).constants(3), "RandK: keep=4 entries of 3"),
    "bernoulli_0": (lambda: Bernoulli(0.0), r"Bernoulli: p must be in \(0, 1\], got 0.0; an entry that is never kept"),
    "bernoulli_nan": (lambda: Bernoulli(float("nan")), r"Bernoulli: p must be in \(0, 1\], got nan"),
    "bernoulli_entry": (lambda: Bernoulli(torch.tensor([0.5, 0.0])), r"p must be in \(0, 1\], got 0.0"),
    "bernoulli_matrix": (lambda: Bernoulli(torch.ones(2, 2)), r"a number or a vector, got shape \(2, 2\)"),
    "bernoulli_size": (lambda: Bernoulli(torch.ones(2)).sample(Key(0), 3), "p has 2 entries for vectors of 3"),
    "nested_0": (lambda: Nested((0.0, 1.0)), r"Nested: ratios must be in \(0, 1\], got 0.0"),
    "nested_top": (lambda: Nested((0.5, 0.75)), "the largest ratio must be 1"),
    "nested_none": (lambda: Nested(()), "the largest ratio must be 1"),
    "nested_weights": (lambda: Nested((0.5, 1.0), (0.5, 0.6)), "Nested: weights must sum to 1, got 1.1"),
    "nested_count": (lambda: Nested((0.5, 1.0), (1.0,)), "weights must be 2 probabilities, got 1"),
    "mixture_sum": (lambda: Mixture((Identity(), RandK(1)), (0.5, 0.4)), "Mixture: weights must sum to 1, got 0.9"),
    "mixture_0": (lambda: Mixture((Identity(), RandK(1)), (1.0, 0.0)), "weights must be above 0, got 0.0"),
    "mixture_nan": (
        lambda: Mixture((Identity(), RandK(1)), (float("nan"), 1.0)),
        "Mixture: weights must be above 0, got nan",
    ),
    "mixture_none": (lambda: Mixture((), ()), "weights must be 1 probabilities, got 0"),
    "perm_0": (lambda: PermK(0), "PermK: workers must be at least 1, got 0"),
    "perm_worker": (lambda: PermK(2).sample(Key(0, worker=2), 4), "PermK: worker 2 of 2; workers count from 0"),
    "perm_shares": (lambda: PermK(2, (0.5, 0.6)), "PermK: shares must sum to 1, got 1.1"),
    "perm_shares_0": (lambda: PermK(2, (1.0, 0.0)), "PermK: shares must be above 0"),
    "perm_shares_count": (lambda: PermK(3, (0.5, 0.5)), "PermK: shares must be 3 probabilities, got 2"),
    "group_0": (lambda: Group(Identity(), 0), "a block must have at least 1 entry, got groups=0"),
    "group_gap": (lambda: Group(Identity(), torch.tensor([0, 2])), "numbered 0, 1, ... without gaps"),
    "group_negative": (lambda: Group(Identity(), torch.tensor([0, -1])), "numbered 0, 1, ... without gaps"),
    "group_size": (
        lambda: Group(Identity(), torch.tensor([0, 1])).inclusion(3),
        "groups has 2 entries for vectors of 3",
    ),
    "group_rand": (lambda: Group(RandK(3), 5).sample(Key(0), 10), "RandK: keep=3 entries of 2"),
    "rank_0": (lambda: RandomProjection(0), "RandomProjection: rank must be at least 1, got 0"),
    "rank_above": (lambda: RandomProjection(4).sample(Key(0), 3), "RandomProjection: rank=4 in 3 dimensions"),
    "right_0": (lambda: RightProjection(0), "RightProjection: rank must be at least 1, got 0"),
    "right_above": (lambda: RightProjection(4).constants(3), "RightProjection: rank=4 in 3 dimensions"),
    "pool_none": (lambda: Pool(()), "weights must be 1 probabilities, got 0"),
    "pool_count": (lambda: Pool.of(PermK(3), Key(0), 6, 4), "a positive multiple of 3 complementary draws, got 4"),
    "pool_zero": (lambda: Pool.of(RandK(1), Key(0), 6, 2), "Pool: no draw keeps entry .*; take more draws"),
    "pool_sizes": (lambda: Pool((Diagonal(torch.ones(2)), Diagonal(torch.ones(3)))), r"of one size, got \[2, 3\]"),
    "pool_size": (lambda: Pool((Diagonal(torch.ones(2)),)).sample(Key(0), 3), "draws are of vectors of 2, not of 3"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_labels_of_another_type_are_refused() -> None:
    with pytest.raises(TypeError, match=r"Group: law must be a diagonal sketch .*, got RandomProjection\(rank=2\)"):
        Group(RandomProjection(2), 2)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"Mixture: sketches\[1\] must be a diagonal sketch"):
        Mixture((Identity(), RandomProjection(2)), (0.5, 0.5))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"RandK: keep must be a whole number .*, got '3'"):
        RandK("3")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"Group: groups must be an int64 vector, got torch.float32 of shape \(2,\)"):
        Group(Identity(), torch.ones(2))
    with pytest.raises(TypeError, match=r"Group: groups must be a length of blocks or a tensor, got 2\.5"):
        Group(Identity(), 2.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"PermK: workers must be a whole number of workers, got 2\.5"):
        PermK(2.5)  # pyright: ignore[reportArgumentType]


def test_laws_with_tensors_are_equal_by_value() -> None:
    p, labels = torch.tensor([0.5, 1.0]), torch.tensor([0, 1])
    assert Bernoulli(0.5) == Bernoulli(0.5) != Bernoulli(0.6)
    assert Bernoulli(p) == Bernoulli(p.clone()) != Bernoulli(0.5)
    assert Group(RandK(1), labels) == Group(RandK(1), labels.clone()) != Group(RandK(2), labels)
    assert Group(RandK(1), 2) == Group(RandK(1), 2) != Group(RandK(1), labels)
    assert len({Bernoulli(p), Bernoulli(p.clone()), Group(RandK(1), labels), Group(RandK(1), labels.clone())}) == 2


def test_bernoulli_of_one_number_and_of_equal_numbers_agree() -> None:
    key = Key(0, backend="hash")
    each = Bernoulli(torch.full((50,), 0.3, dtype=torch.float64))
    assert torch.equal(Bernoulli(0.3).sample(key, 50).weights, each.sample(key, 50).weights)


def test_nested_draws_are_prefixes() -> None:
    law = Nested((0.2, 0.6, 1.0), (0.5, 0.25, 0.25))
    assert law.inclusion(5).tolist() == [1.0, 0.5, 0.5, 0.25, 0.25]
    lengths = set[int]()
    for step in range(40):
        kept = law.sample(Key(0, step=step), 5).kept
        lengths.add(int(kept.sum()))
        assert kept.tolist() == sorted(kept.tolist(), reverse=True)
    assert lengths == {1, 3, 5}


def test_a_mixture_keeps_the_scale_of_its_components() -> None:
    law = Mixture((Identity(), RandK(2)), (0.5, 0.5))
    draws = [law.sample(Key(0, step=step), 6) for step in range(40)]
    dense = [isinstance(draw, Whole) for draw in draws]
    assert 0 < sum(dense) < 40
    assert all(draw.weights.unique().tolist() == [0, 3] for draw in draws if isinstance(draw, Diagonal))


def test_groups_stay_together() -> None:
    labels = torch.tensor([2, 0, 1, 0, 2, 1])
    for step in range(10):
        weights = Group(RandK(1), labels).sample(Key(0, step=step), 6).weights  # pyright: ignore[reportAttributeAccessIssue]
        (kept,) = labels[weights != 0].unique().tolist()
        assert torch.equal(weights, torch.where(labels == kept, 3.0, 0.0).double())


def test_blocks_are_consecutive_and_the_last_is_shorter() -> None:
    law = Group(RandK(1), 3)
    assert law.count(8) == 3
    seen = {tuple(law.sample(Key(0, step=step), 8).kept.tolist()) for step in range(40)}  # pyright: ignore[reportAttributeAccessIssue]
    assert seen == {tuple(at // 3 == block for at in range(8)) for block in range(3)}
