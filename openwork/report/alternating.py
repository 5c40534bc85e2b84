"""What a report says about alternating minimization: objective, links, couplings, restarts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from openwork.files import Json
from openwork.report.read import RunFolder, number, table

# What is drawn of every layer.
OF_LAYERS = ("link_residual", "coupling_gap", "weight_norm")


@dataclass(frozen=True)
class AlternatingContents:
    """What a report says about alternating minimization.

    Args:
        sweeps: Done.
        restarts: Sweeps, or blocks, that were done again without inertia.
        sweep_seconds: Of one sweep on average, its evaluation included; None where no times are known.
        chosen_sweep: Whose weights the finished network has; None while there is none, as all that follows.
        refitted: Whether the last layer was refitted afterwards, where that lowered the validation loss.
        zero_inputs: Inputs that the network does not read.
        informative: Inputs that matter, those it reads and all; empty where nobody knows, as the next one.
        noise: The same of inputs that do not matter.
        layers: By the name of the measure, one list for each layer, with a number for each record.
    """

    sweeps: float | None
    restarts: float | None
    sweep_seconds: float | None
    chosen_sweep: float | None
    refitted: bool
    zero_inputs: Sequence[float]
    informative: Sequence[float]
    noise: Sequence[float]
    layers: Mapping[str, Sequence[Sequence[float | None]]]


def read_alternating(run: RunFolder) -> AlternatingContents | None:
    """What the files of a run say about its sweeps; None if it was trained otherwise.

    Args:
        run: Its files.
    """
    last = run.records[-1]
    if number(last, "surrogate_loss") is None:
        return None
    said, inputs = table(run.final or {}, "alternating"), table(run.final or {}, "inputs")
    sweeps, seconds = number(last, "sweep"), number(last, "seconds")
    return AlternatingContents(
        sweeps=sweeps,
        restarts=number(last, "restarts"),
        sweep_seconds=seconds / sweeps if sweeps and seconds is not None else None,
        chosen_sweep=number(said, "chosen_sweep"),
        refitted=said.get("refitted") is True,
        zero_inputs=_numbers(said.get("zero_inputs")),
        informative=_numbers(inputs.get("informative")),
        noise=_numbers(inputs.get("noise")),
        layers={name: _layers(run.records, name) for name in OF_LAYERS},
    )


def _layers(records: Sequence[Mapping[str, Json]], name: str) -> list[list[float | None]]:
    found = [_numbers(record.get(name)) for record in records]
    return [
        [values[layer] if layer < len(values) else None for values in found] for layer in range(max(map(len, found)))
    ]


def _numbers(value: Json) -> list[float]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return []
    return [one for one in value if isinstance(one, int | float) and not isinstance(one, bool)]


__all__ = ["OF_LAYERS", "AlternatingContents", "read_alternating"]
