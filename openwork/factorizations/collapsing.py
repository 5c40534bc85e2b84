"""From factors back to plain weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import remove_parametrizations
from torch.utils import _pytree as pytree

from openwork.factorizations.budget import THRESHOLD
from openwork.factorizations.factorization import Part, blocks_of, parts_of
from openwork.forward_pass import arguments, evaluating, run

SWEEP = (THRESHOLD, 1e-5, 1e-3, 1e-2)


@dataclass(frozen=True)
class CollapseReport:
    """What became of factorized weights.

    Args:
        threshold: Groups of smaller size became exactly zero.
        nonzero: Entries that are not zero, by name of the weight.
        total: All entries, by name of the weight.
        sweep: Compression ratio for other thresholds on the size of groups; infinite if nothing would be left.
        change: Largest change of an output on the example inputs; None without these.
    """

    threshold: float
    nonzero: Mapping[str, int]
    total: Mapping[str, int]
    sweep: Mapping[float, float]
    change: float | None

    @property
    def compression_ratio(self) -> float:
        """Entries before over entries that are not zero; infinite if there are none."""
        return _ratio(sum(self.total.values()), sum(self.nonzero.values()))

    @property
    def dead(self) -> tuple[str, ...]:
        """Weights of which nothing is left."""
        return tuple(name for name, count in self.nonzero.items() if not count)

    def __str__(self) -> str:
        total, nonzero = sum(self.total.values()), sum(self.nonzero.values())
        lines = [f"{total:,} weights => {nonzero:,} nonzero, compression ratio {self.compression_ratio:.4g}"]
        lines += [f"  {name}: {self.nonzero[name]:,} of {total:,}" for name, total in self.total.items()]
        lines.append("ratio by threshold: " + ", ".join(f"{t:.2g}: {r:.4g}" for t, r in self.sweep.items()))
        if self.change is not None:
            lines.append(f"outputs changed by at most {self.change:.2g}")
        return "\n".join(lines)


def collapse(model: nn.Module, threshold: float = THRESHOLD, example_inputs: object = None) -> CollapseReport:
    """Put plain weights in the place of factors; groups below a threshold become exactly zero.

    Names and order of the parameters are as they were before ``factorize``. An optimizer has to be built anew.

    Args:
        model: Factorized; changed in place.
        threshold: Groups (entries, units, ranks) of smaller size become zero, >= 0. With 0 the outputs do not change.
        example_inputs: A tensor, a tuple of arguments or a dictionary of keyword arguments that ``model`` accepts, to
            measure how much the outputs change.

    Returns:
        What became of the weights.

    Raises:
        ValueError: If nothing in the model is factorized, the threshold is negative, or the model does not run.
    """
    blocks = blocks_of(model)
    if not blocks:
        raise ValueError(f"collapse: nothing in this {type(model).__name__} is factorized; call factorize first")
    if not threshold >= 0:
        raise ValueError(f"collapse: threshold must be at least 0, got {threshold}; the default is {THRESHOLD:.3g}")
    before = None if example_inputs is None else _outputs(model, example_inputs)
    sizes = [(block.magnitudes().detach(), sum(part.value.numel() for part in block.parts)) for block in blocks]
    total = sum(entries for _, entries in sizes)
    sweep = {t: _ratio(total, sum(float((s >= t).double().mean()) * entries for s, entries in sizes)) for t in SWEEP}
    for block in blocks:
        block.zero_below_(threshold)
    names = [part.name for block in blocks for part in block.parts]
    _plain_(model)
    weights = dict(model.named_parameters(remove_duplicate=False))
    change = None
    if before is not None:
        after = _outputs(model, example_inputs)
        change = max((float((a - b).abs().max()) for a, b in zip(before, after, strict=True) if a.numel()), default=0.0)
    return CollapseReport(
        threshold=threshold,
        nonzero={name: int(weights[name].detach().count_nonzero()) for name in names},
        total={name: weights[name].numel() for name in names},
        sweep=sweep,
        change=change,
    )


def _ratio(total: float, left: float) -> float:
    return total / left if left else float("inf")


def _outputs(model: nn.Module, example_inputs: object) -> list[Tensor]:
    """All tensors that the model gives in evaluation mode, in order."""
    args, kwargs = arguments("collapse", example_inputs)
    with torch.no_grad(), evaluating(model):
        found: list[Tensor] = []
        pytree.tree_map_only(Tensor, found.append, run("collapse", model, args, kwargs))
        return found


def _plain_(model: nn.Module) -> None:
    """Put the products in the place of all factors; a shared weight stays one parameter."""
    made: dict[int, nn.Parameter] = {}
    for part in parts_of(model):
        key = id(part.factors[0])
        if key not in made:
            made[key] = nn.Parameter(part.value.detach().clone())
        _restore(part, made[key])


def _restore(part: Part, weight: nn.Parameter) -> None:
    owner, local, order = part.owner, part.local, part.factorization.order
    # A deep copy shares the class that torch made for the parametrization, and removing takes the weight off the class.
    kind = type(owner)
    own = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
    owner.__class__ = cast("type[nn.Module]", type(kind.__name__, kind.__bases__, own))
    remove_parametrizations(owner, local, leave_parametrized=True)
    setattr(owner, local, weight)
    # It was put behind the others, and the order of the parameters is part of what a model is.
    parameters = owner._parameters  # pyright: ignore[reportPrivateUsage]
    for name in order:
        if name in parameters:
            parameters[name] = parameters.pop(name)


__all__ = ["SWEEP", "CollapseReport", "collapse"]
