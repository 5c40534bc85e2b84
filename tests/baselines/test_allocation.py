"""How many entries of each weight are kept."""

from math import prod

import pytest
import torch

from openwork.baselines.allocation import counts, layer_densities, shares

SHAPES = {"first": (6, 1, 5, 5), "second": (16, 6, 5, 5), "third": (120, 400), "last": (10, 120)}


def naive_erk(density: float, kernel: bool) -> dict[str, float]:
    """The paper in its own words: scale 1 - (n + m + w + h) / (n m w h) so that the total is right, dense where > 1."""
    dense: list[str] = []
    while True:
        budget = density * sum(prod(s) for s in SHAPES.values())
        weighted = 0.0
        for name, shape in SHAPES.items():
            if name in dense:
                budget -= prod(shape)
            else:
                some = shape if kernel else shape[:2]
                weighted += sum(some) / prod(some) * prod(shape)
        found: dict[str, float] = {}
        for name, shape in SHAPES.items():
            some = shape if kernel else shape[:2]
            found[name] = 1.0 if name in dense else budget / weighted * sum(some) / prod(some)
        if max(found.values()) <= 1:
            return found
        top = max((name for name in SHAPES if name not in dense), key=lambda name: found[name])
        dense.append(top)


@pytest.mark.parametrize("density", [0.01, 0.05, 0.1, 0.3, 0.9])
@pytest.mark.parametrize("layers", ["er", "erk"])
def test_erdos_renyi_is_the_papers(density: float, layers: str) -> None:
    found = layer_densities(SHAPES, density, layers)  # pyright: ignore[reportArgumentType]
    assert found == pytest.approx(naive_erk(density, layers == "erk"))
    total = sum(prod(s) for s in SHAPES.values())
    assert sum(found[name] * prod(s) for name, s in SHAPES.items()) == pytest.approx(density * total)


def test_small_layers_are_dense_before_others_are() -> None:
    found = layer_densities(SHAPES, 0.2, "erk")
    assert found["first"] == 1
    assert found["third"] < 0.2 < found["last"] <= 1
    assert set(layer_densities(SHAPES, 1.0, "erk").values()) == {1.0}


def test_uniform_keeps_the_first_layer_and_equal_does_not() -> None:
    assert layer_densities(SHAPES, 0.1, "uniform") == {"first": 1.0, "second": 0.1, "third": 0.1, "last": 0.1}
    assert set(layer_densities(SHAPES, 0.1, "equal").values()) == {0.1}


@pytest.mark.parametrize("density", [0.01, 0.123, 0.29, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("layers", ["equal", "er", "erk"])
def test_whole_numbers_meet_the_density_within_one_entry(density: float, layers: str) -> None:
    weights = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    found = counts(weights, density, layers)  # pyright: ignore[reportArgumentType]
    exact = layer_densities(SHAPES, density, layers)  # pyright: ignore[reportArgumentType]
    total = sum(prod(s) for s in SHAPES.values())
    assert abs(sum(found.values()) - density * total) <= 0.5
    for name, shape in SHAPES.items():
        assert 1 <= found[name] <= prod(shape)
        assert abs(found[name] - exact[name] * prod(shape)) < 1


def test_one_entry_of_each_stays() -> None:
    assert shares({"a": 10, "b": 1000}, {"a": 1e-6, "b": 1e-6}) == {"a": 1, "b": 1}
    assert shares({"a": 100}, {"a": 0.29}) == {"a": 29}
