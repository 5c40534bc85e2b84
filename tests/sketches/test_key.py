from itertools import product

import pytest

from openwork.sketches import Key


def test_counters_give_numbers_of_their_own() -> None:
    keys = [
        Key(seed, step, worker, family, draw)
        for seed, step, worker, family, draw in product((0, 1, 2**63 + 1), range(4), range(4), ("", "a", "b"), range(4))
    ]
    assert len({key.number for key in keys}) == len(keys)
    assert all(0 <= key.number < 2**64 for key in keys)


def test_a_key_has_the_same_number_for_ever() -> None:
    """Checkpoints store counters, not masks: a changed number would change resumed runs."""
    assert Key(0).number == 8695987549771912286
    assert Key(3, step=5, worker=2, family="ffn", draw=1).number == 4757275800540309015


def test_at_changes_what_it_names() -> None:
    key = Key(1, 2, 3, "x", 4, "hash")
    assert key.at() == key
    assert key.at(step=0, worker=0) == Key(1, 0, 0, "x", 4, "hash")
    assert key.at(family="", draw=0) == Key(1, 2, 3, "", 0, "hash")


@pytest.mark.parametrize("name", ["step", "worker", "draw"])
def test_negative_counters_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"Key: {name} must be at least 0, got -1"):
        Key(0).at(**{name: -1})  # pyright: ignore[reportArgumentType]


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="backend must be 'hash' or 'torch', got 'numpy'"):
        Key(0, backend="numpy")  # pyright: ignore[reportArgumentType]
