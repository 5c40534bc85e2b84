"""What turns a model into its shrunk form, by names and numbers alone, so that a file can hold it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from openwork.factorizations.replacing import put_
from openwork.factorizations.two_layers import Split, two_layers
from openwork.files import Json
from openwork.shrinking.attributes import set_attributes
from openwork.shrinking.configurations import configure_
from openwork.shrinking.parts import Attention, Constant, Recurrent

SCHEMA = 1


@dataclass(frozen=True)
class Replacement:
    """A module that takes the place of another.

    Args:
        path: Of the module.
        kind: What takes its place, a key of ``MAKERS``.
        numbers: What the maker needs besides the module.
    """

    path: str
    kind: str
    numbers: Mapping[str, Json] = field(default_factory=dict[str, Json])

    def make_(self, model: nn.Module) -> nn.Module:
        """Put the new module into a model, in every place of the old one.

        Args:
            model: Changed in place.

        Returns:
            The new module.
        """
        old = model.get_submodule(self.path)
        new = MAKERS[self.kind](old, self.numbers)
        new.train(old.training)
        put_(model, old, new)
        return new


@dataclass(frozen=True)
class Plan:
    """How a model becomes smaller.

    Args:
        model: Name of its class.
        shapes: Shapes before and after of every tensor that changes, by its name afterwards; a tensor that is new has
            none before.
        attributes: New values by path of the module and name of the attribute.
        replacements: In the order in which they are made, before anything else.
        configuration: New values of the fields of the model's configuration, where it has one that says how wide it is.
    """

    model: str
    shapes: Mapping[str, tuple[tuple[int, ...] | None, tuple[int, ...]]]
    attributes: Mapping[str, Mapping[str, Json]]
    replacements: tuple[Replacement, ...] = ()
    configuration: Mapping[str, Json] = field(default_factory=dict[str, Json])

    def to_json(self) -> dict[str, Json]:
        """Plain values."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "shapes": {
                name: [None if old is None else list(old), list(new)] for name, (old, new) in self.shapes.items()
            },
            "attributes": {path: dict(values) for path, values in self.attributes.items()},
            "replacements": [{"path": r.path, "kind": r.kind, "numbers": dict(r.numbers)} for r in self.replacements],
            "configuration": dict(self.configuration),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Plan":
        """The plan that ``to_json`` wrote.

        Raises:
            ValueError: If it is of another schema, or is no plan.
        """
        if value.get("schema") != SCHEMA:
            raise ValueError(
                f"the plan has schema {value.get('schema')!r}, and this version of openwork reads {SCHEMA}; use the "
                "version that wrote it"
            )
        try:
            found = cast("dict[str, Any]", value)
            return cls(
                str(found["model"]),
                {
                    name: (None if old is None else tuple(map(int, old)), tuple(map(int, new)))
                    for name, (old, new) in found["shapes"].items()
                },
                {path: dict(values) for path, values in found["attributes"].items()},
                tuple(Replacement(r["path"], r["kind"], r["numbers"]) for r in found["replacements"]),
                dict(found["configuration"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError("the plan is incomplete; restore the file from a copy or write it anew") from error

    def apply_(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Make a model smaller, in place.

        Args:
            model: As large as the one the plan was made for.
            tensors: Every parameter and buffer afterwards, by its first name.

        Raises:
            ValueError: If the plan is for another model or another size; nothing has changed then.
        """
        self._check(model)
        for replacement in self.replacements:
            replacement.make_(model)
        set_tensors(model, tensors)
        set_attributes(model, self.attributes)
        configure_(model, self.configuration)

    def _check(self, model: nn.Module) -> None:
        name = type(model).__qualname__
        if name != self.model:
            raise ValueError(f"the plan is for a model of class {self.model}, got a {name}; pass a {self.model}")
        made = tuple(f"{r.path}." for r in self.replacements)
        here = {name: tuple(tensor.shape) for name, tensor in (*model.named_parameters(), *model.named_buffers())}
        for name, (old, _) in self.shapes.items():
            if old is not None and not name.startswith(made) and here.get(name) != old:
                found = f"has shape {here[name]}" if name in here else "is not there"
                raise ValueError(
                    f"the plan expects {name!r} of shape {old} in the {self.model} it is applied to, where it {found}; "
                    "build the model with the sizes that it had before it was shrunk"
                )
        for replacement in self.replacements:
            if replacement.kind not in MAKERS:
                raise ValueError(
                    f"the plan replaces {replacement.path!r} by {replacement.kind!r}, which this version of openwork "
                    "does not know; use the version that wrote it"
                )


def set_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a model the numbers of other tensors, of other shapes and types where they have those; ties survive.

    Args:
        model: Changed in place.
        tensors: Parameters and buffers by first name; a bias that was None may be among them.
    """
    seen: dict[Tensor, Tensor] = {}
    for path, module in list(model.named_modules(remove_duplicate=False)):
        for local, old in [
            *module.named_parameters(recurse=False, remove_duplicate=False),
            *module.named_buffers(recurse=False, remove_duplicate=False),
        ]:
            name = f"{path}.{local}" if path else local
            if old not in seen and name in tensors:
                seen[old] = _filled(old, tensors[name])
            if seen.get(old, old) is not old:
                setattr(module, local, seen[old])
    known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    known |= {name for name, _ in model.named_buffers(remove_duplicate=False)}
    for name in tensors.keys() - known:
        path, _, local = name.rpartition(".")
        setattr(model.get_submodule(path), local, nn.Parameter(tensors[name].clone()))


@torch.no_grad()
def _filled(old: Tensor, new: Tensor) -> Tensor:
    if old.shape == new.shape and old.dtype == new.dtype:
        return old.copy_(new)
    new = new.detach().to(old.device, copy=True).contiguous()
    return nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new


def _constant(old: nn.Module, numbers: Mapping[str, Any]) -> nn.Module:
    like = next(old.parameters())
    return Constant(
        torch.zeros(numbers["channels"], dtype=like.dtype, device=like.device), numbers["dim"], numbers["stride"]
    )


def _low_rank(old: nn.Module, numbers: Mapping[str, Any]) -> nn.Module:
    return two_layers(old, Split(numbers["rank"], numbers["kernel_in"]))


# How each kind of replacement is made, from the module and the plan's numbers; tensors are filled in afterwards.
MAKERS: dict[str, Callable[[Any, Mapping[str, Any]], nn.Module]] = {
    "attention": lambda old, _: Attention.like(old),
    "constant": _constant,
    "low_rank": _low_rank,
    "recurrent": lambda old, _: Recurrent.like(old),
}


__all__ = ["MAKERS", "Plan", "Replacement", "set_tensors"]
