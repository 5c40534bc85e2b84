"""What shrinking a run's model has brought: arithmetic, time and accuracy before and after, and why if it is little."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import cast

import torch
from torch import Tensor, nn

from openwork.files import Json
from openwork.metrics import LatencyComparison, compare_latency, macs
from openwork.shrinking import ShrinkReport, Shrunk
from openwork.training.run import Metrics, Run

SCHEMA = 1
BATCHES = (1, 128)

# Beside the other files of a run.
SMALL, GAINS = "small.safetensors", "shrink.json"

# A model that is not this much faster is not called faster.
FASTER = 1.05
# At batch 1, how much more a sample may take than in a large batch before what is around the arithmetic counts.
OVERHEAD = 3.0
# Multiples of this fill the registers of processors.
EVEN = 8


@dataclass(frozen=True)
class Gains:
    """What was measured before and after.

    Args:
        report: What shrink did.
        macs: Multiply-accumulate operations of one sample.
        uncounted: Operations whose arithmetic is not among them.
        latency: Times for each batch size; the models are called ``"before"`` and ``"after"``.
        accuracy: Numbers of the run's evaluation that end in ``_accuracy`` or ``_loss``.
        predictions: How many predictions the run's evaluation made.
        differing: How many of them differ; where there are no classes, all agree to the tolerance of the certificate.
        why: Why there is no gain, one sentence each; empty if there is one.
    """

    report: ShrinkReport
    macs: tuple[int, int]
    uncounted: tuple[str, ...]
    latency: tuple[LatencyComparison, ...]
    accuracy: Mapping[str, tuple[float, float]]
    predictions: int
    differing: int
    why: tuple[str, ...]

    def to_json(self) -> dict[str, Json]:
        """Plain values, the content of ``shrink.json``."""
        return {
            "schema": SCHEMA,
            "report": self.report.to_json(),
            "macs": list(self.macs),
            "uncounted": list(self.uncounted),
            "latency": [_entry(compared) for compared in self.latency],
            "accuracy": {key: list(pair) for key, pair in self.accuracy.items()},
            "same_predictions": self.differing == 0,
            "predictions": self.predictions,
            "differing_predictions": self.differing,
            "why": list(self.why),
        }

    def __str__(self) -> str:
        lines = [f"{_ratio(*self.macs, '{:,}')} MACs for a sample"]
        if self.uncounted:
            lines.append(f"not counted: {', '.join(self.uncounted)}")
        for compared in self.latency:
            before, after = compared.latencies["before"], compared.latencies["after"]
            speedup = compared.speedups["after"]
            how = f"{before.device}, {before.threads} thread{'' if before.threads == 1 else 's'}"
            lines.append(
                f"batch {before.batch}: {before.ms.median:.3g} ms => {after.ms.median:.3g} ms, {speedup.median:.2f} "
                f"times as fast (half of the rounds between {speedup.low:.2f} and {speedup.high:.2f}; {how}"
                f"{', compiled' if before.compiled else ''})"
            )
        for key, (before, after) in self.accuracy.items():
            form = "{:.2%}" if key.endswith("_accuracy") else "{:.4g}"
            lines.append(f"{key.replace('_', ' ')} {form.format(before)} => {form.format(after)}")
        if self.predictions:
            lines.append(
                f"all {self.predictions:,} predictions are the same"
                if not self.differing
                else f"{self.differing:,} of {self.predictions:,} predictions differ"
            )
        return "\n".join([*lines, *(f"no gain: {why}" for why in self.why)])


def measure(
    run: Run,
    before: nn.Module,
    shrunk: Shrunk,
    *,
    seconds: float = 4.0,
    threads: int | None = None,
    compiled: bool = False,
    said: Callable[[str], None] = lambda _: None,
) -> Gains:
    """Measure a run's finished model before and after it was shrunk.

    Args:
        run: Whose data both predict.
        before: What its ``finish`` gave.
        shrunk: What ``shrink`` made of that.
        seconds: About how long to measure the times of each batch size, > 0.
        threads: Threads on the CPU, >= 1; None leaves torch's.
        compiled: Also measure both models under ``torch.compile``.
        said: Told what is being done.

    Returns:
        The numbers.

    Raises:
        ValueError: If ``seconds`` or ``threads`` is out of range.
    """
    models = {"before": before, "after": shrunk.model}
    said("counting operations")
    counted = [macs(model, _batch(run.example, 1)) for model in models.values()]
    latency: list[LatencyComparison] = []
    for compiling in (False, True) if compiled else (False,):
        for batch in BATCHES:
            said(f"measuring the time of a batch of {batch}{', compiled' if compiling else ''}")
            inputs = _batch(run.example, batch)
            latency.append(compare_latency(models, inputs, seconds=seconds, threads=threads, compiled=compiling))
    said("evaluating")
    (old, was), (new, now) = (_evaluated(run, model) for model in models.values())
    accuracy = {
        key: (cast("float", old[key]), cast("float", new[key]))
        for key in old
        if key.endswith(("_accuracy", "_loss")) and key in new
    }
    classes = any(key.endswith("_accuracy") for key in accuracy)
    saved = (counted[0].total, counted[1].total)
    return Gains(
        report=shrunk.report,
        macs=saved,
        uncounted=tuple(sorted({*counted[0].uncounted, *counted[1].uncounted})),
        latency=tuple(latency),
        accuracy=accuracy,
        predictions=sum(a.numel() for a in was) if classes else 0,
        differing=sum(int((a != b).sum()) for a, b in zip(was, now, strict=True)) if classes else 0,
        why=tuple(_why(shrunk.report, saved, latency)),
    )


def _batch(example: Tensor, size: int) -> Tensor:
    """The samples of an example, over and over."""
    return example[torch.arange(size, device=example.device) % len(example)]


def _evaluated(run: Run, model: nn.Module) -> tuple[Metrics, list[Tensor]]:
    """Numbers of a model, and what it predicted for each batch."""
    predicted: list[Tensor] = []

    def note(_module: nn.Module, _args: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim > 1:
            predicted.append(output.argmax(-1).cpu())

    handle = model.register_forward_hook(note)
    try:
        return run.evaluate(model), predicted
    finally:
        handle.remove()


def _why(report: ShrinkReport, saved: tuple[int, int], latency: Sequence[LatencyComparison]) -> list[str]:
    """Why there is no gain, as far as the numbers tell."""
    slow = [compared for compared in latency if compared.speedups["after"].median < FASTER]
    if report.params[0] == report.params[1]:
        return [
            "the zeros fill no whole unit, and zeros in single weights make a file smaller (sparse=True), "
            "not the model faster"
        ]
    found: list[str] = []
    less = saved[0] / max(1, saved[1])
    for compared in slow:
        before = compared.latencies["before"]
        others = [c.latencies["before"] for c in latency if c.latencies["before"].compiled == before.compiled]
        small, large = (pick(others, key=lambda one: one.batch or 0) for pick in (min, max))
        each = large.ms.median / (large.batch or 1)
        if small.ms.median < each:
            found.append(
                f"at batch {large.batch} a sample takes longer than one alone: the machine is busy, or has fewer free "
                "cores than threads, so these times say little; measure again with threads=1, or when it is idle"
            )
        elif before.batch == 1 and before.ms.median > OVERHEAD * each:
            found.append(
                f"at batch 1 it is bound by launches: {before.ms.median:.3g} ms, where a sample of a batch of "
                f"{large.batch} takes {each:.3g} ms; the rest is what each operation costs whatever its width"
            )
        elif less < FASTER:
            found.append(
                f"at batch {before.batch} nothing could become faster, since what went does little of the arithmetic: "
                f"{_ratio(*saved, '{:,}')} MACs"
            )
        else:
            found.append(
                f"at batch {before.batch} it is most likely bound by memory: there are {less:.2g} times fewer MACs, "
                "but moving activations, and what is done to each of them, takes the time"
            )
    odd = _odd(report)
    largest = max(latency, key=lambda compared: compared.latencies["before"].batch or 0)
    if odd and less >= FASTER and largest in slow:
        what = "1 width is no multiple" if len(odd) == 1 else f"{len(odd)} widths are no multiples"
        found.append(f"{what} of {EVEN}, which processors like less, such as {odd[0]}; round_to={EVEN} may be faster")
    return list(dict.fromkeys(found))


def _odd(report: ShrinkReport) -> list[str]:
    """New widths that are no multiples, in words."""
    return [
        f"{width.after} of {width.name}" for width in report.widths if width.after < width.before and width.after % EVEN
    ]


def _ratio(before: int, after: int, form: str) -> str:
    share = f" ({after / before:.1%})" if before else ""
    return f"{form.format(before)} => {form.format(after)}{share}"


def _entry(compared: LatencyComparison) -> dict[str, Json]:
    before, after = compared.latencies["before"], compared.latencies["after"]
    return {
        "batch": before.batch,
        "threads": before.threads,
        "compiled": before.compiled,
        "device": before.device,
        "before_ms": asdict(before.ms),
        "after_ms": asdict(after.ms),
        "speedup": asdict(compared.speedups["after"]),
    }


__all__ = ["GAINS", "SMALL", "Gains", "measure"]
