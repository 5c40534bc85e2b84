"""What is sketched in a model: from laws, names and couplings to families."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, cast

from torch import nn
from torch.nn.parameter import is_lazy

from openwork.sketches.families import Entries, Families, ScaleSide, Units
from openwork.sketches.sketch import DiagonalSketch, Sketch
from openwork.wiring import Coupling, Selection, inspect, parameter_names, select, selected

Granularity = Literal["tensor", "model", "units"]
# The keys of a mapping are invariant, so that those with one kind of key are named too.
Laws = Sketch | Mapping[str | type[nn.Module], Sketch] | Mapping[str, Sketch] | Mapping[type[nn.Module], Sketch]

_OWNER = "SketchedModule"


def choose_families(
    module: nn.Module,
    laws: Laws,
    *,
    granularity: Granularity,
    example_inputs: object,
    groups: Sequence[Coupling] | None,
    include: Selection | None,
    exclude: Selection | None,
    side: ScaleSide,
) -> Families:
    """What is drawn together in a model, and by which law.

    Args:
        module: Any module.
        laws: As in ``SketchedModule``, like all others.
        granularity: What is drawn among.
        example_inputs: With which couplings are found.
        groups: Couplings, if they are not to be found.
        include: What is sketched.
        exclude: What is not.
        side: Which slices of a unit are multiplied.

    Returns:
        At least one family, each with its own name.

    Raises:
        TypeError: If a group is no coupling.
        ValueError: If nothing is left to sketch, or an argument does not fit.
    """
    if granularity not in ("tensor", "model", "units"):
        raise ValueError(f"{_OWNER}: granularity must be 'tensor', 'model' or 'units', got {granularity!r}")
    if side not in ("outgoing", "all"):
        raise ValueError(f"{_OWNER}: side must be 'outgoing' or 'all', got {side!r}")
    if groups is not None and granularity != "units":
        raise ValueError(f"{_OWNER}: groups are couplings, whose units are drawn with granularity='units' only")
    for group in groups or ():
        if not isinstance(group, Coupling):
            raise TypeError(
                f"{_OWNER}: groups must be couplings, got {type(group).__name__}; of a GroupSpec pass its "
                "coupling(model)"
            )
    meant = _meant(module, laws, include, exclude)
    if granularity == "units":
        found = _units(module, meant, example_inputs, groups, side)
    elif granularity == "tensor":
        found = tuple(Entries(name, law, {name: module.get_parameter(name).shape}) for name, (_, law) in meant.items())
    else:
        together: dict[str, Families] = {}
        for label, law in meant.values():
            shapes = {name: module.get_parameter(name).shape for name, (other, _) in meant.items() if other == label}
            together[label] = (Entries(f"model:{label}" if label else "model", law, shapes),)
        found = tuple(family for same in together.values() for family in same)
    if not found:
        raise ValueError(
            f"{_OWNER}: nothing of {type(module).__name__} is left to sketch; loosen include, exclude or unfreeze it"
        )
    return found


def _meant(
    module: nn.Module, laws: Laws, include: Selection | None, exclude: Selection | None
) -> dict[str, tuple[str, Sketch]]:
    # For the first name of each parameter that is sketched: the pattern that found its law, and the law.
    if isinstance(laws, Mapping):
        laws = cast("Mapping[str | type[nn.Module], Sketch]", laws)
        items: Sequence[str | type[nn.Module]] = tuple(laws)
        if not items:
            raise ValueError(f"{_OWNER}: sketch is an empty mapping; map at least one pattern to a law")
        labels = [item if isinstance(item, str) else item.__name__ for item in items]
        found = [
            (label, select(module, item, f"{_OWNER}: sketch"), laws[item])
            for label, item in zip(labels, items, strict=True)
        ]
    else:
        items, found = (), [("", None, laws)]
    for label, _, law in found:
        if not isinstance(law, Sketch):
            place = f"sketch[{label!r}]" if label else "sketch"
            raise TypeError(f"{_OWNER}: {place} must be a law such as RandK(0.5), got {law!r}")
    chosen = selected(module, include, exclude, _OWNER)
    named = chosen.named | {item for item in items if isinstance(item, str)}
    result: dict[str, tuple[str, Sketch]] = {}
    for parameter, names in parameter_names(module).items():
        if chosen.why_not(names):
            continue
        if is_lazy(parameter):
            raise ValueError(f"{_OWNER}: {names[0]!r} has no shape yet; run the module once on a batch before")
        if not (parameter.requires_grad and parameter.is_floating_point()):
            for name in named.intersection(names):
                why = "is frozen" if parameter.is_floating_point() else f"has integers ({parameter.dtype})"
                raise ValueError(
                    f"{_OWNER}: {name!r} {why}, and only what trains is sketched; unfreeze it or leave it out"
                )
            continue
        first = next(((label, law) for label, of, law in found if of is None or not of.isdisjoint(names)), None)
        if first is not None:
            result[names[0]] = first
    return result


def _units(
    module: nn.Module,
    meant: Mapping[str, tuple[str, Sketch]],
    example_inputs: object,
    groups: Sequence[Coupling] | None,
    side: ScaleSide,
) -> Families:
    # Couplings that were found and cannot be sketched are left out; those that were given raise.
    for _, law in meant.values():
        if not isinstance(law, DiagonalSketch):
            raise ValueError(f"{_OWNER}: {type(law).__name__} mixes units; take a diagonal sketch such as RandK(0.5)")
    couplings = inspect(module, example_inputs).removable if groups is None else groups
    aliases = {name: names for names in parameter_names(module).values() for name in names}
    found: list[Units] = []
    reasons: list[str] = []
    for coupling in couplings:
        why = _why_not(coupling, side, meant, aliases)
        if why and groups is not None:
            raise ValueError(
                f"{_OWNER}: the units of {coupling.name!r} cannot be sketched: {why}; leave it out of groups"
            )
        if why:
            reasons.append(f"the units of {coupling.name!r}: {why}")
            continue
        laws = dict(meant[part.name] for part in coupling.consumers)
        if len(laws) > 1:
            patterns = ", ".join(map(repr, laws))
            raise ValueError(
                f"{_OWNER}: sketch has several laws for what reads the units of {coupling.name!r} ({patterns}), which "
                "are drawn once; let one pattern match all of it"
            )
        (law,) = laws.values()
        count = sum(family.coupling.name == coupling.name for family in found)
        name = f"{coupling.name} ({count + 1})" if count else coupling.name
        found.append(Units(name, cast("DiagonalSketch", law), coupling, side))
    if not found and reasons:
        raise ValueError(f"{_OWNER}: no units of {type(module).__name__} can be sketched; {'; '.join(reasons[:3])}")
    return tuple(found)


def _why_not(
    coupling: Coupling, side: ScaleSide, meant: Mapping[str, object], aliases: Mapping[str, Sequence[str]]
) -> str:
    """Why the units of a coupling cannot be sketched; empty if they can."""
    parts = coupling.consumers if side == "outgoing" else (*coupling.producers, *coupling.consumers)
    means = [remark.text for remark in coupling.remarks if remark.kind == "mean"]
    if coupling.blocked or means:
        # What a smaller network computes would not be what the mask computes.
        return [*coupling.reasons, *means][0]
    if not coupling.consumers:
        return "nothing reads them"
    for part in parts:
        names = aliases.get(part.name, ())
        if not names:
            return f"{part.name!r} is no parameter of the module"
        if part.name != names[0]:
            return f"{part.name!r} is part of a tied tensor, which is called {names[0]!r}"
        if part.name not in meant:
            return f"{part.name!r} is frozen, excluded or matched by no law"
    twice = [name for name, count in Counter(part.name for part in parts).items() if count > 1]
    if twice:
        return f"{twice[0]!r} has them on two axes, where the product of their scales would not be 1 on average"
    written = {(part.name, part.dim) for part in coupling.producers}
    tied = [part.name for part in coupling.consumers if (part.name, part.dim) in written]
    if tied:
        return f"{tied[0]!r} is tied: the same slices write and read them, and only part of it would be meant"
    return ""


__all__ = ["Granularity", "Laws", "choose_families"]
