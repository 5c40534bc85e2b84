"""How long a forward pass takes, measured so that the noise of the machine shows."""

import math
import statistics
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from openwork.forward_pass import arguments, check_module, evaluating, first_line, run

# A quartile of fewer rounds says nothing; more of them than this only make each round shorter, and so noisier.
FEWEST_ROUNDS, MOST_ROUNDS = 5, 30

# Of the budget, what is spent on calls that are not recorded.
WARM_UP = 0.2


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of what was measured in each round.

    Args:
        median: Half of the rounds are below.
        low: A quarter of the rounds are below.
        high: A quarter of the rounds are above.
    """

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass.

    Args:
        ms: Milliseconds per call, over rounds.
        rounds: How many rounds.
        calls: Calls in each round, whose mean is the time of the round.
        batch: Length of the first axis of the first input tensor; None if no input has an axis.
        threads: Threads that torch computes with on the CPU.
        device: Such as ``"cpu"`` or ``"cuda:0"``.
        compiled: Whether the model ran under ``torch.compile``.
    """

    ms: Spread
    rounds: int
    calls: int
    batch: int | None
    threads: int
    device: str
    compiled: bool


@dataclass(frozen=True)
class LatencyComparison:
    """Times of several models, measured in turn.

    Args:
        latencies: Of each model, by the name it was given.
        speedups: Time of the first model over the time of each, round by round: above 1 is faster than the first.
    """

    latencies: Mapping[str, Latency]
    speedups: Mapping[str, Spread]


def latency_ms(
    model: nn.Module,
    example_inputs: object,
    *,
    seconds: float = 2.0,
    threads: int | None = None,
    compiled: bool = False,
) -> Latency:
    """Measure the forward pass of ``model`` in evaluation mode, without gradients.

    Results of separate calls differ by whatever the machine did meanwhile: to say which of two models is faster, use
    ``compare_latency``, which says how it is done.

    Args:
        model: Any module on a CPU or on CUDA.
        example_inputs: A tensor; a tuple or list of positional arguments; or a dictionary of keyword arguments.
        seconds: About how long to measure, > 0.
        threads: Threads on the CPU, >= 1; None leaves torch's.
        compiled: Measure ``torch.compile(model)``.

    Returns:
        Median and quartiles, and the conditions under which they hold.

    Raises:
        TypeError: If ``model`` is no module.
        ValueError: As ``compare_latency``.
    """
    measured = _compare("latency_ms", {"model": model}, example_inputs, seconds, threads, compiled)
    return measured.latencies["model"]


def compare_latency(
    models: Mapping[str, nn.Module],
    example_inputs: object,
    *,
    seconds: float = 4.0,
    threads: int | None = None,
    compiled: bool = False,
) -> LatencyComparison:
    """Measure several models in turn, so that whatever slows the machine down slows all of them.

    After a warm-up, every round times each model over as many calls as fill its share of the round, in an order that
    turns around from round to round. On CUDA, calls follow each other without waiting for the device, and its own
    events take the time. Mixed precision and other modes around the call hold. Models, thread count and random numbers
    are as before afterwards; compiled code of earlier calls is dropped.

    Args:
        models: Any modules on one device, by names of the caller's choice.
        example_inputs: For all of them: a tensor; a tuple or list of positional arguments; or a dictionary of keyword
            arguments; on the device of the models.
        seconds: About how long to measure, > 0, all models together; compiling, and models that take longer than that
            for a few calls, come on top.
        threads: Threads on the CPU, >= 1; None leaves torch's.
        compiled: Measure ``torch.compile(model)``.

    Returns:
        Times and speedups by name.

    Raises:
        TypeError: If a model is no module.
        ValueError: If there are no models or no example inputs, a model does not run on them, ``seconds`` or
            ``threads`` is out of range, or the models are on different devices or on one that is neither a CPU nor
            CUDA.
    """
    return _compare("compare_latency", models, example_inputs, seconds, threads, compiled)


def _compare(
    place: str,
    models: Mapping[str, nn.Module],
    example_inputs: object,
    seconds: float,
    threads: int | None,
    compiled: bool,
) -> LatencyComparison:
    """What both functions share.

    Raises:
        ValueError: If an argument is out of range.
    """
    if not models:
        raise ValueError(f"{place}: models is empty, so there is nothing to measure; pass a dictionary of modules")
    for model in models.values():
        check_module(place, model)
    args, kwargs = arguments(place, example_inputs)
    if not 0 < seconds < math.inf:
        raise ValueError(f"{place}: seconds must be > 0 and finite, got {seconds}; a few seconds per model are enough")
    if threads is not None and threads < 1:
        raise ValueError(f"{place}: threads must be >= 1, got {threads}; None leaves the number that torch has")
    tensors = [*_tensors((args, kwargs))]
    device = _device(place, models, tensors)
    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(evaluating(model))
        stack.enter_context(_threads(threads))
        stack.enter_context(torch.inference_mode())
        if device.type == "cuda":
            stack.enter_context(torch.cuda.device(device))
        ready = _ready(place, [*models.values()], args, kwargs, compiled)
        calls, times = _rounds(
            [partial(model, *args, **kwargs) for model in ready],
            seconds,
            _seconds_on_cuda if device.type == "cuda" else _seconds_on_cpu,
        )
        threads_used = torch.get_num_threads()
    batch = next((len(tensor) for tensor in tensors if tensor.ndim), None)
    return LatencyComparison(
        {
            name: Latency(
                _spread([1000 * t for t in of_model]), len(of_model), count, batch, threads_used, str(device), compiled
            )
            for name, count, of_model in zip(models, calls, times, strict=True)
        },
        {
            name: _spread([first / t for first, t in zip(times[0], of_model, strict=True)])
            for name, of_model in zip(models, times, strict=True)
        },
    )


def _tensors(value: object) -> Iterator[Tensor]:
    """Tensors in nested containers, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors([*value.values()])
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


def _device(place: str, models: Mapping[str, nn.Module], inputs: Sequence[Tensor]) -> torch.device:
    """The device that computes; there may be a few tensors on the CPU beside it.

    Raises:
        ValueError: If there are several, or it cannot be timed.
    """
    weights = (tensor for model in models.values() for tensor in (*model.parameters(), *model.buffers()))
    devices = {tensor.device for tensor in (*weights, *inputs)}
    computing = sorted(map(str, devices - {torch.device("cpu")})) or ["cpu"]
    if len(computing) > 1:
        raise ValueError(
            f"{place}: models and inputs are on {' and '.join(computing)}, whose times do not compare; "
            "move them to one device"
        )
    device = torch.device(computing[0])
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"{place}: measures on a CPU and on CUDA, got a model on {device}; move it to one of them")
    return device


@contextmanager
def _threads(count: int | None) -> Generator[None]:
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


def _ready(
    place: str, models: Sequence[nn.Module], args: tuple[Any, ...], kwargs: dict[str, Any], compiled: bool
) -> list[Callable[..., object]]:
    """The models, each known to run, compiled if asked for.

    Raises:
        ValueError: If one does not run or compile.
    """
    for model in models:
        run(place, model, args, kwargs)
    if not compiled:
        return [*models]
    # Torch compiles only so many instances of a class, and runs further ones eagerly: begin to count anew.
    torch.compiler.reset()
    ready: list[Callable[..., object]] = []
    for model in models:
        ready.append(torch.compile(model))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the compiler's own parts
                ready[-1](*args, **kwargs)
        except Exception as error:
            raise ValueError(
                f"{place}: {type(model).__name__} does not compile ({first_line(error)}); "
                "measure it with compiled=False"
            ) from error
    return ready


def _rounds(
    calls: Sequence[Callable[[], object]], seconds: float, timed: Callable[[Callable[[], object], int], float]
) -> tuple[list[int], list[list[float]]]:
    """Time each of ``calls`` in turn.

    Returns:
        Calls per round, and seconds per call in every round.
    """
    each = [_seconds_per_call(call, WARM_UP * seconds / len(calls), timed) for call in calls]
    left = (1 - WARM_UP) * seconds
    rounds = max(FEWEST_ROUNDS, min(MOST_ROUNDS, int(left / sum(each))))
    counts = [max(1, round(left / rounds / len(calls) / one)) for one in each]
    times: list[list[float]] = [[] for _ in calls]
    for number in range(rounds):
        order = range(len(calls)) if number % 2 == 0 else reversed(range(len(calls)))
        for i in order:
            times[i].append(timed(calls[i], counts[i]) / counts[i])
    return counts, times


def _seconds_per_call(
    call: Callable[[], object], budget: float, timed: Callable[[Callable[[], object], int], float]
) -> float:
    """Warm up by longer and longer series of calls; the last one tells how long a call takes."""
    count = 1
    while (elapsed := timed(call, count)) < budget / 2:
        count *= 2
    return elapsed / count


def _seconds_on_cpu(call: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return time.perf_counter() - start


def _seconds_on_cuda(call: Callable[[], object], count: int) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for _ in range(count):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def _spread(values: Sequence[float]) -> Spread:
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)
