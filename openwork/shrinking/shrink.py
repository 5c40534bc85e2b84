"""From a model with exact zeros to a smaller one that computes the same."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from openwork.factorizations.replacing import replaceable
from openwork.factorizations.two_layers import two_layers
from openwork.forward_pass import check_module
from openwork.metrics import params, size_bytes
from openwork.sharding import check_undivided
from openwork.shrinking.attributes import Attributes, of_layers, told
from openwork.shrinking.branches import constant_branches
from openwork.shrinking.configurations import Fitted, check_configuration, fit, has_configuration
from openwork.shrinking.cutting import Cuts, sliced, with_free_widths
from openwork.shrinking.finding import Finding, Fold, find
from openwork.shrinking.keeping import choose, cuts
from openwork.shrinking.optimizers import check_optimizer, follow_
from openwork.shrinking.parts import Constant
from openwork.shrinking.plan import Plan, Replacement
from openwork.shrinking.ranks import splits
from openwork.shrinking.report import Held, ShrinkReport, Width
from openwork.shrinking.verification import coarsest, verify
from openwork.wiring import Side, rms_eps, trace


class NothingZero(ValueError):
    """A model without exact zeros, which nobody can shrink."""


@dataclass(frozen=True, eq=False)
class Shrunk:
    """A smaller model, and what was done to get it.

    Args:
        model: An ordinary module, trainable; in the mode (training or evaluation) of the original.
        report: What went, and the proof that the outputs are the same.
        plan: How to make another model of the same class as small; ``ow.save`` writes it.
        stays: Indices that stay of each tensor of the original, by name and dimension; only where some go.
    """

    model: nn.Module
    report: ShrinkReport
    plan: Plan
    stays: Cuts


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
        uniform: Keep layers of one kind equally wide. The configuration of a Hugging Face model then says so, and what
            it cannot say stays whole, so that ``save_pretrained`` and ``from_pretrained`` give the small model back;
            constants stay where they are, and layers of low rank as they are.
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
        NothingZero: If nothing is exactly zero.
        ValueError: If an argument is wrong, or the model does not run on ``example_inputs`` or
            cannot be traced.
        NotEqual: If the smaller model does not compute the same; nothing has changed then.
    """
    check_module("shrink", model)
    check_undivided(
        "shrink",
        model.named_parameters(),
        "settle_() and gather it: load get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)) of "
        "torch.distributed.checkpoint.state_dict into a model that is not sharded, and shrink that",
    )
    if round_to < 1:
        raise ValueError(f"shrink: round_to must be a positive integer, got {round_to}")
    excluded = _matching(model, exclude)
    if optimizer is not None:
        check_optimizer(model, optimizer)
    # A configuration knows neither biases that the class does not have nor layers in place of others.
    configured = uniform and has_configuration(model)
    fold, low_rank = fold and optimizer is None and not configured, low_rank and not configured
    draft = _Draft.of(model, split_recurrent=split_recurrent)
    finding = _without(draft.explore_(example_inputs, excluded, fold=fold), excluded)
    fitted = fit(draft.model, finding, round_to=round_to) if configured else Fitted(finding, {}, ())
    finding = fitted.finding
    kept = choose(finding, round_to=round_to, uniform=uniform)
    folds = [one for one in finding.folds if not kept[one.coupling][one.unit]]
    stays = cuts(finding.grouping.couplings, kept)
    tensors = _folded(draft.tensors(), folds, stays)
    attributes = told(draft.model, finding.grouping, kept)
    for path, (d, k) in _means_(tensors, finding, stays).items():
        attributes.setdefault(path, {}).update(_eps(draft.model.get_submodule(path), d, k))
    for name, dims in stays.items():
        tensors[name] = sliced(tensors[name], dims)
    draft.drop_unused_(stays)
    ranks = draft.split_(tensors, example_inputs, excluded | _spare(finding, kept)) if low_rank else {}
    if not stays and not ranks and not draft.constant:
        _check_zeros(model)

    small = deepcopy(model)
    plan = replace(draft.plan(model, small, tensors, attributes), configuration=fitted.fields)
    plan.apply_(small, tensors)
    certificate = verify(model, small, example_inputs, dtype=coarsest(finding.traced), seed=seed)
    if fitted.fields:
        check_configuration(small, example_inputs, dtype=coarsest(finding.traced), seed=seed)
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
        constant=tuple(draft.constant),
        ranks=ranks,
        certificate=certificate,
        notes=(*_notes(model, small, draft, finding, kept, ranks, optimizer), *_whole(fitted.whole)),
    )
    if optimizer is not None:
        follow_(optimizer, model, small, stays)
    return Shrunk(small, report, plan, stays)


@dataclass
class _Draft:
    """A copy of the model (or the model itself as long as nothing is replaced) and what is replaced in it."""

    model: nn.Module
    replacements: list[Replacement] = field(default_factory=list[Replacement])
    constant: list[str] = field(default_factory=list[str])

    @classmethod
    def of(cls, model: nn.Module, *, split_recurrent: bool) -> "_Draft":
        """Put modules whose widths are free in place of those that tie them to other widths."""
        return cls(*with_free_widths(model, split_recurrent=split_recurrent))

    def explore_(self, example_inputs: object, excluded: frozenset[str], *, fold: bool) -> Finding:
        """Find what can go, and put constants in place of branches that give one until there is none left."""
        while True:
            finding = find(self.model, trace(self.model, example_inputs), fold=fold)
            if not fold or not self._replace_constants_(finding, example_inputs, excluded):
                return finding

    def tensors(self) -> dict[str, Tensor]:
        return {name: x.detach() for name, x in (*self.model.named_parameters(), *self.model.named_buffers())}

    def _replace_constants_(self, finding: Finding, example_inputs: object, excluded: frozenset[str]) -> bool:
        """Put constants in place of branches that give one; whether there was any."""
        found = [
            branch
            for branch in constant_branches(self.model, finding, example_inputs)
            if not any(name.startswith(f"{branch.path}.") for name in excluded)
        ]
        others = {branch.path: Constant(branch.values, branch.dim, branch.stride) for branch in found}
        fitting = replaceable(self.model, others, example_inputs)
        found = [branch for branch in found if branch.path in fitting]
        if not found:
            return False
        if not self.replacements:
            self.model = deepcopy(self.model)
        for branch in found:
            made = Replacement(branch.path, "constant", branch.numbers)
            made.make_(self.model).get_buffer("values").copy_(branch.values)
            inside = f"{branch.path}."
            self.replacements = [r for r in self.replacements if not r.path.startswith(inside)] + [made]
            self.constant.append(branch.path)
        return True

    def drop_unused_(self, stays: Cuts) -> None:
        """Leave attention as it was where no tensor of it is cut."""
        self.replacements = [
            r
            for r in self.replacements
            if r.kind != "attention" or any(name.startswith(f"{r.path}.") for name in stays)
        ]

    def split_(
        self, tensors: dict[str, Tensor], example_inputs: object, excluded: frozenset[str]
    ) -> dict[str, tuple[int, int]]:
        """Put two layers in place of those of low rank; ranks, and the largest possible ones."""
        found: dict[str, tuple[int, int]] = {}
        low = splits(self.model, tensors, excluded)
        others = {path: two_layers(self.model.get_submodule(path), split) for path, (split, _) in low.items()}
        for path in replaceable(self.model, others, example_inputs):
            split, layers = low[path]
            self.replacements.append(Replacement(path, "low_rank", {"rank": split.rank, "kernel_in": split.kernel_in}))
            weight = tensors.pop(f"{path}.weight")
            tensors.pop(f"{path}.bias", None)
            tensors |= {f"{path}.{name}": tensor.detach() for name, tensor in layers.named_parameters()}
            found[path] = split.rank, min(weight.shape[:2])
        return found

    def plan(self, model: nn.Module, small: nn.Module, tensors: Mapping[str, Tensor], attributes: Attributes) -> Plan:
        """What turns ``model`` into the smaller one; ``small``, a copy of it, is used to look at what is put in."""
        old = {name: tuple(x.shape) for name, x in (*model.named_parameters(), *model.named_buffers())}
        new = {name: tuple(x.shape) for name, x in tensors.items()}
        shapes = {name: (old.get(name), shape) for name, shape in new.items() if old.get(name) != shape}
        template = deepcopy(small).to("meta") if self.replacements else small
        for replacement in self.replacements:
            replacement.make_(template)
        for path, values in of_layers(template, tensors, shapes).items():
            attributes.setdefault(path, {}).update(values)
        return Plan(type(model).__qualname__, shapes, attributes, tuple(self.replacements))


def _matching(model: nn.Module, exclude: str | Sequence[str]) -> frozenset[str]:
    """Names of the parameters that patterns mean.

    Raises:
        ValueError: If a pattern matches nothing.
    """
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    found: set[str] = set()
    for pattern in [exclude] if isinstance(exclude, str) else exclude:
        matched = {name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")}
        if not matched:
            raise ValueError(
                f"shrink: exclude {pattern!r} matches no parameter of {type(model).__name__}; "
                "use names of model.named_parameters() or of modules"
            )
        found |= matched
    return frozenset(found)


def _without(finding: Finding, excluded: frozenset[str]) -> Finding:
    """Units of excluded tensors stay."""
    dead = [
        units & (not excluded.intersection(part.name for part in coupling.slices()))
        for coupling, units in zip(finding.grouping.couplings, finding.dead, strict=True)
    ]
    return replace(finding, dead=dead)


def _folded(
    tensors: dict[str, Tensor], folds: Sequence[Fold], stays: dict[str, dict[int, Tensor]]
) -> dict[str, Tensor]:
    """Tensors whose biases have taken constants over; a bias that was not there is cut as its outputs are."""
    for one in folds:
        old = tensors.get(one.bias)
        tensors[one.bias] = one.shift.clone() if old is None else old + one.shift
        if old is None and one.output in stays.get(one.weight, {}):
            stays[one.bias] = {0: stays[one.weight][one.output]}
    return tensors


def _spare(finding: Finding, kept: Sequence[Tensor]) -> frozenset[str]:
    """Tensors that keep zeros so that their widths fit, which is no low rank to make use of."""
    return frozenset(
        part.name
        for coupling, units, dead in zip(finding.grouping.couplings, kept, finding.dead, strict=True)
        if bool((units & dead).any())
        for part in coupling.slices()
    )


def _means_(tensors: dict[str, Tensor], finding: Finding, stays: Cuts) -> dict[str, tuple[int, int]]:
    """Make up for the means of root-mean-square normalizations, whose sums are divided by k instead of d.

    ``x / sqrt(sum / d + eps) w = x / sqrt(sum / k + eps d / k) (w sqrt(d / k))``.

    Returns:
        d and k by path of the normalization.
    """
    found: dict[str, tuple[int, int]] = {}
    for coupling in finding.grouping.couplings:
        for remark in coupling.remarks if not coupling.blocked else ():
            name = f"{remark.module}.weight" if remark.module else "weight"
            if remark.kind == "mean" and remark.module not in found and name in stays:
                found[remark.module] = tensors[name].shape[0], stays[name][0].numel()
                d, k = found[remark.module]
                tensors[name] = tensors[name] * (d / k) ** 0.5
    return found


def _eps(layer: nn.Module, d: int, k: int) -> dict[str, float]:
    name = rms_eps(layer) or "eps"
    eps = getattr(layer, name)
    # None stands for that of the precision of the inputs, which are taken to be of the weight's.
    eps = torch.finfo(layer.get_parameter("weight").dtype).eps if eps is None else eps
    return {name: eps * d / k}


def _check_zeros(model: nn.Module) -> None:
    """Refuse a model without zeros.

    Raises:
        NothingZero: If no weight has a zero.
    """
    if not any(bool((p == 0).any()) for p in model.parameters() if p.ndim > 1):
        raise NothingZero("shrink: nothing is exactly zero; call optimizer.settle_() first")


def _held(finding: Finding) -> tuple[Held, ...]:
    """Units of blocked couplings that nothing reads."""
    return tuple(
        Held(coupling.name, int(idle.sum()), coupling.reasons)
        for coupling, idle in zip(finding.grouping.couplings, finding.idle, strict=True)
        if idle.any()
    )


def _one_sided(draft: _Draft, finding: Finding, kept: Sequence[Tensor]) -> int:
    """Units that went although what writes them or what reads them is not zero, so that they could have changed."""
    sizes = {name: tensor.detach().abs() for name, tensor in draft.model.named_parameters()}
    count = 0
    for coupling, units in zip(finding.grouping.couplings, kept, strict=True):
        sides: list[Side] = ["producers", "consumers"]
        living = torch.zeros(coupling.width, dtype=torch.bool)
        for side in sides if not bool(units.all()) else ():
            if coupling.side(side):
                living |= coupling.sum(sizes, side).cpu() > 0
        count += int((living & ~units).sum())
    return count


def _notes(
    model: nn.Module,
    small: nn.Module,
    draft: _Draft,
    finding: Finding,
    kept: Sequence[Tensor],
    ranks: Mapping[str, tuple[int, int]],
    optimizer: Optimizer | None,
) -> list[str]:
    notes: list[str] = []
    if params(model).total == params(small).total:
        notes.append(
            "nothing could be removed: the zeros do not fill whole units, so they make a file smaller "
            "(ow.save(..., sparse=True)), not the model faster"
        )
    spare = sum(int((units & dead).sum()) for units, dead in zip(kept, finding.dead, strict=True))
    if spare:
        notes.append(f"{spare} units that nothing reads stay so that widths fit")
    one_sided = 0 if optimizer is None else _one_sided(draft, finding, kept)
    if one_sided:
        notes.append(f"{one_sided} units were zero on one side only, and could have come back had they stayed")
    if optimizer is not None and ranks:
        notes.append(f"{len(ranks)} layers of low rank became two, whose optimizer state starts anew")
    return notes


def _whole(names: Sequence[str]) -> list[str]:
    said = ", ".join(names)
    return [f"the configuration has no field for the widths of {said}, which stay whole"] if names else []


__all__ = ["NothingZero", "Shrunk", "shrink"]
