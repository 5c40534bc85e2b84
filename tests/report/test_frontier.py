"""The frontier: which points are on it, and where they are drawn."""

import itertools
import random
import re
from collections.abc import Sequence

import pytest

from openwork.report import frontier_picture
from openwork.report.axes import Axis, wide
from openwork.report.compared import Point, Spread
from openwork.report.marks import COLORS, SHAPES, icon, labels
from openwork.report.scatter import Scatter, spread_text
from openwork.report.summary import COSTS, LOST, Cost, Quality, Step, judge, pareto, reaches, reference
from tests.report.compared import comparison

ACCURACY, LOSS = Quality("accuracy", "Accuracy", "fraction", rising=True), Quality("loss", "Loss", "loss", rising=False)
RATIO, MACS, _ = COSTS


def point(method: str, strength: float, *, failures: tuple[str, ...] = (), **values: float) -> Point:
    return Point(method, strength, 2, {key: Spread(value, 0.01) for key, value in values.items()}, failures)


def beaten(one: tuple[float, float], others: Sequence[tuple[float, float]]) -> bool:
    """Whether another is at least as good in both, and better in one; more is better."""
    return any(other != one and other[0] >= one[0] and other[1] >= one[1] for other in others)


@pytest.mark.parametrize("quality", [ACCURACY, LOSS], ids=["accuracy", "loss"])
@pytest.mark.parametrize("cost", [RATIO, MACS], ids=["ratio", "macs"])
def test_pareto_is_what_nothing_beats(quality: Quality, cost: Cost):
    draw = random.Random(0)
    up, right = (1 if quality.rising else -1), (1 if cost.rising else -1)
    for _ in range(50):
        # On a grid, so that there are ties.
        grid = [(draw.randint(90, 96) / 100, draw.randint(1, 6)) for _ in range(12)]
        found = [point(f"m{n}", 1.0, **{quality.key: good, cost.key: price}) for n, (good, price) in enumerate(grid)]
        signed = [(up * good, right * price) for good, price in grid]
        best = pareto(found, quality, cost)
        assert {p.method for p in best} == {f"m{n}" for n, one in enumerate(signed) if not beaten(one, signed)}
        prices = [p.values[cost.key].mean * right for p in best]
        assert prices == sorted(prices)


def test_what_failed_or_learned_nothing_is_not_on_the_frontier():
    found = [
        point("dense", 0.0, accuracy=0.9, compression=1),
        point("failed", 1.0, accuracy=0.95, compression=5, failures=("seed 1: lost",)),
        point("empty", 2.0, accuracy=0.9 - LOST - 0.01, compression=1000),
        point("unmeasured", 2.0, accuracy=0.99),
    ]
    # What the lost seed would have said is unknown, but what is there still says how good a network can be.
    assert [p.method for p in pareto(found, ACCURACY, RATIO)] == ["dense"]


def test_reference_and_reach():
    found = [
        point("none", 0.5, accuracy=0.99, compression=1),
        point("dense", 0.0, accuracy=0.9, compression=1),
        point("a", 1.0, accuracy=0.895, compression=3),
        point("a", 2.0, accuracy=0.885, compression=6),
        point("a", 3.0, accuracy=0.2, compression=99),
        point("b", 1.0, accuracy=0.86, compression=50),
        point("b", 2.0, accuracy=0.9, compression=70, failures=("seed 0: lost",)),
    ]
    dense = reference(found)
    assert dense is not None and dense.method == "dense"
    reached = {reach.method: reach for reach in reaches(found, ACCURACY)}
    assert list(reached) == ["a", "none", "b"]
    steps = [step and (step.strength, step.compression) for step in reached["a"].steps]
    assert steps == [(1.0, 3), (2.0, 6), (2.0, 6)]
    assert [step and step.strength for step in reached["b"].steps] == [None, None, 1.0]
    # Without numbers on validation samples there is nothing else to choose by.
    assert judge(found, ACCURACY) == "accuracy"
    assert (reached["a"].best, reached["b"].best) == (Step(1.0, 3, 0.895), Step(1.0, 50, 0.86))
    assert reaches(found, LOSS) == [] and reaches(found[2:], ACCURACY) == []


def test_validation_samples_choose_and_test_samples_do_not():
    found = [
        point("dense", 0.0, valid_accuracy=0.92, accuracy=0.9, compression=1),
        point("a", 1.0, valid_accuracy=0.925, accuracy=0.88, compression=2),
        point("a", 2.0, valid_accuracy=0.915, accuracy=0.87, compression=4),  # far below dense on test samples
        point("a", 3.0, valid_accuracy=0.89, accuracy=0.91, compression=8),  # the best on test samples
        point("a", 4.0, valid_accuracy=0.5, accuracy=0.899, compression=16),
        point("b", 1.0, valid_accuracy=0.9, accuracy=0.1, compression=3),
        point("b", 2.0, valid_accuracy=0.9, accuracy=0.9, compression=3),
        point("b", 3.0, valid_accuracy=0.91, accuracy=0.2, compression=3, failures=("seed 0: lost",)),
    ]
    assert judge(found, ACCURACY) == "valid_accuracy"
    a, b = reaches(found, ACCURACY)
    assert (a.method, a.best) == ("a", Step(1.0, 2, 0.88))
    assert a.steps == [Step(2.0, 4, 0.87), Step(2.0, 4, 0.87), Step(3.0, 8, 0.91)]
    assert (b.method, b.best, b.steps[0]) == ("b", Step(1.0, 3, 0.1), None)
    # Test numbers are only shown: with others the same strengths are chosen.
    others = [Point(p.method, p.strength, 2, {**p.values, "accuracy": Spread(0.3)}, p.failures) for p in found]
    chosen = [[step and (step.strength, step.compression) for step in (one.best, *one.steps)] for one in (a, b)]
    assert chosen == [
        [step and (step.strength, step.compression) for step in (one.best, *one.steps)]
        for one in reaches(others, ACCURACY)
    ]
    # One point without such a number, and all are judged by what they have.
    half = [*found[:-1], Point("b", 3.0, 2, {"accuracy": Spread(0.2)}, ())]
    assert judge(half, ACCURACY) == "accuracy" and judge(found, LOSS) == "valid_loss"


@pytest.mark.parametrize(
    ("axis", "most", "ticks"),
    [
        (Axis(0.748, 0.913), 6, [0.75, 0.8, 0.85, 0.9]),
        (Axis(0.9612, 0.9731), 6, [0.962, 0.964, 0.966, 0.968, 0.97, 0.972]),
        (Axis(0.8, 250, log=True), 7, [1, 3, 10, 30, 100]),
        (Axis(900, 130_000, log=True), 7, [1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5]),
        (Axis(0.018, 0.12, log=True), 7, [0.02, 0.03, 0.05, 0.1]),
        (Axis(0.98, 1.31, log=True), 7, [1, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3]),
        (Axis(1, 1e12, log=True), 7, [1, 1e2, 1e4, 1e6, 1e8, 1e10, 1e12]),
    ],
    ids=["accuracy", "close", "ratio", "macs", "latency", "narrow", "many"],
)
def test_ticks_are_round_and_few(axis: Axis, most: int, ticks: list[float]):
    assert axis.ticks(most) == pytest.approx(ticks)


def test_places():
    assert [Axis(1, 100, log=True).at(x) for x in (1, 10, 100, 1e9)] == pytest.approx([0, 50, 100, 100])
    assert [Axis(1, 5, falling=True).at(x) for x in (0, 2, 5)] == pytest.approx([100, 75, 0])
    same = wide([7.0, 7.0], 0.1)
    assert same.low < 7 < same.high and same.at(7) == pytest.approx(50)


def test_marks_tell_dozens_of_methods_apart():
    assert len({icon(n, hollow=False) for n in range(len(COLORS) * len(SHAPES))}) == 42
    assert all(COLORS[n % 6] != COLORS[(n + 1) % 6] for n in range(42))
    assert labels(["a:f", "b:f", "c:g", "d"]) == ["a:f", "b:f", "g", "d"]


@pytest.mark.parametrize(
    ("spread", "unit", "text"),
    [
        (Spread(0.97216, 0.0031), "fraction", "97.22 % ± 0.31"),
        (Spread(24.13, 0.5), "times", "24.1× ± 0.5"),
        (Spread(0.0206, 7.25e-7), "ms", "0.0206 ms ± 0.0000"),
        (Spread(1_500_000, 40_000), "bytes", "1.50 MB ± 0.04"),
        (Spread(1234.5, 1000.0), "count", "1,234 ± 1,000"),
        (Spread(0.31482, 0.0021), "loss", "0.3148 ± 0.0021"),
        (Spread(3.0), "times", "3.00×"),
    ],
    ids=["fraction", "times", "ms", "bytes", "count", "loss", "alone"],
)
def test_a_deviation_has_the_digits_of_its_mean(spread: Spread, unit, text: str):
    assert spread_text(spread, unit).replace("\u202f", " ") == text


def drawn(found: list[Point], cost: Cost = RATIO) -> str:
    names = list(dict.fromkeys(p.method for p in found))
    return Scatter(found, ACCURACY, cost, reference(found), dict(zip(names, labels(names), strict=True)), ["b"]).svg()


FOUND = [
    point("dense", 0.0, accuracy=0.9, compression=1, macs=1000),
    point("a", 1.0, accuracy=0.89, compression=4, macs=500),
    point("a", 2.0, accuracy=0.88, compression=16, macs=100),
    point("b", 1.0, accuracy=0.87, compression=8, macs=1000),
    point("b", 2.0, accuracy=0.1, compression=200, macs=1000),
]


def places(svg: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<svg class="at" x="([\d.]+)%" y="([\d.]+)%">', svg)]


def test_marks_are_where_the_numbers_say():
    at = places(drawn(FOUND))
    assert len(at) == len(FOUND)
    (x0, _), (x1, _), (x2, _), (x3, y3), (x4, y4) = at
    assert x2 - x1 == pytest.approx(x1 - x0, abs=0.03)  # equal ratios, equal steps
    assert x3 == pytest.approx((x1 + x2) / 2, abs=0.03)
    heights = [y for _, y in at[:4]]
    assert [b - a for a, b in itertools.pairwise(heights)] == pytest.approx([heights[1] - heights[0]] * 3, abs=0.03)
    assert (x4, y4) == (100, 100) and y3 < 100  # far below, at the edge
    svg = drawn(FOUND)
    assert svg.count('class="beyond"') == 1 and svg.count('class="ring"') == 3 and svg.count("mark hollow") == 2
    assert svg.count('class="stairs"') == 4  # two steps between three points
    assert "a, strength 2" in svg and "88.00\u202f% ± 1.00" in svg


def test_a_deviation_of_a_cost_is_a_factor_both_ways():
    spread = {"accuracy": Spread(0.88), "compression": Spread(4.0, 4.0)}  # 0 has no logarithm
    svg = drawn([FOUND[0], Point("a", 1.0, 2, spread), *FOUND[3:]])
    x1, x2 = map(float, re.findall(r'class="error" y1="[^"]*" y2="[^"]*" x1="([\d.]+)%" x2="([\d.]+)%"', svg)[1])
    x = places(svg)[1][0]
    assert x - x1 == pytest.approx(x2 - x, abs=0.03) and x2 > x
    assert x2 == pytest.approx(places(svg)[2][0], abs=0.03)  # a factor of 2


def test_a_cost_that_should_be_small_runs_to_the_right():
    x = [x for x, _ in places(drawn(FOUND, MACS))]
    assert x[0] < x[1] < x[2] and x[3] == x[0]


@pytest.mark.parametrize("count", [1, 5])
def test_equal_points_can_be_drawn(count: int):
    found = [point(f"m{n}", 1.0, accuracy=1.0, compression=2) for n in range(count)]
    assert len(places(drawn(found))) == count


def test_no_style_reaches_the_notebook_around_it():
    style = frontier_picture(comparison()["rows"]).split("<style>")[1].split("</style>")[0]
    # Conditions end with a brace too, but begin with @.
    selectors = re.findall(r"(?:^|[{}])\s*([^{}@;]+?)\s*\{", re.sub(r"@[^{]*\{", "{", style))
    parts = [part.strip() for one in selectors for part in re.split(r",(?![^()]*\))", one)]
    assert len(parts) > 30 and ".frontier .methods" in parts
    begins = (".frontier", ".openwork-frontier", ":is(.frontier, .openwork-report) ")
    assert [part for part in parts if part and not part.startswith(begins)] == []


def test_a_notebook_gets_the_picture_alone():
    rows = comparison()["rows"]
    html = frontier_picture(rows)
    assert html.startswith('<div class="openwork-frontier"><style>') and html.endswith("</div>")
    assert html.count("<figure") == 3 and html.count('type="radio"') == 3 and "<script" not in html
    assert ":root" not in html and not re.search(r"https?:|<b>evil", html)
    assert len(html) < 100_000
    with pytest.raises(ValueError, match="frontier_picture: rows holds no network; let the comparison train"):
        frontier_picture([])
    with pytest.raises(ValueError, match=r"frontier_picture: rows\[0\] must have a method"):
        frontier_picture([{"seeds": 3}])
