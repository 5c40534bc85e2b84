"""From factors back to plain weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import remove_parametrizations
from torch.utils import _pytree as pytree

from openwork.factorizations.budget import THRESHOLD
from openwork.factorizations.factorization import Part, blocks_of, parts_of
from openwork.factorizations.recurrent import remember_weights
from openwork.factorizations.watching import watch
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

    def plain_() -> None:
        for block in blocks:
            block.zero_below_(threshold)
        _plain_(model)

    return reported(
        "collapse",
        model,
        plain_,
        threshold=threshold,
        names=[part.name for block in blocks for part in block.parts],
        sizes=[(block.magnitudes().detach(), sum(part.value.numel() for part in block.parts)) for block in blocks],
        example_inputs=example_inputs,
    )


def reported(
    owner: str,
    model: nn.Module,
    zero_: Callable[[], None],
    *,
    threshold: float,
    names: Sequence[str],
    sizes: Sequence[tuple[Tensor, int]],
    example_inputs: object = None,
) -> CollapseReport:
    """Make weights of a model zero, and say what became of them.

    Args:
        owner: Who asks, for messages.
        model: With the weights as they were trained.
        zero_: Makes small groups zero; afterwards the weights are plain parameters.
        threshold: That it goes by.
        names: Of the weights.
        sizes: Sizes of groups before, and the entries that these groups have together.
        example_inputs: As for ``collapse``.

    Returns:
        What became of the weights.

    Raises:
        ValueError: If the model does not run; nothing has changed then.
    """
    before = None if example_inputs is None else _outputs(owner, model, example_inputs)
    total = sum(entries for _, entries in sizes)
    sweep = {t: _ratio(total, sum(float((s >= t).double().mean()) * entries for s, entries in sizes)) for t in SWEEP}
    zero_()
    weights = dict(model.named_parameters(remove_duplicate=False))
    change = None
    if before is not None:
        after = _outputs(owner, model, example_inputs)
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


def _outputs(owner: str, model: nn.Module, example_inputs: object) -> list[Tensor]:
    """All tensors that the model gives in evaluation mode, in order."""
    args, kwargs = arguments(owner, example_inputs)
    with torch.no_grad(), evaluating(model):
        found: list[Tensor] = []
        pytree.tree_map_only(Tensor, found.append, run(owner, model, args, kwargs))
        return found


def _plain_(model: nn.Module) -> None:
    """Put the products in the place of all factors; a shared weight stays one parameter."""
    factors = {
        f"factor {i} of {part.name}": factor for part in parts_of(model) for i, factor in enumerate(part.factors)
    }
    made: dict[int, nn.Parameter] = {}
    for part in parts_of(model):
        key = id(part.factors[0])
        if key not in made:
            trains = any(factor.requires_grad for factor in part.factors)
            made[key] = nn.Parameter(part.value.detach().clone(), requires_grad=trains)
        _restore(part, made[key])
    watch(model, factors, by="collapse")


def _restore(part: Part, weight: nn.Parameter) -> None:
    owner, local, order = part.owner, part.local, part.factorization.order
    # Copies of the module share its class, and they are still factorized.
    shared = type(owner)
    owner.__class__ = cast("type[nn.Module]", type(shared.__name__, shared.__bases__, dict(vars(shared))))
    remove_parametrizations(owner, local, leave_parametrized=True)
    remember_weights(owner)
    setattr(owner, local, weight)
    # It was put behind the others, and the order of the parameters is part of what a model is.
    parameters = owner._parameters  # pyright: ignore[reportPrivateUsage]
    for name in order:
        if name in parameters:
            parameters[name] = parameters.pop(name)


__all__ = ["SWEEP", "CollapseReport", "collapse", "reported"]
