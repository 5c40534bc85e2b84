"""What a report says about sketched training: the loss under the law, pruned models, traffic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from openwork.files import Json
from openwork.report.read import RunFolder, number, table

# What is drawn of the masks of one ratio.
SPREAD = ("mean", "min", "first_quartile", "median", "third_quartile", "max")


@dataclass(frozen=True)
class Traffic:
    """Bytes that each worker would send for one step.

    Args:
        size: Numbers in the model.
        workers: How many there are, in each column.
        bytes: By the name of the scheme, one number for each column.
    """

    size: float
    workers: Sequence[float]
    bytes: Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class SketchContents:
    """What a report says about sketched training.

    Args:
        law: Of the sketch; empty while the run is not finished, as all that follows.
        keep: Ratio of the finished network; None while there is none.
        rule: By which it was chosen.
        loss: Under the law, of the finished run or else at the last epoch.
        stderr: Of that loss.
        draws: From which it was estimated.
        masks: At each ratio of the prune curve.
        ratios: Of the prune curve, rising.
        curve: By the name of the measure, and of the statistic over masks, one number for each ratio.
        traffic: None where there is none.
        delta: Sizes of the sparse delta, by name; empty where there is none.
    """

    law: str
    keep: float | None
    rule: str
    loss: float | None
    stderr: float | None
    draws: float | None
    masks: float | None
    ratios: Sequence[float]
    curve: Mapping[str, Mapping[str, Sequence[float | None]]]
    traffic: Traffic | None
    delta: Mapping[str, float | None]


def read_sketch(run: RunFolder) -> SketchContents | None:
    """What the files of a run say about its sketches; None if it was trained without.

    Args:
        run: Its files.
    """
    end = run.final if run.final is not None and "sketched_loss" in run.final else run.records[-1]
    if number(end, "sketched_loss") is None:
        return None
    said = table(run.final or {}, "sketch")
    points = [point for point in _list(said.get("prune_curve")) if isinstance(point, Mapping)]
    rising = sorted((ratio, n) for n, point in enumerate(points) if (ratio := number(point, "ratio")) is not None)
    measures = [name for name in (points[0] if points else {}) if name != "ratio"]
    delta = table(said, "delta")
    return SketchContents(
        law=str(said.get("law", "")),
        keep=number(said, "keep"),
        rule=str(said.get("rule", "")),
        loss=number(end, "sketched_loss"),
        stderr=number(end, "sketched_loss_stderr"),
        draws=number(end, "sketched_draws"),
        masks=number(said, "masks"),
        ratios=[ratio for ratio, _ in rising],
        curve={
            name: {key: [number(table(points[n], name), key) for _, n in rising] for key in SPREAD} for name in measures
        },
        traffic=_traffic(table(said, "traffic")),
        delta={key: number(delta, key) for key in delta},
    )


def _traffic(said: Mapping[str, Json]) -> Traffic | None:
    size, sent = number(said, "size"), table(said, "bytes")
    workers = _numbers(said.get("workers"))
    if size is None or not sent or None in workers:
        return None
    return Traffic(size, [n for n in workers if n is not None], {name: _numbers(sent[name]) for name in sent})


def _list(value: Json) -> Sequence[Json]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else []


def _numbers(value: Json) -> list[float | None]:
    return [one if isinstance(one, int | float) and not isinstance(one, bool) else None for one in _list(value)]


__all__ = ["SPREAD", "SketchContents", "Traffic", "read_sketch"]
