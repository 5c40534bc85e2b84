"""Factorizing the weights of a model, for any optimizer."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import SupportsFloat, TypeVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import register_parametrization

from openwork.factorizations.entries import Entries
from openwork.factorizations.factorization import Part, parametrized, parts_of
from openwork.factorizations.forms import Form, Planned, Request
from openwork.factorizations.handle import Handle
from openwork.factorizations.recurrent import forget_weights
from openwork.factorizations.storage import check_storage
from openwork.factorizations.watching import watch
from openwork.forward_pass import check_module
from openwork.wiring import Selected, Selection, Side, parameter_names, role_of, select, selected

V = TypeVar("V", int, float)


def factorize(
    model: nn.Module,
    depth: int = 3,
    lam: float = 0.0,
    *,
    form: Form | None = None,
    include: Selection | None = None,
    exclude: Selection | None = None,
    depths: Mapping[str, int] | None = None,
    lams: Mapping[str, float] | None = None,
    example_inputs: object = None,
    side: Side = "producers",
    generator: torch.Generator | None = None,
) -> "Handle":
    """Put products of factors in the place of weights: L2 on the factors is a sparse penalty on the products.

    The factors are what is trained, by any optimizer with ``handle.param_groups()``, whose ``weight_decay`` on them is
    ``2 lam / depth``: this minimizes ``loss + lam * sum |w|^(2 / depth)``. Build the optimizer after this; one that was
    built before would train weights that are no longer there, and says so at its first step. ``collapse`` makes a plain
    model of it. ``openwork.optim.FactorizedSGD`` is the same training by SGD, with the model left as it is.

    Args:
        model: Changed in place. Weights of layers are factorized; biases, normalizations, embedding tables and
            parameters of unknown layers stay as they are, unless they belong to units that ``Gated`` gives gates. A
            shared weight stays shared.
        depth: Number D of factors, >= 2.
        lam: Strength, >= 0, against a loss averaged over samples.
        form: What takes the place of a weight: ``Entries()`` (every entry on its own, the default), ``Gated()`` (whole
            units have gates) or ``LowRank()``.
        include: Only these: names of parameters or modules, in which ``*``, ``?`` and ``[...]`` are wildcards, or
            module types. The full name of a parameter insists on it, whatever its layer.
        exclude: Not these, written the same way; it has the last word.
        depths: Another depth for some, by names with wildcards.
        lams: Another strength for some, by names with wildcards.
        example_inputs: What ``model`` accepts, for forms that follow its couplings.
        side: Which side of a coupling is gated.
        generator: Of the random numbers of the start; None for torch's own.

    Returns:
        A handle on the factors.

    Raises:
        ValueError: If a number is out of range, nothing is left to factorize, a selection matches nothing, a parameter
            is parametrized already, has no shape yet, or shares storage with another; nothing has changed then.

    References:
        Kolb, Weber, Bischl & Rügamer, Deep Weight Factorization (ICLR 2025), arXiv:2502.02496, algorithm 2.
    """
    request = _request("factorize", model, depth, lam, include, exclude, depths, lams)
    names = request.names
    with torch.no_grad():
        plans = (Entries() if form is None else form).plan(
            model, replace(request, example_inputs=example_inputs, side=side, generator=generator)
        )
    parameters = dict(model.named_parameters(remove_duplicate=False))
    replaced = {name: parameters[name] for plan in plans for name in plan.parts}
    for plan in plans:
        _register(model, plan, {name: names[replaced[name]] for name in plan.parts})
    watch(model, replaced, by="factorize")
    return Handle(model)


def param_groups(
    model: nn.Module,
    depth: int = 3,
    lam: float = 0.0,
    *,
    include: Selection | None = None,
    exclude: Selection | None = None,
    depths: Mapping[str, int] | None = None,
    lams: Mapping[str, float] | None = None,
) -> list[dict[str, object]]:
    """Param groups for ``openwork.optim.FactorizedSGD``: the weights that ``factorize`` would take, and the rest.

    Args:
        model: Not changed.
        depth: Number D of factors, >= 2.
        lam: Strength, >= 0.
        include: As for ``factorize``.
        exclude: As for ``factorize``.
        depths: As for ``factorize``.
        lams: As for ``factorize``.

    Returns:
        One group for each depth and strength, and one of depth 1, whose parameters are trained by plain SGD; each with
        ``"params"``, ``"names"``, ``"depth"`` and ``"lam"``.

    Raises:
        ValueError: As ``factorize``.
    """
    request = _request("param_groups", model, depth, lam, include, exclude, depths, lams)
    groups: dict[tuple[int, float], dict[str, object]] = {}
    members: dict[tuple[int, float], tuple[list[nn.Parameter], list[str]]] = {}
    for parameter, its_names in request.names.items():
        name = its_names[0]
        key = (request.depth_of(name), request.lam_of(name)) if name in request.chosen else (1, 0.0)
        if parameter.requires_grad:
            params, own = members.setdefault(key, ([], []))
            params.append(parameter)
            own.append(name)
    # What is factorized first, in the order of the model.
    for key in sorted(members, key=lambda key: key[0] == 1):
        params, own = members[key]
        groups[key] = {"params": params, "names": own, "depth": key[0], "lam": key[1]}
    return list(groups.values())


def _request(
    owner: str,
    model: nn.Module,
    depth: int,
    lam: float,
    include: Selection | None,
    exclude: Selection | None,
    depths: Mapping[str, int] | None,
    lams: Mapping[str, float] | None,
) -> Request:
    """What is asked for, checked.

    Raises:
        ValueError: If something about it is wrong.
    """
    check_module(owner, model)
    _check_numbers(owner, depth, lam)
    if parts := parts_of(model):
        raise ValueError(f"{owner}: {parts[0].name} is factorized already; call collapse(model) first")
    wanted = [include] if isinstance(include, str | type) else include or ()
    taken = {name: steps for name, _, _, steps in parametrized(model)}
    computed = {original for steps in taken.values() for original in steps.parameters()}
    if name := next((item for item in wanted if item in taken), None):
        raise ValueError(f"{owner}: {name} has a parametrization already; remove it, or leave it out of include")
    names = parameter_names(model)
    choice = selected(model, include, exclude, owner)
    for parameter, its_names in names.items():
        if parameter in computed and (name := choice.insists(its_names)):
            raise ValueError(f"{owner}: {name} belongs to a parametrization; remove that, or leave it out of include")
    chosen = _chosen(owner, model, names, choice)
    # Also with what stays as it is: it would no longer follow.
    check_storage(owner, {its_names[0]: parameter for parameter, its_names in names.items()})
    return Request(
        chosen=chosen,
        names=names,
        depth=depth,
        lam=lam,
        depths=_by_name(model, depths, f"{owner}: depths", lambda value: _check_numbers(owner, value, lam)),
        lams=_by_name(model, lams, f"{owner}: lams", lambda value: _check_numbers(owner, depth, value)),
        selected=choice,
    )


def _check_numbers(owner: str, depth: object, lam: object) -> None:
    """Refuse a depth or a strength that means nothing.

    Raises:
        ValueError: If one is out of range.
    """
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 2:
        raise ValueError(f"{owner}: depth must be an integer of at least 2, got {depth}; 3 is a good choice")
    if not isinstance(lam, SupportsFloat) or not 0 <= float(lam) < float("inf"):
        raise ValueError(f"{owner}: lam must be at least 0 and finite, got {lam}")


def _by_name(
    model: nn.Module, values: Mapping[str, V] | None, argument: str, check: Callable[[V], None]
) -> dict[str, V]:
    """Values by the names of parameters, from values by patterns; later patterns have the last word."""
    found: dict[str, V] = {}
    for pattern, value in (values or {}).items():
        check(value)
        found |= dict.fromkeys(select(model, pattern, argument), value)
    return found


def _chosen(
    owner: str, model: nn.Module, names: Mapping[nn.Parameter, Sequence[str]], choice: Selected
) -> dict[str, nn.Parameter]:
    """Parameters that may be factorized, by their first names.

    Raises:
        ValueError: If there are none, one has no shape yet, or one that is named in full does not train.
    """
    chosen: dict[str, nn.Parameter] = {}
    reasons: list[str] = []
    for parameter, its_names in names.items():
        if is_lazy(parameter):
            raise ValueError(f"{owner}: {its_names[0]!r} has no shape yet; call the model on one batch first")
        insisted = choice.insists(its_names)
        trains = parameter.requires_grad and parameter.is_floating_point()
        if insisted and not trains:
            raise ValueError(
                f"{owner}: include names {insisted!r}, which does not train (requires_grad is "
                f"{parameter.requires_grad}, dtype {parameter.dtype}); let it train or take it out of include"
            )
        why = choice.why_not(its_names)
        if not why and not trains:
            why = str(parameter.dtype).removeprefix("torch.") if parameter.requires_grad else "frozen"
        if not why and not insisted:
            kinds = {None if role is None else role.kind for role in (_role(model, name) for name in its_names)}
            if kinds != {"weight"} or parameter.numel() < 2:
                why = f"{'of an unknown layer' if None in kinds else ' and '.join(sorted(map(str, kinds)))}"
        if why:
            reasons.append(f"{its_names[0]} ({why})")
        else:
            chosen[its_names[0]] = parameter
    if not chosen:
        why = f"{', '.join(reasons[:4]) or 'it has none'}{', ...' if len(reasons) > 4 else ''}"
        raise ValueError(
            f"{owner}: {type(model).__name__} has no weight left to factorize: {why}; give the full name of one "
            "in include to insist on it"
        )
    return chosen


def _role(model: nn.Module, name: str):
    owner, _, local = name.rpartition(".")
    return role_of(model.get_submodule(owner), local)


@torch.no_grad()
def _register(model: nn.Module, plan: Planned, names: Mapping[str, Sequence[str]]) -> None:
    """Put factors in the place of parameters that share some of them."""
    shared: list[nn.Parameter] = []
    for name, factorization in plan.parts.items():
        first: Part | None = None
        for one in names[name]:
            path, _, local = one.rpartition(".")
            owner = model.get_submodule(path)
            if first is not None and local in getattr(owner, "parametrizations", ()):
                # One module under two names.
                continue
            part = Part(one, owner, local)
            made = deepcopy(factorization)
            earlier = [other.factorization for other in parts_of(owner) if other.owner is owner]
            made.order = (
                earlier[0].order if earlier else tuple(name for name, _ in owner.named_parameters(recurse=False))
            )
            # Torch asks for factors of the present weight; here they start elsewhere.
            made.right_inverse = lambda weight, starts=tuple(plan.starts[name]): starts
            register_parametrization(owner, local, made, unsafe=True)
            del made.right_inverse
            forget_weights(owner)
            made.joined = len(plan.parts) > 1
            if first is None:
                first = part
                kept = len(part.factors) - plan.shared
                if shared:
                    part.share(shared, kept)
                shared = part.factors[kept:]
            else:
                part.share(first.factors, 0)


__all__ = ["factorize", "param_groups"]
