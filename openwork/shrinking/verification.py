"""Proof that a shrunk model computes what the original does: outputs compared, on the example and on fresh inputs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from openwork.files import Json
from openwork.forward_pass import arguments, first_line, tensors
from openwork.wiring import Traced, prepared

# Largest difference of outputs, relative to the largest output.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
# Where the original's own rounding is larger than that, as when large numbers cancel, this many times as much is
# allowed, but never more than LARGEST: a model that rounds so coarsely proves nothing.
SLACK, LARGEST = 4.0, 1e-3
# How far the largest entry must be above the second for a prediction to count, and more where rounding is coarser.
MARGIN = 1e-4
BATCHES = (1, 3, 5)


class NotEqual(ValueError):
    """A shrunk model that does not compute what the original does."""


@dataclass(frozen=True)
class Certificate:
    """What was compared, and how large the differences were.

    Args:
        difference: Largest ``max |difference| / max |output|`` of all inputs.
        tolerance: What was allowed, at most.
        dtype: Precision in which it was compared.
        batches: Batch sizes of the inputs; the first is that of the example.
        samples: Outputs whose predictions were compared.
        predictions: Of those, how many had a margin large enough to count, and agreed.
        seed: Of the fresh inputs.
        torch: Version of torch.
        device: Where it ran.
    """

    difference: float
    tolerance: float
    dtype: str
    batches: tuple[int, ...]
    samples: int
    predictions: int
    seed: int
    torch: str
    device: str

    def to_json(self) -> dict[str, Json]:
        """Plain values."""
        return cast("dict[str, Json]", {**asdict(self), "batches": list(self.batches)})


def coarsest(traced: Traced) -> torch.dtype | None:
    """The least precise floating type in which a model computes, whatever its parameters are; None if there is none."""
    values = [value for node in traced.graph.nodes for value in tensors(node.meta.get("val"))]
    types = {value.dtype for value in values if value.is_floating_point()}
    return max(types, key=lambda dtype: TOLERANCES.get(dtype, 1.0), default=None)


def verify(
    before: nn.Module, after: nn.Module, example_inputs: object, *, dtype: torch.dtype | None = None, seed: int = 0
) -> Certificate:
    """Compare outputs on the example and on fresh random inputs of other batch sizes, in evaluation mode.

    Fresh numbers are normal with the mean and spread of the example's, fresh integers uniform between its smallest and
    largest; what holds only zeros and ones, truth values or infinities, such as a mask, is repeated row by row. A batch
    size on which the original does not run is left out.

    Args:
        before: The original.
        after: The shrunk model.
        example_inputs: As for ``wiring.trace``.
        dtype: The least precise type in which the original computes; default that of its parameters.
        seed: Of the fresh inputs.

    Returns:
        The certificate.

    Raises:
        NotEqual: If the shrunk model fails, or differs by more than ``TOLERANCES`` and the original's own rounding in
            single precision explain, or predicts otherwise where the margin exceeds ``MARGIN`` and what may be off; it
            names the largest difference and the first module that shows one.
    """
    args, kwargs = arguments("shrink", example_inputs)
    generator = torch.Generator().manual_seed(seed)
    parameter = next((p for p in before.parameters() if p.is_floating_point()), None)
    dtype = dtype or (torch.get_default_dtype() if parameter is None else parameter.dtype)
    tolerance = TOLERANCES.get(dtype, 5e-2)
    largest = tolerance
    worst, sizes, samples, certain = 0.0, list[int](), 0, 0
    with prepared(before), prepared(after), torch.no_grad():
        for batch in (None, *BATCHES):
            given = (args, kwargs) if batch is None else fresh((args, kwargs), batch, generator)
            if batch is not None and not _runs(before, given):
                continue
            expected = outputs(before, given)
            found = _outputs_of_shrunk(after, given)
            difference, same, count, counted = _compare(expected, found, tolerance)
            allowed = tolerance
            if difference > tolerance and dtype == torch.float32:
                allowed = max(tolerance, min(LARGEST, SLACK * _rounding(before, given, expected)))
                _, same, count, counted = _compare(expected, found, allowed)
            if not difference <= allowed or not same:
                _raise(before, after, given, difference, allowed, same)
            largest = max(largest, allowed)
            worst, samples, certain = max(worst, difference), samples + count, certain + counted
            sizes.append(batch_size(given) if batch is None else batch)
    return Certificate(
        difference=worst,
        tolerance=largest,
        dtype=str(dtype).removeprefix("torch."),
        batches=tuple(sizes),
        samples=samples,
        predictions=certain,
        seed=seed,
        torch=str(torch.__version__),
        device="cpu" if parameter is None else str(parameter.device),
    )


Given = tuple[tuple[Any, ...], dict[str, Any]]


def batch_size(given: Given) -> int:
    """Length of the first dimension of the first tensor that has one."""
    return next((x.shape[0] for x in tensors(given) if x.ndim), 0)


def fresh(given: Given, batch: int, generator: torch.Generator) -> Given:
    """Random inputs like others, of another batch size; ``verify`` says how."""
    size = batch_size(given)

    def make(leaf: object) -> object:
        if not isinstance(leaf, Tensor) or leaf.numel() == 0:
            return leaf
        batched = leaf.ndim > 0 and leaf.shape[0] == size
        shape = (batch, *leaf.shape[1:]) if batched else tuple(leaf.shape)
        if leaf.is_floating_point() and bool(leaf.isfinite().all()):
            spread = float(leaf.double().std()) if leaf.numel() > 1 else 1.0
            noise = torch.randn(shape, generator=generator, dtype=torch.float64)
            return (noise * spread + float(leaf.double().mean())).to(leaf.device, leaf.dtype)
        if not leaf.is_floating_point() and leaf.dtype != torch.bool and not bool(((leaf == 0) | (leaf == 1)).all()):
            low, high = int(leaf.min()), int(leaf.max())
            return torch.randint(low, high + 1, shape, generator=generator).to(leaf.device, leaf.dtype)
        return leaf[torch.arange(batch, device=leaf.device) % size] if batched else leaf

    return pytree.tree_map(make, given)


def _runs(model: nn.Module, given: Given) -> bool:
    try:
        model(*given[0], **given[1])
    except Exception:
        # A model may insist on its batch size; what it cannot do need not be reproduced.
        return False
    return True


def outputs(model: nn.Module, given: Given) -> list[Tensor]:
    """All tensors that a model gives, in order."""
    return tensors(model(*given[0], **given[1]))


def _rounding(model: nn.Module, given: Given, expected: Sequence[Tensor]) -> float:
    """How far outputs in single precision are from those in double precision; 0 if the model has none of these."""

    def double(leaf: object) -> object:
        return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    try:
        exact = outputs(deepcopy(model).double(), pytree.tree_map(double, given))
    except Exception:
        # Some models insist on their precision: nothing more than usual is allowed then.
        return 0.0
    pairs = [(a, b) for a, b in zip(exact, expected, strict=True) if b.is_floating_point()]
    noise = max((relative(a, b) for a, b in pairs if a.shape == b.shape), default=0.0)
    return noise if isfinite(noise) else 0.0


def _outputs_of_shrunk(model: nn.Module, given: Given) -> list[Tensor]:
    with _watched(model) as (entered, _):
        try:
            return outputs(model, given)
        except Exception as error:
            raise NotEqual(
                f"shrink: the smaller model does not run ({first_line(error)}), in "
                f"{entered[-1] or type(model).__name__!r}; most likely a width is fixed in the code there: leave it "
                "out with exclude, and tell us"
            ) from error


def _compare(expected: Sequence[Tensor], found: Sequence[Tensor], tolerance: float) -> tuple[float, bool, int, int]:
    """Largest relative difference, whether predictions agree, how many there were, and how many had a margin."""
    if [tuple(x.shape) for x in expected] != [tuple(x.shape) for x in found]:
        return float("inf"), False, 0, 0
    worst, same, count, counted = 0.0, True, 0, 0
    for a, b in zip(expected, found, strict=True):
        if a.numel() == 0:
            continue
        if not a.is_floating_point():
            worst = worst if torch.equal(a, b) else float("inf")
            continue
        worst = max(worst, relative(a, b))
        if a.ndim > 1 and a.shape[-1] > 1:
            top = a.topk(2, dim=-1)
            # Two entries that are each off by what is allowed may change places.
            off = 2 * tolerance * float(a.double().abs().nan_to_num(posinf=0.0).max())
            clear = top.values[..., 0] - top.values[..., 1] > max(MARGIN, off)
            same = same and bool((b.argmax(-1) == top.indices[..., 0])[clear].all())
            count, counted = count + clear.numel(), counted + int(clear.sum())
    return worst, same, count, counted


def relative(expected: Tensor, found: Tensor) -> float:
    """``max |found - expected| / max |expected|``; not-a-numbers and infinities must stand at the same places."""
    expected, found = expected.double(), found.double()
    finite = expected.isfinite()
    if not torch.equal(expected.nan_to_num(), torch.where(finite, expected, found).nan_to_num()):
        return float("inf")
    difference = (found - expected)[finite].abs()
    if not bool(difference.isfinite().all()):
        return float("inf")
    largest = float(difference.max()) if difference.numel() else 0.0
    scale = float(expected[finite].abs().max()) if difference.numel() else 0.0
    return largest / scale if scale > 0 else (0.0 if largest == 0 else float("inf"))


def _raise(before: nn.Module, after: nn.Module, given: Given, difference: float, tolerance: float, same: bool) -> None:
    culprit = _culprit(before, after, given, tolerance)
    what = f"by {difference:.1e} of the largest output, where {tolerance:.0e} is allowed"
    what += "" if same else ", and predictions change"
    where = f"; the first module that shows it is {culprit!r}" if culprit else ""
    raise NotEqual(f"shrink: the smaller model differs {what}{where}; nothing was changed: leave it out with exclude")


def _culprit(before: nn.Module, after: nn.Module, given: Given, tolerance: float) -> str:
    """The first module, in the order in which they finish, whose output differs although its shape does not."""
    with _watched(before) as (_, expected):
        outputs(before, given)
    with _watched(after) as (_, found):
        outputs(after, given)
    for path, a in expected.items():
        b = found.get(path)
        if b is not None and a.shape == b.shape and a.is_floating_point() and relative(a, b) > tolerance:
            return path
    return ""


@contextmanager
def _watched(model: nn.Module) -> Iterator[tuple[list[str], dict[str, Tensor]]]:
    """Paths of modules in the order in which they are entered, and what each gave last."""
    entered: list[str] = [""]
    given: dict[str, Tensor] = {}

    def enter(path: str) -> Callable[..., None]:
        return lambda *_: entered.append(path)

    def leave(path: str) -> Callable[..., None]:
        def note(_module: nn.Module, _args: object, output: object) -> None:
            first = next(iter(tensors(output)), None)
            if first is not None:
                given[path] = first

        return note

    with ExitStack() as stack:
        for path, module in model.named_modules():
            for handle in (module.register_forward_pre_hook(enter(path)), module.register_forward_hook(leave(path))):
                stack.callback(handle.remove)
        yield entered, given


__all__ = ["Certificate", "Given", "NotEqual", "batch_size", "fresh", "outputs", "relative", "verify"]
