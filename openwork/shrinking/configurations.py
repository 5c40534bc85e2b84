"""Configurations of Hugging Face models: the fields that say how wide layers are, found by building models from them.

Nothing here knows a family of models or imports their library. A field stands for a width if a model built from the
configuration with another number in it has just the shapes that cutting leaves.
"""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from openwork.files import Json
from openwork.shrinking.finding import Finding
from openwork.shrinking.keeping import choose, cuts, kinds
from openwork.shrinking.verification import NotEqual, verify
from openwork.wiring import rms_eps

# Fields that are None where the width follows from another one.
_OPTIONAL = re.compile(r"inner|intermediate|ffn|head_dim|d_ff|d_kv")
# What is counted in heads has to change together.
_COUNTS = re.compile(r"heads?$|groups?$")


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a configuration can express.

    Args:
        finding: What can go; nothing of the couplings that no field stands for.
        fields: New values by name of the field, with dots where configurations are nested.
        whole: Names of the couplings that could lose units and stay as they are.
    """

    finding: Finding
    fields: Mapping[str, Json]
    whole: tuple[str, ...]


def has_configuration(model: nn.Module) -> bool:
    """Whether a model is built from a configuration that it is saved with."""
    config = getattr(model, "config", None)
    return callable(getattr(model, "save_pretrained", None)) and callable(getattr(config, "to_dict", None))


def fit(model: nn.Module, finding: Finding, *, round_to: int) -> Fitted:
    """Find the fields that make a configuration say what is left of its model.

    Couplings that no field stands for stay whole.

    Args:
        model: As it was traced, with a configuration.
        finding: What can go.
        round_to: As for ``choose``.

    Returns:
        What can go as the configuration can say it, and how it says so.
    """
    whole: list[int] = []
    while True:
        kept = choose(finding, round_to=round_to, uniform=True)
        found = _expressed(model, finding, kept)
        # What stays may hold others that have to be as wide, so it is chosen anew.
        if isinstance(found, dict):
            names = [finding.grouping.couplings[which].name for which in sorted(whole)]
            return Fitted(finding, found, tuple(names))
        if isinstance(found, _Whole):
            whole += found.members
            dead = [units & (which not in found.members) for which, units in enumerate(finding.dead)]
        else:
            dead = [
                _spared(units, found.count) if which in found.members else units
                for which, units in enumerate(finding.dead)
            ]
        finding = replace(finding, dead=dead)


def configure_(model: nn.Module, fields: Mapping[str, Json]) -> None:
    """Give a model a configuration of its own with other values; its modules share it as they shared the old one."""
    if not fields:
        return
    memo: dict[int, Any] = {}
    for module in model.modules():
        if "config" in vars(module):
            module.config = deepcopy(vars(module)["config"], memo)
    _set(cast("Any", model).config, fields)


def check_configuration(small: nn.Module, example_inputs: object, *, dtype: torch.dtype | None, seed: int) -> None:
    """Prove that a model built from the configuration of a shrunk one computes the same with its tensors.

    Args:
        small: With its new configuration.
        example_inputs: As for ``wiring.trace``.
        dtype: As for ``verify``.
        seed: As for ``verify``.

    Raises:
        NotEqual: If it does not.
    """
    twin = _build(small, small.config)
    if twin is None or _shapes(twin).items() != _shapes(small).items():
        raise NotEqual(
            f"shrink: the configuration of {type(small).__name__} cannot say how wide its layers have become; "
            "nothing was changed: shrink it with uniform=False"
        )
    tensors = dict([*small.named_parameters(remove_duplicate=False), *small.named_buffers(remove_duplicate=False)])
    for path, module in list(twin.named_modules(remove_duplicate=False)):
        for name, _ in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            setattr(module, name, tensors[f"{path}.{name}" if path else name])
    try:
        verify(small, twin, example_inputs, dtype=dtype, seed=seed)
    except NotEqual as error:
        raise NotEqual(
            f"{error}; that is a {type(small).__name__} built from the new configuration: shrink with uniform=False"
        ) from error


@dataclass(frozen=True)
class _Whole:
    """Couplings that must stay whole."""

    members: list[int]


@dataclass(frozen=True)
class _Wider:
    """Couplings that must keep this many units."""

    members: list[int]
    count: int


def _spared(dead: Tensor, count: int) -> Tensor:
    """Fewer dead units, so that ``count`` are left."""
    at = dead.nonzero().flatten()
    spared = dead.clone()
    spared[at[: max(0, count - int((~dead).sum()))]] = False
    return spared


def _expressed(model: nn.Module, finding: Finding, kept: Sequence[Tensor]) -> dict[str, Json] | _Whole | _Wider:
    """New values of the fields, or what has to be chosen otherwise for there to be some."""
    couplings = finding.grouping.couplings
    old = cast("Any", model).config
    config = deepcopy(old)
    found: list[tuple[list[int], dict[str, Json]]] = []
    done = [torch.ones_like(units) for units in kept]
    for members in kinds(couplings):
        if all(bool(kept[which].all()) for which in members):
            continue
        for which in members:
            done[which] = kept[which]
        expected = _expected(model, finding, done)
        for change in _changes(old, finding, members[0], int(kept[members[0]].sum())):
            changed = _changed(config, change)
            if _same(_build(model, changed), expected):
                config = changed
                found.append((members, change))
                break
        else:
            return _Whole(members)
    fields = {name: value for _, change in found for name, value in change.items()}
    if _valid(config) or not _valid(old):
        return fields
    # A library may ask more of its numbers than its models do, such as that one divides another.
    for members, change in found:
        width = couplings[members[0]].width
        for count in range(int(kept[members[0]].sum()) + 1, width):
            wider = [other for other in _changes(old, finding, members[0], count) if other.keys() == change.keys()]
            if any(_valid(_changed(config, other)) for other in wider):
                return _Wider(members, count)
    return _Whole(found[-1][0])


def _changed(config: object, fields: Mapping[str, Json]) -> object:
    changed = deepcopy(config)
    _set(changed, fields)
    return changed


def _valid(config: object) -> bool:
    """Whether a configuration that can check itself has nothing to say."""
    validate = getattr(config, "validate", None)
    try:
        return validate is None or validate() is not False
    except Exception:
        # Each library has errors of its own.
        return False


@dataclass(frozen=True)
class _Facts:
    """Shapes of tensors by name, and eps of normalizations by path."""

    shapes: Mapping[str, tuple[int, ...]]
    eps: Mapping[str, float | None]


def _expected(model: nn.Module, finding: Finding, kept: Sequence[Tensor]) -> _Facts:
    """What is left of a model."""
    couplings = finding.grouping.couplings
    shapes = {name: list(shape) for name, shape in _shapes(model).items()}
    stays = cuts(couplings, kept)
    for name, dims in stays.items():
        for dim, indices in dims.items():
            shapes[name][dim] = len(indices)
    eps = _eps(model)
    for coupling in couplings:
        for remark in coupling.remarks if not coupling.blocked else ():
            name = f"{remark.module}.weight"
            if remark.kind == "mean" and name in stays and (old := eps.get(remark.module)) is not None:
                eps[remark.module] = old * model.get_parameter(name).shape[0] / len(stays[name][0])
    return _Facts({name: tuple(shape) for name, shape in shapes.items()}, eps)


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def _eps(model: nn.Module) -> dict[str, float | None]:
    found = {path: (module, rms_eps(module)) for path, module in model.named_modules()}
    return {path: getattr(module, name) for path, (module, name) in found.items() if name is not None}


def _same(built: nn.Module | None, expected: _Facts) -> bool:
    return built is not None and _shapes(built) == expected.shapes and _eps(built) == expected.eps


def _build(model: nn.Module, config: object) -> nn.Module | None:
    """A model of the same class without entries; None if there is none of that configuration."""
    make = cast("type[Any]", type(model))
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make(deepcopy(config))
    except Exception:
        # Classes refuse numbers that do not fit together, each in its own way.
        return None


def _changes(config: object, finding: Finding, which: int, count: int) -> Iterator[dict[str, Json]]:
    """Values to try for one coupling, the likeliest first."""
    coupling = finding.grouping.couplings[which]
    fields = dict(_fields(config))
    # How long the axes are, and how long they would be.
    lengths: dict[int, Json] = {coupling.width: count}
    for part in coupling.slices():
        known = int((part.units >= 0).sum())
        lengths.setdefault(known, known * count // coupling.width)
    tried: list[dict[str, Json]] = [
        {name: lengths[value]} for name, value in fields.items() if type(value) is int and value in lengths
    ]
    tried += [
        {name: new}
        for name, value in fields.items()
        if value is None and _OPTIONAL.search(name)
        for new in lengths.values()
    ]
    counts: dict[str, Json] = {
        name: value * count // coupling.width
        for name, value in fields.items()
        if type(value) is int and _COUNTS.search(name) and value * count % coupling.width == 0 and value
    }
    tried += [{name: new} for name, new in counts.items()]
    if len(counts) > 1:
        tried.append(dict(counts))
    mean = any(remark.kind == "mean" for remark in coupling.remarks)
    for change in tried:
        yield change
        # The mean over fewer channels is made up for by the eps as well.
        for name, value in fields.items() if mean else ():
            if isinstance(value, float) and "eps" in name:
                yield {**change, name: value * coupling.width / count}


def _fields(config: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Names and values, with those of configurations inside."""
    for name in cast("Any", config).to_dict():
        value = getattr(config, name, None)
        if callable(getattr(value, "to_dict", None)):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _set(config: object, fields: Mapping[str, Json]) -> None:
    for name, value in fields.items():
        *path, last = name.split(".")
        owner: Any = config
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, last, value)


__all__ = ["Fitted", "check_configuration", "configure_", "fit", "has_configuration"]
