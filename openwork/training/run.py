"""What every method gives, whatever it does inside."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from openwork.files import Json, State

Metrics = dict[str, Json]


@dataclass(frozen=True, eq=False)
class Run:
    """A training run that something else drives: ``fit``, a comparison, a test.

    A unit is the smallest piece of work that can be stopped at: a step, a sweep, a round.

    Args:
        model: What is trained. Its weights are exactly structured only after ``finish``.
        example: Inputs of a few samples, ``(N, ...)``, for tracing the model.
        units: Of the whole run, at least 1.
        period: Units between two reports.
        advance: Trains that many units, no further than the next report, and returns its numbers if it got there,
            else nothing.
        finish: Ends the run, wherever it is, and hands over a plain module with exactly structured weights, in
            evaluation mode.
        evaluate: Numbers of a module in place of the finished one, which it is itself or a smaller form of, those on
            the test samples included; to be called only at the end, since nothing may be chosen by them.
        state_dict: Tensors and plain values to go on from, bit for bit; references, so save or copy them at once.
        load_state_dict: Goes on from what ``state_dict`` gave.
    """

    model: nn.Module
    example: Tensor
    units: int
    period: int
    advance: Callable[[int], Metrics]
    finish: Callable[[], nn.Module]
    evaluate: Callable[[nn.Module], Metrics]
    state_dict: Callable[[], Mapping[str, State]]
    load_state_dict: Callable[[Mapping[str, object]], None]
