"""What shrinking has brought is said as it is, and why if it is nothing."""

from dataclasses import replace

import pytest

from openwork.metrics import Latency, LatencyComparison, Spread
from openwork.shrinking import Certificate, ShrinkReport
from openwork.shrinking.report import Width
from openwork.training import Gains
from openwork.training.gains import _why

CERTIFICATE = Certificate(0.0, 1e-5, "float32", (2,), 2, 2, 0, "2.13", "cpu")
REPORT = ShrinkReport((100, 40), (400, 160), (Width("a", ("a",), 32, 11),), {}, (), 0, (), {}, CERTIFICATE)


def compared(batch: int, before: float, after: float) -> LatencyComparison:
    def latency(ms: float) -> Latency:
        return Latency(Spread(ms, ms, ms), 5, 10, batch, 1, "cpu", False)

    speedup = before / after
    return LatencyComparison(
        {"before": latency(before), "after": latency(after)},
        {"before": Spread(1, 1, 1), "after": Spread(speedup, speedup, speedup)},
    )


@pytest.mark.parametrize(
    ("report", "macs", "times", "said"),
    [
        (REPORT, (1000, 400), ((1.0, 0.5), (64.0, 32.0)), []),
        (
            replace(REPORT, params=(100, 100)),
            (1000, 1000),
            ((1.0, 1.0), (64.0, 64.0)),
            ["the zeros fill no whole unit"],
        ),
        (
            REPORT,
            (1000, 400),
            ((1.0, 1.0), (12.8, 6.4)),
            ["at batch 1 it is bound by launches: 1 ms, where a sample of a batch of 128 takes 0.1 ms"],
        ),
        (
            REPORT,
            (1000, 400),
            ((1.0, 0.5), (64.0, 63.0)),
            [
                "at batch 128 it is most likely bound by memory: there are 2.5 times fewer MACs",
                "1 width is no multiple of 8",
            ],
        ),
        (
            REPORT,
            (1000, 990),
            ((1.0, 0.5), (64.0, 63.0)),
            ["at batch 128 nothing could become faster"],
        ),
        (
            REPORT,
            (1000, 400),
            ((1.0, 0.5), (256.0, 256.0)),
            ["at batch 128 a sample takes longer than one alone", "1 w"],
        ),
    ],
)
def test_why_there_is_no_gain(
    report: ShrinkReport, macs: tuple[int, int], times: tuple[tuple[float, float], ...], said: list[str]
) -> None:
    latency = [compared(batch, *pair) for batch, pair in zip((1, 128), times, strict=True)]
    found = _why(report, macs, latency)
    assert len(found) == len(said), found
    assert all(sentence.startswith(begin) for sentence, begin in zip(found, said, strict=True)), found


def test_predictions_that_differ_are_counted() -> None:
    gains = Gains(REPORT, (10, 4), ("aten.x",), (compared(1, 1, 1),), {"test_accuracy": (0.5, 0.25)}, 8, 2, ("so",))
    assert gains.to_json()["same_predictions"] is False
    text = str(gains)
    assert "10 => 4 (40.0%) MACs" in text
    assert "not counted: aten.x" in text
    assert "2 of 8 predictions differ" in text
    assert "test accuracy 50.00% => 25.00%" in text
    assert "no gain: so" in text
