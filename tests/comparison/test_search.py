"""Settings to try, and the choice among them."""

from dataclasses import asdict, dataclass
from itertools import product

import pytest
from tiny_comparison import Largest, Plain
from typing_extensions import override

from openwork.comparison import Cell, Searched
from openwork.comparison.search import best, candidates, with_settings


@dataclass(frozen=True)
class Two(Largest):
    """Two fields to choose, of which one is a tuple elsewhere."""

    momentum: float = 0.5
    hidden: tuple[int, ...] = (3, 4)

    @override
    def choices(self) -> dict[str, list[float]]:
        return {"lr": [0.1, 0.2, 0.3], "momentum": [0.0, 0.5]}


@pytest.mark.parametrize("count", [1, 3, 6, 10])
def test_candidates_are_the_method_itself_and_others_of_the_grid(count: int) -> None:
    found = candidates(Two(), count)
    assert found[0] == Two()
    assert len(set(found)) == len(found) == min(count, 6)
    grid = {Two(lr=lr, momentum=m) for lr, m in product([0.1, 0.2, 0.3], [0.0, 0.5])}
    assert set(found) <= grid
    assert candidates(Two(), count) == found
    assert count in (1, 6, 10) or candidates(Two(), count, seed=1) != found


def test_a_method_off_its_grid_comes_on_top() -> None:
    assert len(candidates(Two(lr=0.7), 10)) == 7


def test_nothing_to_choose() -> None:
    assert candidates(Plain(), 5) == [Plain()]


def trial(number: int, accuracy: float | None, loss: float) -> Searched:
    return Searched(Cell("m", {"lr": number}, 1.0, 0, 1, trial=number), accuracy, loss, 0.5, 1.0)


@pytest.mark.parametrize(
    ("trials", "chosen"),
    [
        ([trial(0, 0.5, 1.0), trial(1, 0.7, 2.0), trial(2, 0.6, 0.1)], 1),
        ([trial(0, 0.5, 1.0), trial(1, 0.5, 0.5)], 1),
        ([trial(0, 0.5, 1.0), trial(1, 0.5, 1.0)], 0),
        ([trial(0, None, 1.0), trial(1, None, 0.3)], 1),
    ],
    ids=["accuracy", "then loss", "then the first", "loss without classes"],
)
def test_the_best_is_chosen(trials: list[Searched], chosen: int) -> None:
    assert best(trials) == {"lr": chosen}


def test_settings_come_back_from_a_database() -> None:
    assert with_settings(Two(), {**asdict(Two(lr=0.3)), "hidden": [5]}) == Two(lr=0.3, hidden=(5,))


def test_trials_come_back_from_a_database() -> None:
    one = trial(3, 0.5, 1.0)
    assert Searched.from_json(one.to_json()) == one
