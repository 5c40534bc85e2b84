"""Steering the strength to a target: by definition of the target, on curves of every shape."""

import math
from collections.abc import Callable

import pytest

from openwork.comparison.target import MOST_PROBES, TOLERANCE, Probe, Target, nearest, next_strength

Curve = Callable[[float], float | None]


def steer(curve: Curve, target: float, first: float, least: float = 0.0) -> list[Probe]:
    probes: list[Probe] = []
    while (strength := next_strength(probes, first, least)) is not None:
        value = curve(strength)
        probes.append(Probe(strength, None if value is None else value / target))
    return probes


CURVES: dict[str, Curve] = {
    "pruner": lambda s: min(1.0, 1 / s),
    "pruner with biases": lambda s: min(1.0, 1 / s + 0.012),
    "penalty": lambda s: 0.01 + 0.99 / (1 + (s / 0.003) ** 1.5),
    "steep penalty": lambda s: 0.001 + 0.999 / (1 + (s / 0.003) ** 6),
    "plateau": lambda s: 1.0 if s < 0.01 else 1 / (1 + 100 * (s - 0.01)),
    "not monotone": lambda s: (1 / (1 + s / 0.01)) * (1 + 0.6 * math.sin(4 * math.log(s))),
    "diverges": lambda s: None if s > 0.2 else 1 / (1 + s / 0.002),
}


@pytest.mark.parametrize("first", [1e-5, 3e-3, 1.0, 300.0])
@pytest.mark.parametrize("target", [0.5, 0.1, 0.03])
@pytest.mark.parametrize("name", CURVES)
def test_targets_are_met(name: str, target: float, first: float) -> None:
    probes = steer(CURVES[name], target, first)
    best = nearest(probes)
    assert best is not None
    reached = probes[best].reached
    assert reached is not None and abs(reached - 1) <= TOLERANCE
    assert len(probes) <= MOST_PROBES
    assert len({probe.strength for probe in probes}) == len(probes)


def test_a_first_strength_that_is_right_is_the_only_one() -> None:
    assert len(steer(CURVES["pruner"], 0.1, 10.0)) == 1


def test_the_next_strength_depends_on_what_was_tried_and_not_on_its_order() -> None:
    probes = [Probe(1.0, 5.0), Probe(8.0, 0.3), Probe(4.0, None)]
    assert next_strength(probes, 1.0) == next_strength(probes[::-1], 1.0)


@pytest.mark.parametrize(
    "curve",
    [lambda s: 1.0 if s < 0.01 else 0.0, lambda s: 0.9 if s < 0.01 else 0.02, lambda s: None if s > 0.01 else 1.0],
    ids=["all or nothing", "a jump", "fails where it would be sparse"],
)
def test_a_target_within_a_jump_is_given_up(curve: Curve) -> None:
    probes = steer(curve, 0.1, 1e-4)
    assert len(probes) < MOST_PROBES
    best = nearest(probes)
    assert best is not None
    reached = probes[best].reached
    assert reached is not None and abs(reached - 1) > TOLERANCE
    # The jump is between the two strengths that were tried last, or next to them.
    assert any(0.98 < probe.strength / 0.01 < 1.02 for probe in probes)


def test_a_curve_that_never_gets_there_is_given_up() -> None:
    probes = steer(lambda s: 0.5, 0.1, 1.0)
    assert len(probes) == MOST_PROBES


@pytest.mark.parametrize("first", [1.0, 1.5, 30.0])
def test_no_strength_is_below_the_least(first: float) -> None:
    # The dense network is below the target already, as where a time is asked for that it takes anyway.
    probes = steer(lambda s: 0.5 / s if s >= 1 else None, 1.0, first, least=1.0)
    assert min(probe.strength for probe in probes) == 1.0
    assert len(probes) <= 6
    best = nearest(probes)
    assert best is not None and probes[best] == Probe(1.0, 0.5)


def test_nothing_is_nearest_if_all_failed() -> None:
    assert nearest([Probe(1.0, None), Probe(2.0, 0.0)]) is None


@pytest.mark.parametrize("text", ["density=0.1", "macs=0.5", "latency_ms=2"])
def test_targets_are_written_as_they_are_read(text: str) -> None:
    assert str(Target.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("size=0.1", "target: there is no measure 'size'; there are density, macs, latency_ms, such as density=0.1"),
        ("density=2", "target: density must be between 0 and 1, a fraction of the dense network's, got 2"),
        ("density=0", "target: density must be between 0 and 1, a fraction of the dense network's, got 0"),
        ("latency_ms=-1", "target: latency_ms must be above 0, got -1"),
        ("density=little", "target: 'density=little' must be a measure and a number, such as density=0.1"),
        ("density", "target: 'density' must be a measure and a number, such as density=0.1"),
    ],
)
def test_no_target(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match="target") as error:
        Target.parse(text)
    assert str(error.value) == sentence
