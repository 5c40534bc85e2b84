"""What a report says about weights that are products of factors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from openwork.files import Json
from openwork.report.read import RunFolder, number, table


@dataclass(frozen=True)
class Threshold:
    """What would come of another threshold below which weights are zero.

    Args:
        threshold: As text.
        compression_ratio: Weights over those that are left; None if none are.
        accuracy: Of what is left, on the validation samples; None where there are no classes.
        loss: Of what is left, on the validation samples.
    """

    threshold: str
    compression_ratio: float | None
    accuracy: float | None
    loss: float | None


@dataclass(frozen=True)
class FactorsContents:
    """What a report says about the factors.

    Args:
        planned: Collapse budget that the schedule of the learning rate comes to; None where there is no such number.
        spent: How much of it training has spent.
        onset: First epoch with exact zeros; None if there was none.
        dead: Weights that nothing can revive.
        thresholds: What would come of other thresholds; empty while the run is not finished.
        compression: Compression ratio over time, for each threshold.
    """

    planned: float | None
    spent: float | None
    onset: float | None
    dead: float | None
    thresholds: Sequence[Threshold]
    compression: Mapping[str, Sequence[float | None]]


def read_factors(run: RunFolder) -> FactorsContents | None:
    """What the files of a run say about factors; None if its weights have none.

    Args:
        run: Its files.
    """
    last = run.records[-1]
    names = list(table(last, "compression_at"))
    if not names:
        return None
    tried = table(run.final or {}, "thresholds")
    return FactorsContents(
        planned=number(last, "budget_planned"),
        spent=number(last, "budget_spent"),
        onset=number(last, "onset_epoch"),
        dead=number(last, "dead"),
        thresholds=[
            Threshold(
                name,
                number(table(tried, name), "compression_ratio"),
                number(table(tried, name), "valid_accuracy"),
                number(table(tried, name), "valid_loss"),
            )
            for name in tried
        ],
        compression={name: [number(table(record, "compression_at"), name) for record in run.records] for name in names},
    )


def alarms(run: RunFolder) -> list[str]:
    """What went wrong in a training, as it said itself."""
    said: Json = run.records[-1].get("alarms")
    if isinstance(said, str) or not isinstance(said, Sequence):
        return []
    sentences = [text for text in said if isinstance(text, str) and text]
    return [f"{text[0].upper()}{text[1:]}." for text in sentences]


__all__ = ["FactorsContents", "Threshold", "alarms", "read_factors"]
