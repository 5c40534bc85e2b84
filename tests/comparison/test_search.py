"""Settings to try, and the choice among them."""

import math
from dataclasses import asdict, dataclass

import pytest
from tiny_comparison import Largest, Plain
from typing_extensions import override

from openwork.comparison import Cell, Method, Searched, methods
from openwork.comparison.search import best, candidates, with_settings


@dataclass(frozen=True)
class Two(Largest):
    """Two fields to choose, of which one is a tuple elsewhere."""

    momentum: float = 0.5
    hidden: tuple[int, ...] = (3, 4)

    @override
    def ranges(self) -> dict[str, tuple[float, float]]:
        return {"lr": (0.01, 1.0), "momentum": (0.5, 0.9)}


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_candidates_are_the_method_itself_and_others_spread_over_its_ranges(count: int) -> None:
    found = candidates(Two(), count)
    assert found[0] == Two()
    assert len(set(found)) == len(found) == count
    assert candidates(Two(), count) == found
    assert count == 1 or candidates(Two(), count, seed=1) != found
    for name, (low, high) in Two().ranges().items():
        places = [math.log(getattr(one, name) / low) / math.log(high / low) for one in found[1:]]
        # One in each part of the range; settings are rounded.
        assert [int(place * (count - 1) + 1e-3) for place in sorted(places)] == [*range(count - 1)]


@pytest.mark.parametrize("name", methods.__all__)
def test_every_method_with_something_to_tune_has_as_many_trials(name: str) -> None:
    method: Method = getattr(methods, name)()
    found = candidates(method, 8)
    assert len(set(found)) == len(found) == (8 if method.ranges() else 1)


def test_nothing_to_choose() -> None:
    assert candidates(Plain(), 5) == [Plain()]


def trial(number: int, accuracy: float | None, loss: float, zeros: float = 0.5) -> Searched:
    return Searched(Cell("m", {"lr": number}, 1.0, 0, 1, trial=number), accuracy, loss, zeros, 1.0)


@pytest.mark.parametrize(
    ("trials", "chosen"),
    [
        ([trial(0, 0.5, 1.0), trial(1, 0.7, 2.0), trial(2, 0.6, 0.1)], 1),
        ([trial(0, 0.5, 1.0), trial(1, 0.5, 0.5)], 1),
        ([trial(0, 0.5, 1.0), trial(1, 0.5, 1.0)], 0),
        ([trial(0, None, 1.0), trial(1, None, 0.3)], 1),
        ([trial(0, 0.5, 1.0), trial(1, 0.9, 0.1, zeros=0.4), trial(2, 0.6, 0.9, zeros=0.46)], 2),
        ([trial(0, 0.5, 1.0), trial(1, 0.9, 0.1, zeros=0.4)], 0),
        # The method as it is has failed.
        ([trial(1, 0.8, 1.0), trial(2, 0.9, 0.1, zeros=0.1)], 2),
    ],
    ids=["accuracy", "then loss", "then the first", "no classes", "not by removing less", "as it is", "it failed"],
)
def test_the_best_is_chosen(trials: list[Searched], chosen: int) -> None:
    assert best(trials) == {"lr": chosen}


def test_settings_come_back_from_a_database() -> None:
    assert with_settings(Two(), {**asdict(Two(lr=0.3)), "hidden": [5]}) == Two(lr=0.3, hidden=(5,))


def test_trials_come_back_from_a_database() -> None:
    one = trial(3, 0.5, 1.0)
    assert Searched.from_json(one.to_json()) == one
