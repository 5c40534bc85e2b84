"""From a model with exact zeros to a smaller one that computes the same."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from openwork.metrics import params, size_bytes
from openwork.shrinking.attributes import of_layers, told
from openwork.shrinking.finding import Finding, Fold, find
from openwork.shrinking.keeping import choose, cuts
from openwork.shrinking.plan import Plan
from openwork.shrinking.report import Held, ShrinkReport, Width
from openwork.shrinking.verification import verify
from openwork.wiring import rms_eps, trace


@dataclass(frozen=True, eq=False)
class Shrunk:
    """A smaller model, and what was done to get it.

    Args:
        model: An ordinary module, trainable; in the mode (training or evaluation) of the original.
        report: What went, and the proof that the outputs are the same.
        plan: How to make another model of the same class as small; ``ow.save`` writes it.
    """

    model: nn.Module
    report: ShrinkReport
    plan: Plan


def shrink(
    model: nn.Module,
    example_inputs: object,
    optimizer: Optimizer | None = None,
    *,
    round_to: int = 1,
    uniform: bool = False,
    exclude: str | Sequence[str] = (),
    fold: bool = True,
    low_rank: bool = True,
    split_recurrent: bool = False,
    seed: int = 0,
) -> Shrunk:
    """Take out of a model what is exactly zero, and prove that its outputs stay the same.

    Channels, heads, hidden units and whole branches go when nothing reads them: because the weights that would are
    zero, because they are zero themselves, or because they are constants, which move into biases. Layers of low rank
    become two. The original is not changed.

    Args:
        model: Any module that ``wiring.trace`` can trace, with exact zeros in its weights.
        example_inputs: A tensor; a tuple or list of positional arguments; or a dictionary of keyword arguments.
        optimizer: Built over the model's parameters; it goes on with those of the smaller model, its state cut along.
            Constants then stay where they are.
        round_to: Keep lengths of cut axes multiples of this, by keeping some zero units; >= 1.
        uniform: Keep layers of one kind equally wide, as configurations of Hugging Face models need.
        exclude: Names of parameters or modules, with wildcards, whose units all stay.
        fold: Let biases take over constants; makes a bias where there is none.
        low_rank: Split layers of low rank in two where that saves parameters and time.
        split_recurrent: Split LSTM and GRU layers into one module for each layer and direction, which can then lose
            different numbers of units.
        seed: Of the fresh inputs of the proof.

    Returns:
        The smaller model, the report and the plan.

    Raises:
        TypeError: If ``model`` is no module.
        ValueError: If nothing is exactly zero, an argument is wrong, or the model does not run on ``example_inputs`` or
            cannot be traced.
        NotEqual: If the smaller model does not compute the same; nothing has changed then.
    """
    if round_to < 1:
        raise ValueError(f"shrink: round_to must be a positive integer, got {round_to}")
    traced = trace(model, example_inputs)
    finding = _without(find(model, traced, fold=fold and optimizer is None), model, exclude)
    kept = choose(finding, round_to=round_to, uniform=uniform)
    folds = [one for one in finding.folds if not kept[one.coupling][one.unit]]
    tensors = _folded(model, folds)
    stays = cuts(finding.grouping.couplings, kept)
    _rescale(model, tensors, finding, stays)
    for name, dims in stays.items():
        for dim, indices in dims.items():
            tensors[name] = tensors[name].index_select(dim, indices.to(tensors[name].device))
    if not stays:
        _check_zeros(model)

    plan = _plan(model, tensors, finding, kept, stays)
    small = deepcopy(model)
    plan.apply_(small, tensors)
    certificate = verify(model, small, example_inputs, seed=seed)
    report = ShrinkReport(
        params=(params(model).total, params(small).total),
        size_bytes=(size_bytes(model), size_bytes(small)),
        widths=tuple(
            Width(c.name, tuple(dict.fromkeys(part.name for part in c.slices())), c.width, int(units.sum()))
            for c, units in zip(finding.grouping.couplings, kept, strict=True)
            if not c.blocked
        ),
        shapes=plan.shapes,
        held=_held(finding),
        folded=len(folds),
        constant=(),
        ranks={},
        certificate=certificate,
    )
    return Shrunk(small, report, plan)


def _without(finding: Finding, model: nn.Module, exclude: str | Sequence[str]) -> Finding:
    """Units of excluded tensors stay.

    Raises:
        ValueError: If a pattern matches nothing.
    """
    patterns = [exclude] if isinstance(exclude, str) else list(exclude)
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    excluded: set[str] = set()
    for pattern in patterns:
        found = {name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")}
        if not found:
            raise ValueError(
                f"shrink: exclude {pattern!r} matches no parameter of {type(model).__name__}; see model.named_parameters()"
            )
        excluded |= found
    dead = [
        units & (not excluded.intersection(part.name for part in coupling.slices()))
        for coupling, units in zip(finding.grouping.couplings, finding.dead, strict=True)
    ]
    return replace(finding, dead=dead)


def _folded(model: nn.Module, folds: Sequence[Fold]) -> dict[str, Tensor]:
    """All tensors of a model, with constants in the biases."""
    tensors = {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    for one in folds:
        old = tensors.get(one.bias)
        tensors[one.bias] = one.shift.clone() if old is None else old + one.shift
    return tensors


def _rescale(
    model: nn.Module, tensors: dict[str, Tensor], finding: Finding, stays: Mapping[str, Mapping[int, Tensor]]
) -> None:
    """Make up for the means of root-mean-square normalizations: with k of d channels, their sums are divided by k.

    ``x / sqrt(sum / d + eps) w = x / sqrt(sum / k + eps d / k) (w sqrt(d / k))``.
    """
    for path in _means(finding):
        name = f"{path}.weight" if path else "weight"
        if name in stays:
            weight = tensors[name]
            tensors[name] = weight * (weight.shape[0] / stays[name][0].numel()) ** 0.5


def _means(finding: Finding) -> list[str]:
    """Paths of the normalizations that divide by the number of channels of a coupling that is not blocked."""
    return list(
        dict.fromkeys(
            remark.module
            for coupling in finding.grouping.couplings
            if not coupling.blocked
            for remark in coupling.remarks
            if remark.kind == "mean"
        )
    )


def _plan(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    finding: Finding,
    kept: Sequence[Tensor],
    stays: Mapping[str, Mapping[int, Tensor]],
) -> Plan:
    before = {name: tuple(tensor.shape) for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    shapes = {
        name: (before.get(name), tuple(tensor.shape))
        for name, tensor in tensors.items()
        if before.get(name) != tuple(tensor.shape)
    }
    attributes = told(model, finding, kept)
    for path in _means(finding):
        name = f"{path}.weight" if path else "weight"
        if name in stays:
            layer, d, k = model.get_submodule(path), before[name][0], stays[name][0].numel()
            eps = rms_eps(layer) or ""
            value = getattr(layer, eps)
            # torch's RMSNorm takes None for the precision's own.
            value = torch.finfo(tensors[name].dtype).eps if value is None else value
            attributes.setdefault(path, {})[eps] = value * d / k
    for path, values in of_layers(model, tensors, stays).items():
        attributes.setdefault(path, {}).update(values)
    return Plan(type(model).__qualname__, shapes, attributes)


def _check_zeros(model: nn.Module) -> None:
    """Refuse a model without zeros.

    Raises:
        ValueError: If no weight has a zero.
    """
    if not any(bool((p == 0).any()) for p in model.parameters() if p.ndim > 1):
        raise ValueError("shrink: nothing is exactly zero; call optimizer.settle_() first")


def _held(finding: Finding) -> tuple[Held, ...]:
    """Units of blocked couplings that nothing reads."""
    return tuple(
        Held(coupling.name, int(idle.sum()), coupling.reasons)
        for coupling, idle in zip(finding.grouping.couplings, finding.idle, strict=True)
        if idle.any()
    )


__all__ = ["Shrunk", "shrink"]
