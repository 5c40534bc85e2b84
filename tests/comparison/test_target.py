"""Steering the strength to a target: by definition of the target, on curves of every shape and with real trainings."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_comparison import Largest
from tiny_comparison import task as tiny_task
from torch import Tensor, nn

from openwork.comparison import Result, Task, compare, timing
from openwork.comparison.target import MOST_PROBES, TOLERANCE, Probe, Target, nearest, next_strength
from openwork.data import Data, Split
from openwork.metrics import Latency, LatencyComparison, Spread, macs
from openwork.models import mlp

Curve = Callable[[float], float | None]
# Multiply-accumulate operations in a millisecond, where a test says how long a network takes.
PACE = 1000


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


def test_a_step_near_the_least_strength_is_found() -> None:
    # As where whole groups are cut, at hardly any of the weights.
    def stairs(strength: float) -> float:
        return 1.0 if strength < 1.06 else 0.5 if strength < 1.064 else 0.4

    for least, found in ((1.0, 0.5), (0.0, 0.4)):
        best = nearest(probes := steer(stairs, 0.5, 2.0, least))
        assert best is not None and probes[best].reached == found / 0.5


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


# -- real trainings -------------------------------------------------------------------------------------------------


def samples(seed: int) -> Data:
    """Three classes in 40 features, each of which says a little less than the one before."""
    generator = torch.Generator().manual_seed(1)
    targets = torch.arange(240) % 3
    means = torch.randn(3, 40, generator=generator) * 2 * 0.93 ** torch.arange(40)
    split = Split(torch.randn(240, 40, generator=generator) + means[targets], targets)
    parts = [split.take(torch.arange(*rows)) for rows in ((0, 160), (160, 200), (200, 240))]
    del seed
    return Data("fading", train=parts[0], valid=parts[1], test=parts[2], classes=3)


def task() -> Task:
    """Single features and units are less than a twentieth of the network."""
    return Task("fading", lambda seed: mlp((40, 64, 3), seed=seed), samples, epochs=8, batch_size=40)


def timeless(result: Result) -> Result:
    return replace(result, seconds=0, memory_mib=0, latency_ms=None, curves={})


def by_arithmetic(models: Mapping[str, nn.Module], example: Tensor, *, seconds: float) -> LatencyComparison:
    """In place of a clock, which no test can foresee."""
    del seconds
    times = {name: macs(model, example).total / PACE for name, model in models.items()}
    dense = next(iter(times.values()))
    return LatencyComparison(
        {name: Latency(Spread(t, t, t), 1, 1, 1, 1, "cpu", False) for name, t in times.items()},
        {name: Spread(dense / t, dense / t, dense / t) for name, t in times.items()},
    )


@pytest.mark.parametrize("name", ["ramda", "subgradient_group"])
def test_half_of_the_arithmetic_is_met_by_the_strength_alone(name: str, tmp_path: Path) -> None:
    dense = 40 * 64 + 64 * 3
    (row,) = table = compare(task(), [name], target="macs=0.5", seeds=1, out=tmp_path / "steered")
    assert row.notes == () and row.strength is not None and row.macs is not None
    assert row.macs.mean == pytest.approx(dense / 2, rel=TOLERANCE)
    assert 1 < len(table.results) <= MOST_PROBES
    # It is the network that the method gives at this strength, and nothing was done to it.
    alone = compare(task(), [name], strengths=[row.strength.mean], seeds=1, out=tmp_path / "alone")
    (chosen,) = (r for r in table.results if r.cell.strength == row.strength.mean)
    assert [timeless(chosen)] == [timeless(r) for r in alone.results]


def test_a_time_is_met_where_it_follows_the_arithmetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "compare_latency", by_arithmetic)
    (row,) = table = compare(task(), ["subgradient_group"], target="latency_ms=1.1", seeds=1, out=tmp_path / "c")
    assert row.notes == () and row.latency_ms is not None and row.macs is not None
    assert row.latency_ms.mean == row.macs.mean / PACE == pytest.approx(1.1, rel=TOLERANCE)
    assert 1 < len(table.results) <= MOST_PROBES
    assert all(r.latency_ms == (r.macs[0] / PACE, r.macs[1] / PACE) for r in table.results)


def test_a_time_that_the_dense_network_does_not_take_is_not_met(tmp_path: Path) -> None:
    table = compare(tiny_task(), {"largest": Largest()}, target="latency_ms=1e9", seeds=1, out=tmp_path / "c")
    (note,) = table[0].notes
    assert "latency_ms=1e+09 was not met" in note
    assert all(result.latency_ms is not None for result in table.results)
